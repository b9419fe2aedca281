#!/usr/bin/env node
// The experiment: the same video transformer trained with full attention and with VSA, on the same clips, noise, times
// and steps, and then the dense weights made sparse. About 120M parameters, 16x32x32 tokens, K = 32 of 256 tiles.
//
//   node bench/experiment.mjs --runs FOLDER [--results FOLDER] [--minutes 9] [--device cuda:0]
//                             [--steps 4000] [--adapt-steps 2000] [--preset dit-120m]
//
// Goes on where it stopped: it ends after --minutes with everything saved, exit code 3, and the next call resumes. Runs
// (checkpoints of 2 GB each among them) stay in --runs. When all are done, --results gets what is worth keeping: each
// run's settings and its log in means of ten steps, the page about all runs, and summary.json.
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const require = createRequire(import.meta.url);
/** @param {string} path @returns {unknown} */
const built = (path) => require(`../dist/${path}`);
const vsa = /** @type {typeof import('../lib/index.js')} */ (built('index.js'));
const { native } = /** @type {typeof import('../lib/binding.js')} */ (built('binding.js'));
const { median } = /** @type {typeof import('../lib/bench/timing.js')} */ (built('bench/timing.js'));
const { readCheckpointFacts } = /** @type {typeof import('../lib/train/checkpoint.js')} */ (
  built('train/checkpoint.js')
);
const { train } = /** @type {typeof import('../lib/train/run.js')} */ (built('train/run.js'));
const { readLog } = /** @type {typeof import('../lib/train/log.js')} */ (built('train/log.js'));
const { writeReport } = /** @type {typeof import('../lib/train/report/write.js')} */ (built('train/report/write.js'));
const { parseTrainOptions } = /** @type {typeof import('../lib/train/settings.js')} */ (built('train/settings.js'));

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    runs: { type: 'string' },
    results: { type: 'string' },
    minutes: { type: 'string', default: '9' },
    steps: { type: 'string', default: '4000' },
    'adapt-steps': { type: 'string', default: '2000' },
    preset: { type: 'string', default: 'dit-120m' },
  },
});
if (options.runs === undefined) throw new RangeError('--runs: got nothing, wanted a folder for runs');
const results = options.results === undefined ? undefined : resolve(options.results);
// Runs are known by their names in it, and what is kept names no folder of this machine.
mkdirSync(options.runs, { recursive: true });
process.chdir(options.runs);
const device = vsa.device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));
const ends = performance.now() + 60_000 * Number(options.minutes);
const steps = Number(options.steps);
const adaptSteps = Number(options['adapt-steps']);

/** @typedef {import('../lib/index.js').TrainOptions} TrainOptions */
const common = /** @type {TrainOptions} */ ({ preset: options.preset, steps });
/**
 * K falls from all tiles to its target in the first three quarters of the adaptation, at a tenth of the learning rate;
 * no fine gate, which dense weights have none for.
 *
 * @type {[string, TrainOptions][]}
 */
const arms = [
  ['full', { ...common, attention: 'full' }],
  ['vsa', { ...common, attention: 'vsa' }],
  [
    'adapted',
    {
      ...common,
      ...{ attention: 'vsa', fineGate: false, adapt: join('full', 'checkpoint.safetensors') },
      ...{ steps: adaptSteps, learningRate: 6e-5 },
      ...{ adaptInterval: Math.max(1, Math.floor((0.75 * adaptSteps) / 30)), adaptRate: 0.03 },
    },
  ],
];

/** @param {string} path */
const exists = (path) => statSync(path, { throwIfNoEntry: false }) !== undefined;
/** @param {number} value @param {number} digits */
const rounded = (value, digits) => Number(value.toPrecision(digits));
/** @param {readonly number[]} values */
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Trains an arm until it is done or the time is up. @param {string} name @param {TrainOptions} given */
async function advance(name, given) {
  const checkpoint = join(name, 'checkpoint.safetensors');
  const begun = exists(checkpoint);
  const wanted = parseTrainOptions(given).steps;
  if (begun && (await readCheckpointFacts(checkpoint)).step >= wanted) return true;
  const controller = new AbortController();
  let last = performance.now();
  const progress = {
    begin: () => undefined,
    /** @param {import('../lib/train/log.js').LogRow} row */
    step(row) {
      if (performance.now() > ends) controller.abort();
      if (performance.now() - last < 20_000) return;
      last = performance.now();
      const mfu = row.mfu === null ? '' : `, MFU ${(100 * row.mfu).toFixed(1)} %`;
      console.log(`${name} ${row.step} of ${wanted}: loss ${row.loss.toFixed(4)}, ${row.ms.toFixed(1)} ms${mfu}`);
    },
    end: () => undefined,
  };
  const settings = begun ? undefined : parseTrainOptions(given);
  const result = await train({ out: name, settings, device, progress, signal: controller.signal });
  console.log(`${name}: ${result.step} of ${wanted} steps, loss ${result.loss?.toFixed(4) ?? ''}`);
  return !result.interrupted;
}

/** What an arm came to. @param {string} name @param {string} folder */
async function summarise(name, folder) {
  const rows = await readLog(join(name, 'log.jsonl'));
  const lines = [];
  for (let begin = 0; begin < rows.length; begin += 10) {
    const some = rows.slice(begin, begin + 10);
    const last = some.at(-1);
    if (last === undefined) continue;
    /** @param {'loss' | 'gradientNorm' | 'ms'} field */
    const of = (field) => rounded(mean(some.map((row) => row[field])), 6);
    const { step, topK, learningRate, flop } = last;
    lines.push(
      JSON.stringify({
        step,
        loss: of('loss'),
        gradientNorm: of('gradientNorm'),
        learningRate,
        topK,
        ms: of('ms'),
        flop,
      }),
    );
  }
  writeFileSync(join(folder, `${name}.jsonl`), `${lines.join('\n')}\n`);
  writeFileSync(join(folder, `${name}.settings.json`), readFileSync(join(name, 'settings.json')));
  // The first steps warm up.
  const timed = rows.slice(20).map((row) => row.ms);
  const tail = rows.slice(-Math.ceil(rows.length / 8)).map((row) => row.loss);
  return {
    ...{ steps: rows.length, flop: rows.at(-1)?.flop, msMedian: rounded(median(timed), 5) },
    ...{ seconds: rounded(rows.reduce((sum, row) => sum + row.ms, 0) / 1000, 5) },
    ...{ mfuMedian: rounded(median(rows.slice(20).map((row) => row.mfu ?? NaN)), 4) },
    ...{ finalLoss: rounded(mean(tail), 6), finalLossOver: tail.length },
  };
}

for (const [name, given] of arms) {
  if (performance.now() < ends && (await advance(name, given))) continue;
  console.log('not done yet: the same command goes on');
  process.exit(3);
}
if (results !== undefined) {
  mkdirSync(results, { recursive: true });
  const summary = Object.fromEntries(
    await Promise.all(arms.map(async ([name]) => /** @type {const} */ ([name, await summarise(name, results)]))),
  );
  const about = { device: device.name, commit: native().build().commit, date: new Date().toISOString() };
  writeFileSync(join(results, 'summary.json'), `${JSON.stringify({ ...about, arms: summary }, null, 2)}\n`);
  console.log(JSON.stringify(summary, null, 2));
  const names = arms.map(([name]) => name);
  await writeReport(names, { out: join(results, 'report.html'), device });
}
