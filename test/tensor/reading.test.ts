/** Reading values: in order, without blocking, and with the failures of the operations that made them. */

import { setTimeout as sleep } from 'node:timers/promises';
import { TileGrid } from '../../lib/attention/grid.js';
import { blockSparseAttention, denseAttention } from '../../lib/attention/fine.js';
import { cpuThreads, setCpuThreads } from '../../lib/device/device.js';
import { tidy } from '../../lib/tensor/scope.js';
import type { Tensor } from '../../lib/tensor/tensor.js';
import { leaveNothingBehind } from './support.js';
import { fresh, here } from '../under-test.js';

leaveNothingBehind();

const threads = cpuThreads();
beforeAll(() => setCpuThreads(1)); // leaves a CPU to the event loop that is watched
afterAll(() => setCpuThreads(threads));

/** Queues about so many milliseconds of work and returns its last output, which took no time to call for. */
async function longWork(milliseconds: number): Promise<{ output: Tensor; calling: number }> {
  const shape = here.type === 'cpu' ? [1, 1024, 2, 64] : [1, 16384, 8, 128];
  const attend = () =>
    tidy(() => {
      const q = fresh.randn(shape, { seed: 1 });
      return denseAttention.forward({ q, k: q, v: q }).output;
    });
  let one = 0;
  for (let i = 0; i < 2; i++) {
    const started = performance.now(); // the first may load kernels
    const output = attend();
    await here.synchronize();
    one = performance.now() - started;
    output.dispose();
  }
  const before = performance.now();
  const output = tidy(() => Array.from({ length: Math.ceil(milliseconds / one) }, attend).at(-1)!);
  return { output, calling: performance.now() - before };
}

describe('the event loop', () => {
  test.each([
    ['data', (x: Tensor) => x.data()],
    ['toFloat32', (x: Tensor) => x.toFloat32()],
    ['synchronize', (x: Tensor) => x.device.synchronize()],
  ])('runs while %s waits for half a second of attention', async (_, read) => {
    const { output, calling } = await longWork(600);
    let [ticks, longest, last] = [0, 0, performance.now()];
    const timer = setInterval(() => {
      const now = performance.now();
      [ticks, longest, last] = [ticks + 1, Math.max(longest, now - last), now];
    }, 5);
    const started = performance.now();
    await read(output);
    const waited = performance.now() - started;
    clearInterval(timer);
    output.dispose();
    // Blocked, there would be no tick at all; on an idle machine there are a hundred.
    expect(waited).toBeGreaterThan(150);
    expect(ticks).toBeGreaterThan(8);
    expect(longest).toBeLessThan(waited / 2);
    expect(calling).toBeLessThan(waited);
  });

  test('dataSync waits for what was called before', async () => {
    const { output } = await longWork(100);
    const [values, wanted] = [output.dataSync(), await output.data()];
    expect(Buffer.from(values.buffer).equals(Buffer.from(wanted.buffer))).toBe(true);
    output.dispose();
  });
});

describe('order', () => {
  test('reads see what was called before them, and nothing later', async () => {
    using x = fresh.zeros([70_000]);
    const reads: Promise<unknown>[] = [];
    for (let i = 0; i < 20; i++) {
      using value = fresh.full([70_000], i);
      x.copyFrom(value);
      reads.push(x.data().then((data) => [data[0], data[69_999]]));
    }
    expect(await Promise.all(reads)).toEqual(Array.from({ length: 20 }, (_, i) => [i, i]));
  });

  test('promises settle in the order of their calls', async () => {
    using x = fresh.randn([1000]);
    const settled: number[] = [];
    await Promise.all(Array.from({ length: 100 }, (_, i) => x.data().then(() => settled.push(i))));
    expect(settled).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  test('synchronize resolves after every operation called before', async () => {
    const { output } = await longWork(50);
    let read = false;
    const reading = output.data().then(() => (read = true));
    await here.synchronize();
    await sleep(0);
    expect(read).toBe(true);
    await reading;
    output.dispose();
  });
});

test('thousands of promises at once', async () => {
  const tensors = Array.from({ length: 3000 }, (_, i) => fresh.full([3], i, { dtype: 'int32' }));
  const reads = tensors.map((tensor) => tensor.data());
  tensors.forEach((tensor) => tensor.dispose());
  const values = await Promise.all(reads);
  expect(values.every((value, i) => value.length === 3 && value[0] === i && value[2] === i)).toBe(true);
});

test('every read is a copy of its own', async () => {
  using x = fresh.from([1, 2]);
  const [a, b] = await Promise.all([x.data(), x.data()]);
  a[0] = 9;
  expect([[...b], [...x.dataSync()]]).toEqual([
    [1, 2],
    [1, 2],
  ]);
});

describe('a failed operation', () => {
  /** Lists that were overwritten, after all checks, with a tile that does not exist. */
  function failed(): Tensor {
    return tidy(() => {
      const lists = fresh.lists([[0]], { batch: 1, heads: 1, queryTiles: 1, keyTiles: 1 });
      lists.indices!.copyFrom(Int32Array.of(1_000_000));
      const q = fresh.randn([1, 64, 1, 64]);
      const grid = new TileGrid({ tokens: [4, 4, 4] });
      return keepOutput(blockSparseAttention.forward({ q, k: q, v: q, grid, lists }));
    });
  }
  const keepOutput = ({ output }: { output: Tensor }) => output;
  const expected = {
    name: 'VsaError',
    code: here.type === 'cpu' ? 'ERR_INTERNAL' : 'ERR_LISTS',
    message: expect.stringContaining('tile') as string,
  };

  test('rejects every read of its output, and of what was made from it', async () => {
    using output = failed();
    using derived = output.cast('bfloat16');
    using copied = fresh.zeros(output.shape).copyFrom(output);
    for (const tensor of [output, derived, copied]) {
      await expect(tensor.data()).rejects.toMatchObject(expected);
      await expect(tensor.toFloat32()).rejects.toMatchObject(expected);
      expect(() => tensor.dataSync()).toThrow(expect.objectContaining(expected) as Error);
    }
  });

  test('leaves the queue and other tensors as they are', async () => {
    using output = failed();
    using other = fresh.full([2], 3);
    expect([...(await other.data())]).toEqual([3, 3]);
    await here.synchronize();
    await expect(output.data()).rejects.toThrow();
  });
});
