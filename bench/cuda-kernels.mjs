#!/usr/bin/env node
// The portable CUDA kernels on this machine's GPU: time of each on the GPU, useful FLOPs or bytes a second.
//
//   node bench/cuda-kernels.mjs [--device cuda:0] [--only NAME,...] [--out FILE]
//
// A sample is one replay of a graph that holds the operation as often as it takes to fill some milliseconds, divided by
// that number, so that neither calls nor waiting count. Median of 30 samples after a warm-up; inputs are normal random
// numbers, in the L2 cache where they fit. FLOPs are those of the selected pairs of valid tokens (4 D each forward,
// 2.5 times that backward), bytes those read and written once. --out appends JSON lines.
//
// Selections: `local` ranks key tile j for query tile i of n by -8 |i - j| / n + 3 U(i, j) + 3 U(j), with uniform U, so
// that neighbouring rows share about half; `random` by U(i, j) alone; `dense` has every tile.
import { appendFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';

const require = createRequire(import.meta.url);
/** @type {unknown} */
const built = require('../dist/index.js');
/** @type {unknown} */
const binding = require('../dist/binding.js');
const vsa = /** @type {typeof import('../lib/index.js')} */ (built);
const { native } = /** @type {typeof import('../lib/binding.js')} */ (binding);
const { Tensor, TileGrid, TileLists } = vsa;

const { values: options } = parseArgs({
  options: { device: { type: 'string', default: 'cuda:0' }, only: { type: 'string' }, out: { type: 'string' } },
});
const gpu = vsa.device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));
const only = options.only?.split(',');

const SAMPLES = 30;
const SAMPLE_MS = 4;

/** @param {number} seed of a small generator of uniform numbers (mulberry32) */
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * @param {'local' | 'random' | 'dense'} kind
 * @param {number} heads
 * @param {number} n tiles
 * @param {number} K
 */
function makeLists(kind, heads, n, K) {
  const shape = { batch: 1, heads, queryTiles: n, keyTiles: n };
  if (kind === 'dense') return TileLists.full(shape, { device: gpu });
  const next = uniform(1);
  /** @type {number[][]} */
  const lists = [];
  for (let h = 0; h < heads; h++) {
    const column = Array.from({ length: n }, () => (kind === 'local' ? 3 * next() : 0));
    for (let i = 0; i < n; i++) {
      const scores = column.map((own, j) => (kind === 'local' ? (-8 * Math.abs(i - j)) / n : 0) + 3 * next() + own);
      const ranked = scores.map((score, j) => ({ score, j })).sort((a, b) => b.score - a.score);
      lists.push(ranked.slice(0, K).map(({ j }) => j).sort((a, b) => a - b)); // prettier-ignore
    }
  }
  return TileLists.from(lists, shape, { device: gpu });
}

/**
 * Median, 10th and 90th percentile of the time of one call, in ms.
 * @param {() => unknown} call
 */
async function time(call) {
  const once = gpu.graph(() => {
    vsa.tidy(() => void call());
  });
  const replay = async (/** @type {typeof once} */ graph) => {
    const start = performance.now();
    graph.replay();
    await gpu.synchronize();
    return performance.now() - start;
  };
  for (let warm = 0; warm < 5; warm++) await replay(once);
  const repeats = Math.max(1, Math.ceil(SAMPLE_MS / (await replay(once))));
  once.dispose();
  const graph = gpu.graph(() => {
    for (let i = 0; i < repeats; i++) vsa.tidy(() => void call());
  });
  const samples = [];
  for (let i = 0; i < SAMPLES + 5; i++) samples.push((await replay(graph)) / repeats);
  graph.dispose();
  const sorted = samples.slice(5).sort((a, b) => a - b);
  const at = (/** @type {number} */ share) => sorted[Math.floor(share * (sorted.length - 1))] ?? NaN;
  return { ms: at(0.5), ms_p10: at(0.1), ms_p90: at(0.9) };
}

/** @type {Record<string, unknown>[]} */
const rows = [];
/**
 * @param {Record<string, string | number>} about
 * @param {{ gflop?: number, gbytes?: number }} work
 * @param {() => unknown} call
 */
async function row(about, work, call) {
  if (only && !only.includes(String(about['op']))) return;
  const times = await time(call);
  const result = {
    ...about,
    ...times,
    ...(work.gflop !== undefined && { gflop: work.gflop, tflops: work.gflop / times.ms }),
    ...(work.gbytes !== undefined && { gbs: (work.gbytes / times.ms) * 1000 }),
    device: gpu.name,
    commit: native().build().commit, // baked in: the machine that measures may have no git
    date: new Date().toISOString(),
  };
  rows.push(result);
  const rate = 'tflops' in result ? `${result.tflops?.toFixed(0)} TFLOP/s` : `${result.gbs?.toFixed(0)} GB/s`;
  const name = [...Object.values(about)].join(' ');
  console.log(
    `| ${name} | ${times.ms.toFixed(4)} | ${times.ms_p10.toFixed(4)} | ${times.ms_p90.toFixed(4)} | ${rate} |`,
  );
  if (options.out !== undefined) appendFileSync(options.out, `${JSON.stringify(result)}\n`);
}

/** @typedef {{ grid: string, H: number, D: number, K: number, lists: 'local' | 'random' | 'dense', order: 'grid' | 'tiled', dtype?: 'bfloat16' | 'float16' | 'float32' }} FineCase */

/** @param {FineCase} one */
async function fine({ grid: text, H, D, K, lists: kind, order, dtype = 'bfloat16' }) {
  const grid = TileGrid.parse(text);
  const n = grid.totalTileCount;
  const lists = makeLists(kind, H, n, K);
  const options = { device: gpu, dtype };
  const shape = [1, grid.rows(order), H, D];
  const [q, k, v, gradient] = [1, 2, 3, 4].map((seed) => Tensor.randn(shape, { ...options, seed }));
  if (!q || !k || !v || !gradient) throw new Error('four tensors were made');
  const gflop = (4 * D * H * grid.length * (kind === 'dense' ? n : K) * 64) / 1e9; // full tiles
  const about = { lists: kind, grid: text, H, D, K: kind === 'dense' ? n : K, order, dtype };
  const inputs = { q, k, v, grid, lists, order };
  await row({ op: 'fine', direction: 'forward', ...about }, { gflop }, () => vsa.blockSparseAttention.forward(inputs));
  const { output, saved } = vsa.blockSparseAttention.forward(inputs);
  await row({ op: 'fine', direction: 'backward', ...about }, { gflop: 2.5 * gflop }, () =>
    vsa.blockSparseAttention.backward(saved, { output: gradient }),
  );
  for (const one of [q, k, v, gradient, lists, output, saved]) one.dispose();
}

/**
 * @param {number} H
 * @param {number} D
 * @param {string} text
 * @param {number} K
 */
async function coarse(H, D, text, K) {
  const grid = TileGrid.parse(text);
  const n = grid.totalTileCount;
  const bytes = (grid.length * 2 + n * 4) * H * D;
  for (const order of /** @type {const} */ (['grid', 'tiled'])) {
    const x = Tensor.randn([1, grid.length, H, D], { device: gpu, dtype: 'bfloat16', seed: 1 });
    await row({ op: 'pool', direction: 'forward', grid: text, H, D, order }, { gbytes: bytes / 1e9 }, () =>
      vsa.tilePooling.forward({ x, grid, order }),
    );
    x.dispose();
  }
  const [q, k, v, gradient] = [1, 2, 3, 4].map((seed) => Tensor.randn([1, n, H, D], { device: gpu, seed }));
  if (!q || !k || !v || !gradient) throw new Error('four tensors were made');
  const about = { tiles: n, H, D };
  await row({ op: 'select', ...about, K }, { gflop: (2 * H * n * n * D) / 1e9 }, () =>
    vsa.tileSelection.forward({ q, k, grid, topK: K }),
  );
  const { lists } = vsa.tileSelection.forward({ q, k, grid, topK: K });
  await row({ op: 'lists', direction: 'transpose', ...about, K }, { gbytes: (8 * H * n * K) / 1e9 }, () =>
    lists.transpose(),
  );
  const gflop = (4 * H * n * n * D) / 1e9;
  await row({ op: 'coarse', direction: 'forward', ...about }, { gflop }, () =>
    vsa.coarseAttention.forward({ q, k, v }),
  );
  const { output, saved } = vsa.coarseAttention.forward({ q, k, v });
  await row({ op: 'coarse', direction: 'backward', ...about }, { gflop: 2.5 * gflop }, () =>
    vsa.coarseAttention.backward(saved, { output: gradient }),
  );
  for (const one of [q, k, v, gradient, lists, output, saved]) one.dispose();
}

console.log(`${gpu.name}, commit ${native().build().commit}\n`);
console.log('| case | ms | p10 | p90 | rate |\n|---|---|---|---|---|');
const large = { grid: '24x32x52', H: 12, D: 128, K: 62 };
for (const order of /** @type {const} */ (['tiled', 'grid'])) {
  for (const lists of /** @type {const} */ (['local', 'random'])) await fine({ ...large, lists, order });
}
await fine({ ...large, lists: 'local', order: 'tiled', dtype: 'float16' });
await fine({ ...large, D: 96, lists: 'local', order: 'tiled' });
await fine({ grid: '32x32x32', H: 12, D: 128, K: 512, lists: 'dense', order: 'tiled' });
await fine({ grid: '16x32x32', H: 64, D: 64, K: 32, lists: 'local', order: 'tiled' });
await fine({ grid: '16x32x32', H: 12, D: 128, K: 32, lists: 'local', order: 'tiled', dtype: 'float32' });
await coarse(12, 128, '24x32x52', 62);
