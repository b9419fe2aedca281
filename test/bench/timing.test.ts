/** What a timed call finds in the cache, and what is counted as part of it. */

import { native } from '../../lib/binding.js';
import type { Cache } from '../../lib/bench/cases.js';
import { median, quantile } from '../../lib/bench/statistics.js';
import { sampleCount, time } from '../../lib/bench/timing.js';
import { tilePooling } from '../../lib/attention/pooling.js';
import { TileGrid } from '../../lib/attention/grid.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import { here } from '../under-test.js';

describe('statistics', () => {
  test('quantiles', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(quantile([5, 1, 2, 3, 4], 0.1)).toBeCloseTo(1.4);
    expect(quantile([7], 0.9)).toBe(7);
    expect(median([])).toBeNaN();
  });

  test('a second of samples, 30 to 400, but fewer of calls above 267 ms', () => {
    expect([0.001, 5, 100, 266, 268, 1000, 60_000].map(sampleCount)).toEqual([400, 200, 30, 30, 29, 8, 5]);
  });
});

describe.each<Cache>(['warm', 'cold'])('a %s cache', (cache) => {
  const grid = new TileGrid({ tokens: '5x9x10' });
  let x: Tensor;
  beforeAll(() => (x = Tensor.randn([1, grid.length, 2, 64], { device: here, seed: 1 })));
  afterAll(() => x.dispose());
  afterEach(() => jest.restoreAllMocks());

  /** What happens, in order: a letter each for flushes, marks, calls, beginnings and ends of traces. */
  function watched() {
    const events: string[] = [];
    const addon = native();
    for (const [name, letter] of [
      ['flushCache', 'f'],
      ['mark', 'm'],
      ['beginTrace', 'b'],
      ['endTrace', 'e'],
    ] as const) {
      const original = addon[name].bind(addon) as (...args: unknown[]) => never;
      jest.spyOn(addon, name as 'flushCache').mockImplementation((...args: unknown[]): never => {
        events.push(letter);
        return original(...args);
      });
    }
    const call = () => {
      events.push('c');
      return tilePooling.forward({ x, grid });
    };
    return { call, text: () => events.join('') };
  }

  test('is what every sample finds, outside of its marks', async () => {
    const { call, text } = watched();
    await time(here, call, { cache, samples: 3 });
    // The last samples, behind the call that ends the head start.
    expect(text()).toMatch(cache === 'cold' ? /c(fmcm){1,3}$/ : /c(mcm){1,3}$/);
  });

  test('is what every traced call finds, and emptying it is no stage', async () => {
    const { call, text } = watched();
    const { samples, stages } = await time(here, call, { cache, samples: 40, stages: true });
    expect(samples).toHaveLength(40);
    expect(Object.keys(stages)).toEqual(['pool']);
    expect(stages['pool']).toBeGreaterThan(0);
    // Others find out what an event takes. Behind a call that warms the cache; on a GPU behind a chunk of them.
    const traces = text()
      .replaceAll('m', '')
      .split('e')
      .filter((trace) => trace.endsWith('c'));
    expect(traces.length).toBeGreaterThan(1);
    const ahead = here.type === 'cuda' && cache === 'warm' ? 10 : 1;
    for (const trace of traces)
      expect(trace).toMatch(new RegExp(`c{${String(ahead)}}${cache === 'cold' ? 'f' : ''}bc$`));
  });

  test('no call is traced unless that is asked for', async () => {
    const { call, text } = watched();
    expect((await time(here, call, { cache, samples: 3 })).stages).toEqual({});
    expect(text()).not.toMatch(/[be]/);
  });
});
