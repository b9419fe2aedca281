#!/usr/bin/env node
// What a forward of the whole operator costs the thread that calls it: JavaScript and launches.
//
//   node bench/host-time.mjs [--device cuda:0] [--calls 20000] [--grid 8x16x16] [--between 128]
//
// A small grid, so that the GPU is done before the next call and none waits for room in its queue; eight calls at a time
// before their results are disposed, and `--between` of them between two waits for the GPU. `vsa bench` has the same
// number for every row, of at most sixteen calls after each wait.
import { parseArgs } from 'node:util';
import { native, vsa } from './built.mjs';

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    calls: { type: 'string', default: '20000' },
    grid: { type: 'string', default: '8x16x16' },
    between: { type: 'string', default: '128' },
  },
});
const AT_ONCE = 8;
const device = vsa.device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));
const grid = vsa.TileGrid.parse(options.grid);
const [calls, between] = [Number(options.calls), Number(options.between)];
if (!Number.isInteger(calls) || calls < 100) throw new RangeError(`--calls: got ${options.calls}, wanted at least 100`);
if (!Number.isInteger(between) || between < AT_ONCE || between % AT_ONCE !== 0) {
  throw new RangeError(`--between: got ${options.between}, wanted a multiple of ${AT_ONCE}`);
}

const [q, k, v, gate] = [1, 2, 3, 4].map((seed) =>
  vsa.Tensor.randn([1, grid.slots, 12, 128], { device, dtype: 'bfloat16', seed }),
);
if (!q || !k || !v || !gate) throw new Error('four tensors were made');
const topK = Math.min(8, grid.tileCount);

/** @type {number[]} */
const microseconds = [];
const call = () => {
  const start = performance.now();
  vsa.videoSparseAttention.forward({ q, k, v, grid, order: 'tiled', topK, coarse: { gate } });
  microseconds.push(1000 * (performance.now() - start));
};
for (let round = 1; microseconds.length < calls; round++) {
  vsa.tidy(() => {
    for (let i = 0; i < AT_ONCE; i++) call();
  });
  if ((round * AT_ONCE) % between === 0) await device.synchronize();
}
await device.synchronize();

// Without those that were compiled on the way.
const warm = microseconds.slice(calls / 4).sort((a, b) => a - b);
const [p10, median, p90] = [0.1, 0.5, 0.9].map((share) => (warm[Math.floor(share * warm.length)] ?? NaN).toFixed(1));
console.log(
  `${device.name}, ${options.grid}, ${between} calls a wait, commit ${native().build().commit}: ${median} us a forward (p10 ${p10}, p90 ${p90})`,
);
