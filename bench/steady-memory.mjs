#!/usr/bin/env node
// Memory over many training steps of the whole operator: it must not grow.
//
//   node bench/steady-memory.mjs [--device cuda:0] [--steps 10000] [--grid 8x16x16] [--out FILE]
//
// A step is a forward and a backward with a coarse gate, without waiting for the GPU in between. Prints what the process
// holds on the device, living tensors, and the host's resident memory, ten times; exit code 1 if any of the first two
// grew after the first tenth. --out appends JSON lines.
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { native, vsa } from './built.mjs';

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    steps: { type: 'string', default: '10000' },
    grid: { type: 'string', default: '8x16x16' },
    out: { type: 'string' },
  },
});
const on = vsa.device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));
const grid = vsa.TileGrid.parse(options.grid);
const steps = Number(options.steps);
if (!Number.isInteger(steps) || steps < 10) throw new RangeError(`--steps: got ${options.steps}, wanted at least 10`);

const [q, k, v, gate, gradient] = [1, 2, 3, 4, 5].map((seed) =>
  vsa.Tensor.randn([1, grid.length, 12, 128], { device: on, dtype: 'bfloat16', seed }),
);
if (!q || !k || !v || !gate || !gradient) throw new Error('five tensors were made');
const topK = vsa.topK(grid, { sparsity: 0.75 });

console.log(`${on.name}, ${options.grid}, K = ${topK}, commit ${native().build().commit}\n`);
console.log('| steps | held on the device | living tensors | resident on the host |\n|---|---|---|---|');
const start = performance.now();
let [first, grew] = [{ held: 0, tensors: 0 }, false];
for (let step = 1; step <= steps; step++) {
  vsa.tidy(() => {
    const { saved } = vsa.videoSparseAttention.forward({ q, k, v, grid, topK, coarse: { gate } });
    vsa.videoSparseAttention.backward(saved, { output: gradient });
  });
  if (step % Math.floor(steps / 10) !== 0) continue;
  await on.synchronize();
  const now = { held: on.memory().heldBytes, tensors: vsa.memory().numTensors };
  if (first.held === 0) first = now;
  grew ||= now.held > first.held || now.tensors > first.tensors;
  const [held, resident] = [now.held, process.memoryUsage().rss].map((bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`);
  console.log(`| ${step} | ${held} | ${now.tensors} | ${resident} |`);
  if (options.out !== undefined) {
    const about = { op: 'steady-memory', device: on.name, grid: options.grid, step, commit: native().build().commit };
    const bytes = { heldBytes: now.held, numTensors: now.tensors, residentBytes: process.memoryUsage().rss };
    appendFileSync(options.out, `${JSON.stringify({ ...about, ...bytes, date: new Date().toISOString() })}\n`);
  }
}
console.log(`\n${((performance.now() - start) / steps).toFixed(3)} ms a step; memory ${grew ? 'GREW' : 'is flat'}`);
if (grew) process.exitCode = 1;
