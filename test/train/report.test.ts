import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { denseAttention } from '../../lib/attention/fine.js';
import { TileGrid } from '../../lib/attention/grid.js';
import { selectionOffsets } from '../../lib/attention/offsets.js';
import { device, memory } from '../../lib/device/device.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import type { LogRow } from '../../lib/train/log.js';
import { selectionMaps, short, ticks } from '../../lib/train/report/charts.js';
import { comparisonText, firstAsGood } from '../../lib/train/report/comparison.js';
import { finalLoss, lossCurve, median } from '../../lib/train/report/data.js';
import type { TrainSettings } from '../../lib/train/settings.js';
import { writeReport } from '../../lib/train/report/write.js';
import { AttentionStudy } from '../../lib/train/study.js';
import { openPage } from '../demo/browser-page.js';
import { browser, testWithBrowser } from '../demo/support.js';
import { failureOf } from '../tensor/support.js';
import { rowsOf, run, SMALL, temporaryFolder } from './support.js';

const folder = temporaryFolder();
const cpu = device('cpu');
const rows = (losses: readonly number[]): LogRow[] =>
  losses.map((loss, i) => ({ step: i + 1, loss, flop: 10 * (i + 1) }) as LogRow);

describe('numbers of the report', () => {
  test('a curve is means of neighbouring steps, with nothing left out', () => {
    const losses = Array.from({ length: 1001 }, (_, i) => i);
    const curve = lossCurve(rows(losses));
    expect(curve.length).toBeLessThanOrEqual(240);
    expect(curve.at(-1)).toMatchObject({ step: 1001, flop: 10010 });
    const size = curve[0]!.step;
    expect(curve[0]!.loss).toBe((size - 1) / 2);
    expect(lossCurve(rows([3, 5]))).toEqual([
      { step: 1, flop: 10, loss: 3 },
      { step: 2, flop: 20, loss: 5 },
    ]);
    expect(lossCurve([])).toEqual([]);
  });

  test('the last loss is the mean of the last tenth', () => {
    expect(finalLoss(rows(Array.from({ length: 200 }, (_, i) => i)))).toBe(189.5);
    expect(finalLoss(rows([1, 3]))).toBe(2);
  });

  test('a run is as good as another one where a whole window of its steps is', () => {
    const some = rows([5, 1, 4, 2, 2, 1, 3]).map((row) => ({ ...row, ms: 500 }));
    // The mean of the first step alone, or of 1 by itself, is no mean of two.
    expect(firstAsGood(some, 2, 2)).toEqual({ step: 5, flop: 50, seconds: 2.5 });
    expect(firstAsGood(some, 1.5, 2)).toEqual({ step: 6, flop: 60, seconds: 3 });
    expect(firstAsGood(some, 1.4, 2)).toBeUndefined();
    expect(firstAsGood(some, 5, 8)).toBeUndefined();
  });

  test('the comparison: where another run gets to, and what an adaptation took with its dense weights', () => {
    const one = (name: string, losses: readonly number[], settings: object) => ({
      ...{ name, rows: rows(losses).map((row) => ({ ...row, ms: 1 })) },
      settings: { attention: 'vsa', adapt: null, ...settings } as TrainSettings,
    });
    const full = one('runs/full', new Array<number>(20).fill(3), { attention: 'full' });
    const sparse = one('vsa', [...new Array<number>(10).fill(4), ...new Array<number>(10).fill(2)], {});
    const adapted = one('adapted', [3, 3], { adapt: 'runs/full/checkpoint.safetensors' });
    expect(comparisonText([full, sparse, adapted])).toBe(
      'runs/full ends at a loss of 3.0000, the mean of 10 steps, with 200FLOP. ' +
        'vsa first gets there at step 15, with 150FLOP (0.75×). ' +
        'adapted goes on from trained weights, with 20FLOP (0.10×), which makes 1.10× with those that its dense weights took.',
    );
    expect(comparisonText([full, one('worse', [4, 4, 4], {})])).toContain(
      'worse does not get there: it ends at 4.0000 with 30FLOP (0.15×); ' +
        'runs/full is first as good at step 10, with 100FLOP, 3.33× as many.',
    );
    expect(comparisonText([full, one('other', [3], { adapt: 'else/checkpoint.safetensors' })])).toMatch(
      /\(0\.05×\)\.$/,
    );
    expect([comparisonText([full]), comparisonText([sparse, adapted])]).toEqual(['', '']);
  });

  test('medians, round ticks and short numbers', () => {
    expect([median([3, 1, 2]), median([4, 1, 2, 3])]).toEqual([2, 2.5]);
    expect(ticks(0, 1)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(ticks(1.07, 1.46)).toEqual([1.1, 1.2, 1.3, 1.4]);
    expect(ticks(2, 2)).toEqual([2]);
    expect([short(0), short(1234), short(1.5e9), short(0.25)]).toEqual(['0', '1.23k', '1.5G', '0.25']);
  });
});

test('the study of a layer: what dense attention gives to the tiles that hold nearly all of it', async () => {
  const grid = new TileGrid({ tokens: [4, 4, 8] });
  // Keys of the second tile are far larger, so that all attention falls on it, and the coarse stage sees it.
  const values = Float32Array.from({ length: grid.length * 64 }, (_, i) => {
    const token = Math.floor(i / 64);
    return token % 8 >= 4 ? 2 : 0.01;
  });
  using q = Tensor.full([1, grid.length, 1, 64], 1, { device: 'cpu' });
  using k = Tensor.from(values, [1, grid.length, 1, 64], { device: 'cpu' });
  const before = memory();
  const { output, saved } = denseAttention.forward({ q, k, v: k });
  const study = new AttentionStudy(grid, 1);
  study.observe({ layer: 3, q, k, v: k, lists: saved.lists, lse: saved.lse });
  output.dispose();
  saved.dispose();
  const [layer] = await study.finish();
  expect(layer!.layer).toBe(3);
  expect(layer!.held[0]).toBeCloseTo(1, 5);
  // From the first tile the selected one lies to its right, from the second at its own place.
  expect([...layer!.offsets[0]!.space]).toEqual([0, 0.5, 1]);
  expect(memory()).toEqual(before);
});

test('maps of heads: as many of the first, the middle and the last layer', () => {
  const grid = new TileGrid({ tokens: [4, 4, 8] });
  const maps = (layers: number, heads: number) => {
    const offsets = Array.from({ length: heads }, () => selectionOffsets(grid, () => [0]));
    const all = Array.from({ length: layers }, (_, layer) => ({ layer, held: [], offsets }));
    const html = selectionMaps({ layers: all, grid });
    return [...html.matchAll(/<b>Layer (\d+), head (\d+)<\/b>/g)].map(([, layer, head]) => `${layer!}.${head!}`);
  };
  const four = (layer: number) => [0, 1, 2, 3].map((head) => `${String(layer)}.${String(head)}`);
  expect(maps(12, 12)).toEqual([...four(0), ...four(6), ...four(11)]);
  expect(maps(2, 2)).toEqual(['0.0', '0.1', '1.0', '1.1']);
  expect(maps(1, 16)).toHaveLength(12);
  expect(maps(0, 1)).toEqual([]);
});

describe('the page', () => {
  const names = ['full', 'vsa'] as const;
  const path = join(folder, 'report.html');
  let html = '';
  beforeAll(async () => {
    await run(join(folder, 'full'), { ...SMALL, attention: 'full' });
    await run(join(folder, 'vsa'), SMALL);
    await writeReport(
      names.map((name) => join(folder, name)),
      { out: path, device: cpu },
    );
    html = readFileSync(path, 'utf8');
  });

  test('says what runs were and what came of them, and loads nothing', () => {
    for (const name of names) {
      expect(html).toContain(finalLoss(rowsOf(join(folder, name))).toFixed(4));
      expect(html).toContain(join(folder, name));
    }
    expect(html).toContain('full attention');
    expect(html).toContain('VSA, 2 of 4 tiles');
    expect(html.match(/data:image\/gif;base64,R0lGOD/g)).toHaveLength(2);
    expect(html).not.toMatch(/https?:\/\/(?!www\.w3\.org)/);
    const words = html.replace(/base64,[^"]*/g, '');
    expect(words).not.toMatch(/NaN|undefined|Infinity/);
  });

  testWithBrowser('opens in a browser without an error: curves drawn, samples decoded', async () => {
    const page = await openPage(browser!, path);
    try {
      const seen = await page.evaluate(`({
        curves: [...document.querySelectorAll('.chart path')].map((p) => p.getTotalLength() > 100),
        samples: [...document.querySelectorAll('.samples img')].map((i) => [i.naturalWidth, i.naturalHeight]),
        layers: document.querySelectorAll('.meter.vsa').length,
        maps: document.querySelectorAll('.offsets figure').length,
        wide: document.documentElement.scrollWidth <= window.innerWidth,
      })`);
      expect(seen).toEqual({
        curves: [true, true, true, true],
        samples: [
          [256, 256],
          [256, 256],
        ],
        layers: 4,
        maps: 4,
        wide: true,
      });
      expect(page.errors()).toEqual([]);
    } finally {
      await page.close();
    }
  });

  test('of a folder that is no run is refused, and of none', async () => {
    expect(await failureOf(() => writeReport([join(folder, 'none')], { device: cpu }))).toMatchObject({
      code: 'ERR_FILE',
    });
    expect(await failureOf(() => writeReport([], { device: cpu }))).toMatchObject({ argument: 'runs' });
  });
});
