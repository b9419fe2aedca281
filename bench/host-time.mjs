#!/usr/bin/env node
// What a forward of the whole operator costs the thread that calls it: JavaScript and launches.
//
//   node bench/host-time.mjs [--device cuda:0] [--calls 20000] [--grid 8x16x16] [--between 128]
//
// A small grid, so that the GPU is done before the next call and none waits for room in its queue; eight calls at a time
// before their results are disposed, and `--between` of them between two waits for the GPU. `vsa bench` has the same
// number for every row, of at most sixteen calls after each wait.
//
// A virtual machine's core may be shared with a neighbour: then all that it does takes half as long again. So every
// thousand calls a loop of arithmetic is timed, which should always take the same; calls around the fastest of them are
// told apart.
import { parseArgs } from 'node:util';
import { built, native, vsa } from './built.mjs';

const { quantile } = /** @type {typeof import('../lib/bench/statistics.js')} */ (built('bench/statistics.js'));

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    calls: { type: 'string', default: '20000' },
    grid: { type: 'string', default: '8x16x16' },
    between: { type: 'string', default: '128' },
  },
});
const AT_ONCE = 8;
const BATCH = 1000;
const device = vsa.device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));
const grid = vsa.TileGrid.parse(options.grid);
const [calls, between] = [Number(options.calls), Number(options.between)];
if (!Number.isInteger(calls) || calls < 4 * BATCH) {
  throw new RangeError(`--calls: got ${options.calls}, wanted at least ${4 * BATCH}`);
}
if (!Number.isInteger(between) || between < AT_ONCE || between % AT_ONCE !== 0) {
  throw new RangeError(`--between: got ${options.between}, wanted a multiple of ${AT_ONCE}`);
}

const [q, k, v, gate] = [1, 2, 3, 4].map((seed) =>
  vsa.Tensor.randn([1, grid.slots, 12, 128], { device, dtype: 'bfloat16', seed }),
);
if (!q || !k || !v || !gate) throw new Error('four tensors were made');
const topK = Math.min(8, grid.tileCount);

/** Milliseconds of the same arithmetic. */
const arithmetic = () => {
  const start = performance.now();
  let sum = 0;
  for (let i = 0; i < 300_000; i++) sum += (i * i) % 7;
  return { ms: performance.now() - start, sum };
};

/** @type {{ microseconds: number[], coreMs: number }[]} */
const batches = [];
/** @type {number[]} */
let microseconds = [];
const call = () => {
  const start = performance.now();
  vsa.videoSparseAttention.forward({ q, k, v, grid, order: 'tiled', topK, coarse: { gate } });
  microseconds.push(1000 * (performance.now() - start));
};
for (let round = 1; batches.length * BATCH < calls; round++) {
  vsa.tidy(() => {
    for (let i = 0; i < AT_ONCE; i++) call();
  });
  if ((round * AT_ONCE) % between === 0) await device.synchronize();
  if (microseconds.length < BATCH) continue;
  batches.push({ microseconds, coreMs: arithmetic().ms });
  microseconds = [];
}
await device.synchronize();

// Without those that were compiled on the way.
const warm = batches.slice(batches.length / 4);
const fastest = Math.min(...warm.map(({ coreMs }) => coreMs));
/** @param {typeof warm} some */
const told = (some) => {
  const all = some.flatMap((batch) => batch.microseconds);
  const [p10, median, p90] = [0.1, 0.5, 0.9].map((share) => quantile(all, share).toFixed(1));
  return `${median} us a forward (p10 ${p10}, p90 ${p90})`;
};
const full = warm.filter(({ coreMs }) => coreMs < 1.1 * fastest);
console.log(
  `${device.name}, ${options.grid}, ${between} calls a wait, commit ${native().build().commit}: ${told(warm)}; ` +
    `${told(full)} in the ${full.length} of ${warm.length} batches with the core ` +
    `at its fastest, ${fastest.toFixed(2)} ms for the arithmetic`,
);
