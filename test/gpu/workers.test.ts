/** Several JavaScript threads on one GPU: right results in each, and an end at any moment. */

import { describeGpu, runOnGpu } from './support.js';

/** A training step, a digest of every bit of its results; with a graph or eagerly. */
const STEP = `async (seed, vsa, gpu, recorded) => {
  const grid = new vsa.TileGrid({ tokens: [9, 8, 9], prefix: 5 });
  const random = (i) => vsa.Tensor.randn([1, grid.length, 4, 64], { seed: 10 * seed + i, dtype: 'bfloat16', device: gpu });
  const inputs = [0, 1, 2, 3].map(random);
  const call = () => vsa.tidy(() => {
    const [q, k, v, dOutput] = inputs;
    const { output, saved } = vsa.videoSparseAttention.forward({ q, k, v, grid, topK: 4, coarse: 'add' });
    const grads = vsa.videoSparseAttention.backward(saved, { output: dOutput });
    return [output, grads.q, grads.k, grads.v];
  });
  const graph = recorded ? gpu.graph(call) : undefined;
  graph?.replay();
  const results = graph?.output ?? call();
  const values = await Promise.all(results.map((one) => one.data()));
  for (const one of [...inputs, ...results]) one.dispose();
  graph?.dispose();
  const hash = require('node:crypto').createHash('sha256');
  for (const value of values) hash.update(new Uint8Array(value.buffer));
  return hash.digest('hex');
}`;

describeGpu('threads', () => {
  test('two workers and the main thread, eager and recording: the same bits in each', async () => {
    const work = `async () => {
      const [step, gpu] = [${STEP}, vsa.device('cuda')];
      const digests = [];
      for (let seed = 0; seed < 20; seed++) digests.push(await step(seed, vsa, gpu, seed % 3 === 1));
      parentPort.postMessage({ digests, memory: vsa.memory() });
    }`;
    const result = await runOnGpu(`
      const step = ${STEP};
      const threads = [1, 2].map(() => worker(${JSON.stringify(work)}));
      const [ends, told] = [threads.map(exit), threads.map(message)];
      const digests = [];
      for (let seed = 0; seed < 20; seed++) digests.push(await step(seed, vsa, gpu, seed % 2 === 0));
      report({ digests, told: await Promise.all(told), ends: await Promise.all(ends), memory: vsa.memory() });`);
    const { digests, told, ends, memory } = result as Record<string, unknown>;
    expect(new Set(digests as string[]).size).toBe(20);
    const theirs = { digests, memory: { numTensors: 0, numBytes: 0 } };
    expect({ told, ends, memory }).toEqual({ told: [theirs, theirs], ends: [0, 0], memory: theirs.memory });
  });

  test.each<[string, string]>([
    [
      'reads pending behind a long queue',
      `parentPort.postMessage(0);
       for (;;) {
         const attend = () => vsa.denseAttention.forward({ q, k: q, v: q }).output;
         await Promise.all(vsa.tidy(() => Array.from({ length: 20 }, () => attend().data())));
       }`,
    ],
    [
      'a blocking read',
      `parentPort.postMessage(0);
       for (;;) vsa.denseAttention.forward({ q, k: q, v: q }).output.dataSync();`,
    ],
    [
      'large values on their way',
      `const x = vsa.Tensor.randn([1 << 24]);
       parentPort.postMessage(0);
       for (;;) await Promise.all([x.data(), x.to('cpu').data()]);`,
    ],
    [
      'uploads',
      `const [x, values] = [vsa.Tensor.zeros([1 << 22]), new Float32Array(1 << 22)];
       parentPort.postMessage(0);
       for (;;) x.copyFrom(values);`,
    ],
    [
      'a recording',
      `parentPort.postMessage(0);
       for (;;) vsa.device('cuda').graph(() => vsa.tidy(() => void vsa.denseAttention.forward({ q, k: q, v: q })));`,
    ],
    [
      'replays',
      `const graph = vsa.device('cuda').graph(() => q.clone());
       parentPort.postMessage(0);
       for (;;) { graph.replay(); await graph.output.data(); }`,
    ],
  ])('terminated with %s: the process and its results go on', async (_, work) => {
    const source = `async () => {
      const q = vsa.Tensor.randn([1, 4096, 4, 64]);
      ${work}
    }`;
    const result = await runOnGpu(`
      const codes = [];
      for (let i = 0; i < 6; i++) {
        const thread = worker(${JSON.stringify(source)});
        await message(thread);
        await new Promise((resolve) => setTimeout(resolve, 4 * i));
        codes.push(await thread.terminate());
      }
      const graph = gpu.graph(() => vsa.Tensor.full([2], 4));
      graph.replay();
      const values = [(await vsa.Tensor.full([2], 3).data())[1], (await graph.output.data())[0]];
      report({ codes, values, memory: vsa.memory().numTensors });`);
    expect(result).toEqual({ codes: new Array(6).fill(1), values: [3, 4], memory: 2 });
  });

  test('process.exit() with work pending', async () => {
    const result = await runOnGpu(`
      const { spawnSync } = require('node:child_process');
      const source = \`const vsa = require('\${require.resolve('./dist/index.js')}');
        const q = vsa.Tensor.randn([1, 16384, 8, 128]);
        for (let i = 0; i < 10; i++) vsa.denseAttention.forward({ q, k: q, v: q }).output.data();
        setTimeout(() => process.exit(5), 20);\`;
      const ends = [0, 1, 2].map(() => spawnSync(process.execPath, ['-e', source], { encoding: 'utf8' }));
      report(ends.map(({ status, signal, stderr }) => ({ status, signal, stderr })));`);
    expect(result).toEqual(new Array(3).fill({ status: 5, signal: null, stderr: '' }));
  });
});
