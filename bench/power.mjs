#!/usr/bin/env node
// What power costs: a forward and a backward of the whole operator, some calls at a time with rests between. After long
// rests the GPU runs at its highest clock; without any, at the one that its power limit leaves.
//
//   node bench/power.mjs [--device cuda:0] [--grid 20x28x52] [--sparsity 0.9]
//
// The inputs are those of `vsa bench vsa --data smooth --order tiled`, and so is the way of timing.
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { built, native, vsa } from './built.mjs';

const { median } = /** @type {typeof import('../lib/bench/statistics.js')} */ (built('bench/statistics.js'));
const { Stopwatch } = /** @type {typeof import('../lib/bench/stopwatch.js')} */ (built('bench/stopwatch.js'));
const { vsaWorkload } = /** @type {typeof import('../lib/bench/ops/vsa.js')} */ (built('bench/ops/vsa.js'));

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    grid: { type: 'string', default: '20x28x52' },
    sparsity: { type: 'string', default: '0.9' },
  },
});
/** Of rest, and calls between two rests; the last has none. */
const RHYTHMS = /** @type {const} */ ([
  [100, 1],
  [20, 4],
  [5, 16],
  [0, 16],
]);
const MS_EACH = 2000;

const device = vsa.device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));
const grid = vsa.TileGrid.parse(options.grid);
const sparsity = Number(options.sparsity);
const K = vsa.topK(grid, { sparsity });
const workload = await vsaWorkload({
  one: {
    ...{ op: 'vsa', backend: 'auto', B: 1, H: 12, Hkv: 12, grid, D: 128, dtype: 'bfloat16', K, sparsity },
    ...{ lists: 'selected', listsFile: undefined, data: 'smooth', order: 'tiled', coarse: 'gate', fineGate: false },
    seed: 1,
  },
  device,
  lists: undefined,
});
const before = workload.forward();
const calls = { forward: () => workload.forward(), backward: () => workload.backward?.(before) };

console.log(`${device.name}, ${options.grid}, K = ${K}, commit ${native().build().commit}`);
console.log('| direction | rest, ms | calls at a time | ms, median | MHz | W |');
console.log('| --- | --: | --: | --: | --: | --: |');
for (const [direction, call] of Object.entries(calls)) {
  const stopwatch = new Stopwatch(device, call, 'warm');
  await stopwatch.prepare(undefined);
  for (const [rest, count] of RHYTHMS) {
    /** @type {number[]} */
    const samples = [];
    /** @type {number[]} */
    const clocks = [];
    /** @type {number[]} */
    const watts = [];
    const start = performance.now();
    while (performance.now() - start < MS_EACH) {
      const chunk = stopwatch.enqueue(count);
      const sensors = native().sensors(device.number);
      await device.synchronize();
      if (performance.now() - start > MS_EACH / 2) {
        samples.push(...stopwatch.take(chunk));
        clocks.push(sensors.smMhz ?? NaN);
        watts.push(sensors.watts ?? NaN);
      }
      if (rest > 0) await sleep(rest);
    }
    const cells = [direction, rest, count, median(samples).toFixed(4), median(clocks), median(watts).toFixed(0)];
    console.log(`| ${cells.join(' | ')} |`);
  }
  stopwatch.dispose();
}
for (const one of Object.values(before)) one.dispose();
workload.dispose();
