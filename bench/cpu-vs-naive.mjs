#!/usr/bin/env node
// Dense attention on the CPU backend against one naive scalar thread: at least ten times as fast is asked for on two
// cores at L = 4096. Needs g++ and the built package (npm run build).
//
//   node bench/cpu-vs-naive.mjs [--heads 4] [--dim 128] [--grid 16x16x16] [--dtype float32] [--threads N]
//                               [--repeat 5] [--forward-only] [--out FILE]
//
// The naive program runs one head; its CPU time, which a busy machine stretches less than the clock on the wall, is
// multiplied by the heads. FLOPs are counted as 4 L^2 D a head forward and 2.5 times that backward, for both. Times of
// the package are on the wall, the median of the repeats. --out appends JSON lines.
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { native, vsa } from './built.mjs';

const here = dirname(fileURLToPath(import.meta.url));

const { values: options } = parseArgs({
  options: {
    heads: { type: 'string', default: '4' },
    dim: { type: 'string', default: '128' },
    grid: { type: 'string', default: '16x16x16' },
    dtype: { type: 'string', default: 'float32' },
    threads: { type: 'string' },
    repeat: { type: 'string', default: '5' },
    'forward-only': { type: 'boolean', default: false },
    out: { type: 'string' },
  },
});

/**
 * @param {string} name of the option
 * @param {string} text
 */
function wholeNumber(name, text) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new RangeError(`--${name}: got ${text}, wanted a whole number >= 1`);
  return value;
}

/** @param {string} text */
function floatType(text) {
  if (text === 'float32' || text === 'bfloat16' || text === 'float16') return text;
  throw new RangeError(`--dtype: got ${text}, wanted float32, bfloat16 or float16`);
}

/** @param {number[]} numbers */
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? NaN;

/**
 * @typedef {{ forward: number, backward: number }} Seconds backward is 0 where it was not run
 */

/**
 * One head, naively.
 * @param {number} length
 * @param {number} dim
 * @returns {Seconds}
 */
function naive(length, dim) {
  const folder = mkdtempSync(join(tmpdir(), 'vsa-naive-'));
  try {
    const program = join(folder, 'naive_attention');
    const flags = ['-std=c++20', '-O2', '-fno-tree-vectorize'];
    execFileSync('g++', [...flags, join(here, 'naive_attention.cpp'), '-o', program], { stdio: 'inherit' });
    const passes = options['forward-only'] ? 'forward' : 'backward';
    /** @type {unknown} */
    const seconds = JSON.parse(execFileSync(program, [String(length), String(dim), passes], { encoding: 'utf8' }));
    return /** @type {Seconds} */ (seconds);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * All heads, by the package. One unmeasured run first.
 * @param {import('../lib/index.js').TileGrid} grid
 * @param {number} heads
 * @param {number} dim
 * @returns {Promise<Seconds>}
 */
async function measure(grid, heads, dim) {
  const cpu = vsa.device('cpu');
  const shape = [1, grid.length, heads, dim];
  const dtype = floatType(options.dtype);
  const [q, k, v, gradient] = /** @type {const} */ ([1, 2, 3, 4]).map((seed) =>
    vsa.Tensor.randn(shape, { device: cpu, dtype, seed }),
  );
  if (!q || !k || !v || !gradient) throw new Error('four tensors were made');
  /** @type {number[]} */
  const forward = [];
  /** @type {number[]} */
  const backward = [];
  for (let run = 0; run <= wholeNumber('repeat', options.repeat); ++run) {
    await cpu.synchronize();
    const start = performance.now();
    const { output, saved } = vsa.denseAttention.forward({ q, k, v, grid });
    await cpu.synchronize();
    const middle = performance.now();
    if (!options['forward-only']) {
      const gradients = vsa.denseAttention.backward(saved, { output: gradient });
      await cpu.synchronize();
      if (run > 0) backward.push((performance.now() - middle) / 1000);
      for (const tensor of [gradients.q, gradients.k, gradients.v]) tensor.dispose();
    }
    if (run > 0) forward.push((middle - start) / 1000);
    output.dispose();
    saved.dispose();
  }
  return { forward: median(forward), backward: options['forward-only'] ? 0 : median(backward) };
}

const heads = wholeNumber('heads', options.heads);
const dim = wholeNumber('dim', options.dim);
const grid = vsa.TileGrid.parse(options.grid);
if (options.threads !== undefined) vsa.setCpuThreads(wholeNumber('threads', options.threads));
const about = {
  date: new Date().toISOString(),
  commit: native().build().commit, // baked in: the machine that measures may have no git
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  threads: vsa.cpuThreads(),
  dtype: floatType(options.dtype),
  grid: options.grid,
  length: grid.length,
  heads,
  dim,
};
const slow = naive(grid.length, dim);
const fast = await measure(grid, heads, dim);

console.log(`L ${grid.length}, H ${heads}, D ${dim}, ${about.dtype}; ${about.cpu}, ${about.threads} threads\n`);
console.log('| pass | naive, 1 thread | GFLOP/s | package | GFLOP/s | ratio |');
console.log('|---|---|---|---|---|---|');
for (const pass of /** @type {const} */ (['forward', 'backward'])) {
  if (fast[pass] === 0) continue;
  const gigaflop = (4 * grid.length ** 2 * dim * heads * (pass === 'forward' ? 1 : 2.5)) / 1e9;
  const [naiveSeconds, seconds] = [slow[pass] * heads, fast[pass]];
  const result = {
    ms: seconds * 1000,
    gflops: gigaflop / seconds,
    naiveMs: naiveSeconds * 1000,
    naiveGflops: gigaflop / naiveSeconds,
    ratio: naiveSeconds / seconds,
  };
  const cells = [
    pass,
    `${result.naiveMs.toFixed(0)} ms`,
    result.naiveGflops.toFixed(2),
    `${result.ms.toFixed(1)} ms`,
    result.gflops.toFixed(1),
    result.ratio.toFixed(1),
  ];
  console.log(`| ${cells.join(' | ')} |`);
  if (options.out !== undefined) appendFileSync(options.out, `${JSON.stringify({ ...about, pass, ...result })}\n`);
}
