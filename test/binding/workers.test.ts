/** Several JavaScript threads on one addon: the same bits, no interference, and an end at any moment. */

import { runProgram } from './node.js';

/** A forward and a backward, awaited; gives a digest of every bit of their results. */
const ATTENTION = `async (seed, vsa) => {
  const grid = new vsa.TileGrid({ tokens: [5, 8, 9] });
  const [q, k, v, dOutput] = [0, 1, 2, 3].map((i) => vsa.Tensor.randn([1, grid.length, 2, 64], { seed: seed + i }));
  const { output, saved } = vsa.videoSparseAttention.forward({ q, k, v, grid, topK: 3, coarse: 'add' });
  const grads = vsa.videoSparseAttention.backward(saved, { output: dOutput });
  const results = [output, grads.q, grads.k, grads.v];
  const values = await Promise.all(results.map((one) => one.data()));
  for (const one of [q, k, v, dOutput, saved, ...results]) one.dispose();
  const hash = require('node:crypto').createHash('sha256');
  for (const value of values) hash.update(new Uint8Array(value.buffer));
  return hash.digest('hex');
}`;

/** A worker that digests a few seeds, tells them and its memory, and ends. */
const DIGESTS = `async () => {
  const attention = ${ATTENTION};
  const digests = [];
  for (let seed = 0; seed < 8; seed++) digests.push(await attention(seed, vsa));
  parentPort.postMessage({ digests, memory: vsa.memory() });
}`;

test('two workers and the main thread at once get the same bits, and count their own memory', async () => {
  const result = await runProgram(`
    const attention = ${ATTENTION};
    const mine = vsa.Tensor.zeros([5]);
    const threads = [1, 2].map(() => worker(${JSON.stringify(DIGESTS)}));
    const ends = threads.map(exit);
    const told = threads.map(message);
    const digests = [];
    for (let seed = 0; seed < 8; seed++) digests.push(await attention(seed, vsa));
    report({ digests, told: await Promise.all(told), ends: await Promise.all(ends), memory: vsa.memory() });`);
  const { digests, told, ends, memory } = result as Record<string, unknown>;
  expect(new Set(digests as string[]).size).toBe(8);
  const theirs = { digests, memory: { numTensors: 0, numBytes: 0 } };
  expect({ told, ends, memory }).toEqual({
    told: [theirs, theirs],
    ends: [0, 0],
    memory: { numTensors: 1, numBytes: 20 },
  });
});

test('workers one after another, and the main thread only after them', async () => {
  const result = await runProgram(`
    const attention = ${ATTENTION};
    const digests = [];
    for (let i = 0; i < 3; i++) {
      const thread = worker(${JSON.stringify(DIGESTS)});
      const [told, code] = await Promise.all([message(thread), exit(thread)]);
      digests.push(told.digests[5], code);
    }
    report([await attention(5, vsa), ...digests]);`);
  const [wanted, ...others] = result as (string | number)[];
  expect(others).toEqual([wanted, 0, wanted, 0, wanted, 0]);
});

// The threads that compute outlive the worker that loaded the addon: its code must stay where it is.
test('an addon that only a worker loaded, which ends in the middle of its work', async () => {
  const result = await runProgram(`
    const codes = [];
    for (let i = 0; i < 3; i++) {
      const thread = worker(\`() => {
        const q = vsa.Tensor.randn([1, 1024, 4, 64]);
        for (let i = 0; i < 10; i++) vsa.denseAttention.forward({ q, k: q, v: q });
        parentPort.postMessage(0);
        process.exit(7);
      }\`);
      codes.push(await exit(thread));
    }
    report(codes);`);
  expect(result).toEqual([7, 7, 7]);
});

describe('terminate', () => {
  const busy = {
    'in a loop that launches operations': `() => {
      const q = vsa.Tensor.randn([1, 512, 2, 64]);
      const grid = new vsa.TileGrid({ tokens: [8, 8, 8] });
      parentPort.postMessage(0);
      for (;;) vsa.tidy(() => { vsa.videoSparseAttention.forward({ q, k: q, v: q, grid, topK: 2 }); });
    }`,
    'in a loop that makes and disposes tensors': `() => {
      parentPort.postMessage(0);
      for (;;) vsa.Tensor.zeros([3, 4]).reshape([12]).cast('bfloat16').toString();
    }`,
    'in a blocking read': `() => {
      const x = vsa.Tensor.randn([1 << 20]);
      parentPort.postMessage(0);
      for (;;) x.dataSync();
    }`,
    'while data() of a large tensor is under way': `async () => {
      const x = vsa.Tensor.randn([1 << 23]);
      parentPort.postMessage(0);
      for (;;) await Promise.all([x.data(), x.data(), vsa.Tensor.zeros([1]).data()]);
    }`,
    'with promises that are never awaited': `() => {
      const x = vsa.Tensor.randn([1 << 16]);
      parentPort.postMessage(0);
      const again = () => { x.data(); x.clone().data(); setImmediate(again); };
      again();
    }`,
  };

  test.each(Object.entries(busy))('%s: the worker ends, the process and the others go on', async (_, work) => {
    const result = await runProgram(`
      const codes = [];
      for (let i = 0; i < 8; i++) {
        const thread = worker(${JSON.stringify(work)});
        await message(thread);
        await new Promise((resolve) => setTimeout(resolve, 3 * i));
        codes.push(await thread.terminate());
      }
      report({ codes, value: (await vsa.Tensor.full([2], 3).data())[1], memory: vsa.memory().numTensors });`);
    expect(result).toEqual({ codes: new Array(8).fill(1), value: 3, memory: 1 });
  });
});

test('an uncaught error of a worker reaches its owner, not the process', async () => {
  const result = await runProgram(`
    const thread = worker('async () => { await vsa.Tensor.zeros([2]).reshape([3]).data(); }');
    const error = await new Promise((resolve) => thread.once('error', resolve));
    report([error.code, error.message]);`);
  expect(result).toEqual(['ERR_SHAPE', 'shape: got [3], wanted 2 elements']);
});
