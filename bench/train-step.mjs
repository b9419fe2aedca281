#!/usr/bin/env node
// One training step of `vsa train`: how long it takes, how long the host needs to queue it, and where the GPU's time
// goes.
//
//   node bench/train-step.mjs [--device cuda:0] [--preset dit-120m] [--attention full] [--steps 12] [--record] [--out FILE]
//
// The step's time is that of steps queued without waiting; the host's is that of the calls alone. Then steps are taken as
// `vsa train` takes them, each looked at while the next one runs: their time, and the share of it in which the GPU had
// work. Operations are timed in a step of its own, each from the end of the one before it, so where calls take longer
// than the GPU they are the calls' times. --record replays a recorded step, as `vsa train` does on GPUs; then there are
// no operations to tell apart. --out appends a JSON line.
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { built, native, vsa } from './built.mjs';

const { machineOf } = /** @type {typeof import('../lib/device/machine.js')} */ (built('device/machine.js'));
const { median } = /** @type {typeof import('../lib/bench/statistics.js')} */ (built('bench/statistics.js'));
const { parseTrainOptions } = /** @type {typeof import('../lib/train/settings.js')} */ (built('train/settings.js'));
const { Trainer } = /** @type {typeof import('../lib/train/trainer.js')} */ (built('train/trainer.js'));
const { Steps } = /** @type {typeof import('../lib/train/steps.js')} */ (built('train/steps.js'));

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    preset: { type: 'string', default: 'dit-120m' },
    attention: { type: 'string', default: 'full' },
    checkpointing: { type: 'boolean', default: false },
    batch: { type: 'string', default: '1' },
    steps: { type: 'string', default: '12' },
    record: { type: 'boolean', default: false },
    out: { type: 'string' },
  },
});
/** @typedef {{ from: import('../lib/binding.js').NativeMark, to: import('../lib/binding.js').NativeMark }} Mark */
const device = vsa.device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));
const { preset, attention, checkpointing } = options;
const given = { preset, attention, checkpointing, batch: Number(options.batch) };
const settings = parseTrainOptions(/** @type {import('../lib/index.js').TrainOptions} */ (given));
const trainer = new Trainer(settings, device, options.record);
const { grid, config } = trainer.model;
const clips = Float32Array.from({ length: settings.batch * grid.length * config.channels }, (_, i) => Math.sin(i));

let taken = 0;
/** @returns {number} Milliseconds of the calls. */
function step() {
  const start = performance.now();
  const { loss, norm } = trainer.step(clips, taken++);
  loss.dispose();
  norm.dispose();
  return performance.now() - start;
}

for (let i = 0; i < 3; i++) step();
await device.synchronize();
const steps = Number(options.steps);
const start = performance.now();
const host = [];
for (let i = 0; i < steps; i++) host.push(step());
await device.synchronize();
const ms = (performance.now() - start) / steps;

// A step's work begins when the GPU comes to the first mark and ends at the second; between two steps it may wait.
const loop = new Steps(trainer, 0, () => 'this is a benchmark');
const marks = [];
for (let i = 0; i < steps; i++) {
  const from = native().mark(device.number);
  const pending = loop.take(clips, taken++);
  marks.push({ from, to: native().mark(device.number) });
  await pending;
}
await loop.settle();
await device.synchronize();
const worked = marks.reduce((sum, { from, to }) => sum + native().elapsed(from, to), 0);
const whole = native().elapsed(/** @type {Mark} */ (marks[0]).from, /** @type {Mark} */ (marks.at(-1)).to);
const inLoop = { ms: whole / steps, busy: worked / whole };

native().beginTrace(device.number);
step();
/** @type {Map<string, { ms: number, calls: number }>} */
const operations = new Map();
for (const { name, ms: taking } of native().endTrace(device.number)) {
  const entry = operations.get(name) ?? { ms: 0, calls: 0 };
  operations.set(name, { ms: entry.ms + taking, calls: entry.calls + 1 });
}
const busy = [...operations.values()].reduce((sum, entry) => sum + entry.ms, 0);

const flop = trainer.model.trainingFlops({ batch: settings.batch }).total;
const peak = machineOf(device)?.bf16;
const tflops = flop / ms / 1e9;
console.log(
  `${device.name}, ${preset}, ${attention}${options.record ? ', recorded' : ''}, ${grid.length} tokens, commit ${native().build().commit}`,
);
console.log(`step ${ms.toFixed(2)} ms, host ${median(host).toFixed(2)} ms, ${tflops.toFixed(1)} TFLOP/s`);
console.log(`as vsa train: ${inLoop.ms.toFixed(2)} ms, GPU busy ${(100 * inLoop.busy).toFixed(1)} %`);
if (peak !== undefined) console.log(`MFU ${((100 * tflops) / peak).toFixed(1)} %`);
console.log(`memory ${(device.memory().heldBytes / 2 ** 30).toFixed(2)} GiB; traced, one operation after another:\n`);
console.log('| operation | calls | ms | share |\n|---|---|---|---|');
for (const [name, entry] of [...operations].sort((a, b) => b[1].ms - a[1].ms)) {
  if (entry.ms < busy / 200) continue;
  console.log(`| ${name} | ${entry.calls} | ${entry.ms.toFixed(3)} | ${((100 * entry.ms) / busy).toFixed(1)} % |`);
}
console.log(`| all | | ${busy.toFixed(2)} | |`);
if (options.out !== undefined) {
  const about = {
    op: 'train-step',
    record: options.record,
    device: device.name,
    preset,
    attention,
    tokens: grid.length,
    batch: settings.batch,
  };
  const found = {
    ms,
    hostMs: median(host),
    loopMs: inLoop.ms,
    busy: inLoop.busy,
    tflops,
    traced: Object.fromEntries(operations),
  };
  const when = { commit: native().build().commit, date: new Date().toISOString() };
  appendFileSync(options.out, `${JSON.stringify({ ...about, ...found, ...when })}\n`);
}
