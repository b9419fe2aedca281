/** Reading from a GPU: in order with what overwrites, many at once, holding no thread of Node's, whatever is disposed. */

import { denseAttention, memory, Tensor, tidy, TileGrid, videoSparseAttention } from '../../lib/index.js';
import { leaveNothingBehind } from '../tensor/support.js';
import { bytesOf, describeGpu, gpu, onGpu, runOnGpu } from './support.js';

describeGpu('reading', () => {
  leaveNothingBehind();

  test.each([3, 4 * 2 ** 18 + 1, 9 * 2 ** 18 + 3])(
    '%i values: what is written afterwards is not seen',
    async (count) => {
      using x = Tensor.zeros([count], onGpu);
      const reads: Promise<boolean>[] = [];
      for (let i = 0; i < 8; i++) {
        x.copyFrom(new Float32Array(count).fill(i));
        reads.push(x.data().then((data) => data.every((value) => value === i)));
        using next = Tensor.full([count], -i, onGpu);
        x.copyFrom(next);
        reads.push(x.data().then((data) => data.every((value) => value === -i)));
      }
      expect(await Promise.all(reads)).toEqual(new Array(16).fill(true));
    },
  );

  test('200 reads at once, in order, each with its own values', async () => {
    const tensors = Array.from({ length: 200 }, (_, i) => Tensor.full([1 + 997 * i], i, { dtype: 'int32', ...onGpu }));
    const settled: number[] = [];
    const reads = tensors.map((tensor, i) => tensor.data().finally(() => settled.push(i)));
    tensors.forEach((tensor) => tensor.dispose());
    const values = await Promise.all(reads);
    expect(values.every((data, i) => data.length === 1 + 997 * i && data.every((value) => value === i))).toBe(true);
    expect(settled).toEqual(Array.from({ length: 200 }, (_, i) => i));
  });

  test('200 reads of one tensor, blocking reads between them', async () => {
    using x = Tensor.randn([100_001], { seed: 4, ...onGpu });
    const wanted = await bytesOf(x);
    const reads = Array.from({ length: 200 }, (_, i) => {
      if (i % 50 === 49) expect(Buffer.from(x.dataSync().buffer).equals(wanted)).toBe(true);
      return bytesOf(x);
    });
    expect((await Promise.all(reads)).every((bytes) => bytes.equals(wanted))).toBe(true);
  });

  test('inputs and outputs disposed while the work runs', async () => {
    const grid = new TileGrid({ tokens: [8, 16, 16] });
    const run = () =>
      tidy(() => {
        const random = (seed: number) => Tensor.randn([1, grid.length, 8, 128], { seed, dtype: 'bfloat16', ...onGpu });
        const [q, k, v, d] = [random(1), random(2), random(3), random(4)];
        const { output, saved } = videoSparseAttention.forward({ q, k, v, grid, topK: 6, coarse: 'add' });
        const grads = videoSparseAttention.backward(saved, { output: d });
        return [output, grads.q, grads.k, grads.v].map((tensor) => bytesOf(tensor)); // and all are disposed here
      });
    const all = Array.from({ length: 12 }, run);
    expect(memory().numTensors).toBe(0);
    const results = await Promise.all(all.map((reads) => Promise.all(reads)));
    for (const bytes of results)
      expect(bytes.map((one, i) => one.equals(results[0]![i]!))).toEqual([true, true, true, true]);
  });

  test('synchronize resolves after everything called before', async () => {
    const q = Tensor.randn([1, 8192, 8, 128], { seed: 1, ...onGpu });
    const { output, saved } = denseAttention.forward({ q, k: q, v: q });
    let read = false;
    const reading = output.data().then(() => (read = true));
    await gpu.synchronize();
    await new Promise((resolve) => setImmediate(resolve));
    expect(read).toBe(true);
    await reading;
    for (const one of [q, output, saved]) one.dispose();
  });

  test('holds no thread of the pool: files are read while a long queue is pending', async () => {
    const result = await runOnGpu(
      `const { promises: fs } = require('node:fs');
      const q = vsa.Tensor.randn([1, 16384, 8, 128], { seed: 1 });
      const attend = () => vsa.tidy(() => vsa.denseAttention.forward({ q, k: q, v: q }).saved.lse.clone());
      let output;
      for (let i = 0; i < 2; i++) output = attend(); // the first loads kernels
      await gpu.synchronize();
      let started = performance.now();
      output = attend();
      await gpu.synchronize();
      const calls = Math.ceil(800 / (performance.now() - started));
      for (let i = 0; i < calls; i++) output = attend();
      started = performance.now();
      const order = [];
      const reads = Array.from({ length: 40 }, () => output.data().then(() => order.push('values')));
      reads.push(gpu.synchronize().then(() => order.push('idle')));
      for (let i = 0; i < 10; i++) order.push((await fs.readFile('/proc/self/status', 'utf8')).length > 0 && 'file');
      const files = performance.now() - started;
      await Promise.all(reads);
      report({ order: order.slice(0, 10), last: order.at(-1), files, all: performance.now() - started });`,
      { env: { UV_THREADPOOL_SIZE: '1' } },
    );
    const { order, last, files, all } = result as { order: string[]; last: string; files: number; all: number };
    expect({ order, last }).toEqual({ order: new Array(10).fill('file'), last: 'idle' });
    expect(all).toBeGreaterThan(100); // or it shows nothing
    expect(files).toBeLessThan(all / 2);
  });

  test('pending reads keep the process alive, and nothing else does', async () => {
    const result = await runOnGpu(`
      const q = vsa.Tensor.randn([1, 8192, 8, 128], { seed: 1 });
      const { output } = vsa.denseAttention.forward({ q, k: q, v: q });
      output.data().then((data) => report(data.length));`);
    expect(result).toBe(8192 * 8 * 128);
  });
});
