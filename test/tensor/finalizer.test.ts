/** What the collector gives back, as a last resort, and what V8 is told of the memory that tensors hold. */

import { runProgram } from '../binding/node.js';

const flags = ['--expose-gc'];

/** Collects until the finalizers have run. */
const COLLECT = `const collect = async (done) => {
  for (let i = 0; i < 100 && !done(); i++) { global.gc(); await new Promise((resolve) => setTimeout(resolve, 5)); }
};`;

test('tensors, lists and saved state that nobody holds are given back', async () => {
  const result = await runProgram(
    `${COLLECT}
    const grid = new vsa.TileGrid({ tokens: [4, 4, 8] });
    const kept = vsa.Tensor.full([1], 7);
    (function drop() {
      for (let i = 0; i < 20; i++) {
        const q = vsa.Tensor.randn([1, grid.length, 1, 64]);
        const { saved, output } = vsa.videoSparseAttention.forward({ q, k: q, v: q, grid, topK: 1, coarse: 'add' });
        vsa.videoSparseAttention.backward(saved, { output });
        q.reshape([-1]);
      }
    })();
    const before = vsa.memory().numTensors;
    await collect(() => vsa.memory().numTensors === 1);
    report({ many: before > 200, after: vsa.memory(), kept: kept.item() });`,
    { flags },
  );
  expect(result).toEqual({ many: true, after: { numTensors: 1, numBytes: 4 }, kept: 7 });
});

test('a long tidy does not hold the tensors that were disposed in it', async () => {
  const result = await runProgram(
    `const heap = () => { global.gc(); return process.memoryUsage().heapUsed; };
    const { held, grown } = vsa.tidy(() => {
      const held = [];
      const round = (count) => {
        for (let i = 0; i < count; i++) {
          const tensor = vsa.Tensor.zeros([1]);
          if (i % 1000 === 0) held.push(tensor);
          else tensor.dispose();
        }
      };
      round(20000);
      const before = heap();
      round(100000);
      return { held, grown: heap() - before };
    });
    report({ held: held.filter((tensor) => !tensor.disposed).length, living: vsa.memory().numTensors, grown });`,
    { flags },
  );
  expect(result).toMatchObject({ held: 120, living: 120 });
  // They would take some 20 MB.
  expect((result as { grown: number }).grown).toBeLessThan(4e6);
});

test('a tensor dropped while its operations and its read are under way', async () => {
  const result = await runProgram(
    `${COLLECT}
    const read = (() => vsa.Tensor.randn([1 << 20], { seed: 4 }).cast('bfloat16').cast('float32').data())();
    await collect(() => vsa.memory().numTensors === 0);
    const [dropped, wanted] = [await read, vsa.Tensor.randn([1 << 20], { seed: 4, dtype: 'bfloat16' }).cast('float32').dataSync()];
    report(dropped.every((value, i) => value === wanted[i]));`,
    { flags },
  );
  expect(result).toBe(true);
});

// What is told shows in process.memoryUsage() on no version of Node, but V8 collects because of it: the objects alone,
// some hundred bytes each, would never make it.
test('V8 is told of the memory that tensors hold: it collects those dropped before they are many', async () => {
  const result = await runProgram(`
    let most = 0;
    for (let i = 0; i < 500; i++) {
      vsa.Tensor.zeros([1 << 20]);
      if (i % 10 === 9) await new Promise((resolve) => setImmediate(resolve));
      most = Math.max(most, vsa.memory().numBytes);
    }
    report(most);`);
  expect(result).toBeGreaterThanOrEqual(2 ** 22);
  expect(result).toBeLessThan(2 ** 30); // dropped in all: 2 GiB
});

test('a long loop inside one tidy does not collect what it has disposed itself', async () => {
  const result = await runProgram(
    `const used = () => { global.gc(); return process.memoryUsage().heapUsed; };
    report(vsa.tidy(() => {
      const x = vsa.Tensor.zeros([1]);
      const before = used();
      for (let i = 0; i < 100_000; i++) x.reshape([1]).dispose();
      return used() - before;
    }));`,
    { flags },
  );
  // The tensor objects alone would be more than 10 MB.
  expect(result).toBeLessThan(6e6);
});
