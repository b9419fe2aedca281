#!/usr/bin/env node
// The experiment: the same video transformer trained with full attention and with VSA, on the same clips, noise, times
// and steps, and then the dense weights made sparse. About 120M parameters, 16x32x32 tokens, K = 32 of 256 tiles.
//
//   node bench/experiment.mjs --runs FOLDER [--results FOLDER] [--minutes 9] [--device cuda:0]
//                             [--arms full,vsa,adapted] [--steps 4000] [--adapt-steps 2000] [--preset dit-120m]
//                             [--held-out 32]
//
// Goes on where it stopped: it ends within --minutes of its start with everything saved, exit code 3, and the next call
// resumes. Runs (checkpoints of 2 GB each among them) stay in --runs. --arms says which arms, in that order; 'adapted'
// needs the weights of 'full'.
//
// A trained arm is looked at: its errors on --held-out clips that no arm is trained on, the same for all, and a sample.
// Then --results gets all there is so far, for the machine may go away: each arm's log in means of ten steps (NAME.jsonl)
// and sample (NAME.gif), summary.json with the settings, and report.html about the arms that are done.
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { summarise, thinnedLog } from './experiment-results.mjs';
import { built, native, vsa } from './built.mjs';

const { readCheckpointFacts } = /** @type {typeof import('../lib/train/checkpoint.js')} */ (
  built('train/checkpoint.js')
);
const { checkpointErrors, heldOutClips } = /** @type {typeof import('../lib/train/held-out.js')} */ (
  built('train/held-out.js')
);
const { FILES, train } = /** @type {typeof import('../lib/train/run.js')} */ (built('train/run.js'));
const { readLog } = /** @type {typeof import('../lib/train/log.js')} */ (built('train/log.js'));
const { median, readRun } = /** @type {typeof import('../lib/train/report/data.js')} */ (built('train/report/data.js'));
const { renderTrainReport } = /** @type {typeof import('../lib/train/report/page.js')} */ (
  built('train/report/page.js')
);
const { parseTrainOptions } = /** @type {typeof import('../lib/train/settings.js')} */ (built('train/settings.js'));

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    runs: { type: 'string' },
    results: { type: 'string' },
    minutes: { type: 'string', default: '9' },
    arms: { type: 'string', default: 'full,vsa,adapted' },
    steps: { type: 'string', default: '4000' },
    'adapt-steps': { type: 'string', default: '2000' },
    preset: { type: 'string', default: 'dit-120m' },
    'held-out': { type: 'string', default: '32' },
  },
});

/** @param {string} argument @param {unknown} got @param {string} wanted @returns {never} */
function refuse(argument, got, wanted) {
  throw new RangeError(`--${argument}: got ${JSON.stringify(got) ?? 'nothing'}, wanted ${wanted}`);
}
/** @param {'minutes' | 'steps' | 'adapt-steps' | 'held-out'} argument @param {number} least */
function number(argument, least) {
  const value = Number(options[argument]);
  return value >= least ? value : refuse(argument, options[argument], `a number of at least ${least}`);
}

const runs = options.runs ?? refuse('runs', undefined, 'a folder for runs');
const results = options.results === undefined ? undefined : resolve(options.results);
const adaptSteps = number('adapt-steps', 1);
/** Clips of a standard error. */
const clipCount = number('held-out', 2);
const TIMES = [0.1, 0.3, 0.5, 0.7, 0.9];
/** Arms have seeds 1 and 2. */
const HELD_OUT_SEED = 3;

/** Since the process began. */
let ends = 60_000 * number('minutes', 0.01);
/** Milliseconds for what comes after the last step: a checkpoint of 2 GB takes some seconds. */
const reserve = Math.min(20_000, 0.2 * ends);
const left = () => ends - performance.now();
// The first one saves, as if the time were up; a second one ends the process.
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) process.once(signal, () => (ends = 0));

/** @typedef {import('../lib/index.js').TrainOptions} TrainOptions */
// Saving 2 GB takes seconds in which the GPU idles; the last step and the end of the time have checkpoints besides.
const common = /** @type {TrainOptions} */ ({
  ...{ preset: options.preset, steps: number('steps', 1), checkpointEvery: 2000, seed: 1 },
});
/** Steps of the sparsity, 0.03 each unless there are too few steps of training for them. */
const increases = Math.max(1, Math.min(30, Math.floor(0.75 * adaptSteps)));
/**
 * K falls from all tiles to its target in the first three quarters of the adaptation, at a tenth of the learning rate;
 * no fine gate, which dense weights have none for. Its seed is its own: it would see the clips, noise and times again
 * that the dense weights began with.
 *
 * @type {Readonly<Record<string, TrainOptions>>}
 */
const ARMS = {
  full: { ...common, attention: 'full' },
  vsa: { ...common, attention: 'vsa' },
  adapted: {
    ...common,
    ...{ attention: 'vsa', fineGate: false, adapt: join('full', FILES.checkpoint), seed: 2 },
    ...{ steps: adaptSteps, learningRate: 6e-5 },
    adaptInterval: Math.max(1, Math.floor((0.75 * adaptSteps) / increases)),
    adaptRate: Math.max(0.03, parseTrainOptions(common).sparsity / increases),
  },
};
const order = options.arms.split(',');
for (const name of order) {
  if (ARMS[name] === undefined) refuse('arms', name, `some of ${Object.keys(ARMS).join(', ')}`);
}

// Runs are known by their names in it, and what is kept names no folder of this machine.
mkdirSync(runs, { recursive: true });
process.chdir(runs);
const device = vsa.device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));

/** @param {string} path */
const exists = (path) => statSync(path, { throwIfNoEntry: false }) !== undefined;
/** @param {string} name */
const settingsOf = (name) => parseTrainOptions(ARMS[name]);
/** @param {string} name */
const checkpointOf = (name) => join(name, FILES.checkpoint);

/** Steps in an arm's checkpoint; undefined where there is none. @param {string} name */
async function savedSteps(name) {
  if (!exists(checkpointOf(name))) return undefined;
  const { step, settings } = await readCheckpointFacts(checkpointOf(name));
  if (!isDeepStrictEqual(settings, settingsOf(name))) {
    refuse('runs', join(runs, name), 'a folder of runs with the settings of this call');
  }
  return step;
}

/** Trains an arm until it is done or the time is up. @param {string} name */
async function advance(name) {
  const settings = settingsOf(name);
  const begun = await savedSteps(name);
  // What crashed before its first checkpoint begins anew.
  if (begun === undefined) rmSync(name, { recursive: true, force: true });
  const controller = new AbortController();
  let last = performance.now();
  const progress = {
    begin: () => undefined,
    /** @param {import('../lib/train/log.js').LogRow} row */
    step(row) {
      if (left() < reserve) controller.abort();
      if (performance.now() - last < 20_000) return;
      last = performance.now();
      const mfu = row.mfu === null ? '' : `, MFU ${(100 * row.mfu).toFixed(1)} %`;
      console.log(
        `${name} ${row.step} of ${settings.steps}: loss ${row.loss.toFixed(4)}, ${row.ms.toFixed(1)} ms${mfu}`,
      );
    },
    end: () => undefined,
  };
  device.resetPeakMemory();
  const given = begun === undefined ? settings : undefined;
  const result = await train({ out: name, settings: given, device, progress, signal: controller.signal });
  console.log(`${name}: ${result.step} of ${settings.steps} steps at ${(performance.now() / 1000).toFixed(0)} s`);
  return !result.interrupted;
}

/** @param {string} name */
const heldOutFile = (name) => join(name, 'held-out.json');

/** What was found on held-out clips, if it was. @param {string} name */
function heldOutOf(name) {
  if (!exists(heldOutFile(name))) return undefined;
  /** @type {unknown} */
  const parsed = JSON.parse(readFileSync(heldOutFile(name), 'utf8'));
  const found = /** @type {import('./experiment-results.mjs').HeldOut} */ (parsed);
  return found.clips === clipCount && isDeepStrictEqual(found.times, TIMES) ? found : undefined;
}

/** The clips are made once. @type {import('../lib/train/held-out.js').HeldOutClips | undefined} */
let clips;

/** Looks at an arm on held-out clips. @param {string} name */
async function evaluate(name) {
  const start = performance.now();
  clips ??= await heldOutClips(settingsOf(name), { seed: HELD_OUT_SEED, count: clipCount });
  const request = { device, clips, times: TIMES };
  const found = await checkpointErrors(checkpointOf(name), request);
  const unadapted =
    name === 'adapted' && (await checkpointErrors(checkpointOf('full'), { ...request, sparse: settingsOf(name) }));
  const about = { seed: HELD_OUT_SEED, clips: clipCount, times: TIMES };
  writeFileSync(heldOutFile(name), JSON.stringify({ ...about, ...found, ...(unadapted !== false && { unadapted }) }));
  console.log(`${name}: ${clipCount} held-out clips in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}

/** What pages show of the arms that are done, read once. @type {Map<string, import('../lib/train/report/data.js').RunReport>} */
const reports = new Map();
const isDone = async (/** @type {string} */ name) => (await savedSteps(name)) === settingsOf(name).steps;

/** Writes logs and the summary: what there is so far. */
async function publishNumbers() {
  if (results === undefined) return;
  mkdirSync(results, { recursive: true });
  /** @type {Record<string, import('./experiment-results.mjs').Arm>} */
  const arms = {};
  for (const name of Object.keys(ARMS)) {
    if (!order.includes(name) || !exists(join(name, FILES.log))) continue;
    const rows = await readLog(join(name, FILES.log));
    arms[name] = { settings: settingsOf(name), rows, done: await isDone(name), heldOut: heldOutOf(name) };
    writeFileSync(join(results, `${name}.jsonl`), thinnedLog(rows));
  }
  const about = { device: device.name, commit: native().build().commit, date: new Date().toISOString() };
  writeFileSync(join(results, 'summary.json'), `${JSON.stringify({ ...about, ...summarise(arms) }, null, 2)}\n`);
}

/** Writes everything about the arms that are done. */
async function publish() {
  if (results === undefined) return;
  await publishNumbers();
  const shown = [];
  for (const name of Object.keys(ARMS)) {
    if (!order.includes(name) || !(await isDone(name))) continue;
    const report = reports.get(name) ?? (await readRun(name, device));
    reports.set(name, report);
    shown.push(report);
    copyFileSync(join(name, FILES.sample), join(results, `${name}.gif`));
  }
  writeFileSync(join(results, 'report.html'), renderTrainReport(shown));
}

/** About how long it takes to evaluate an arm and publish, in milliseconds. @param {string} name */
async function finishingTime(name) {
  const rows = await readLog(join(name, FILES.log));
  const weights = name === 'adapted' ? 4 : 2;
  const samples = order.length - reports.size;
  // A forward is about a third of a step; a sample has some 30.
  return (
    reserve / 2 +
    0.4 * median(rows.slice(-20).map(({ ms }) => ms)) * (weights * clipCount * TIMES.length + 40 * samples)
  );
}

/** @returns {Promise<boolean>} Whether everything is done. */
async function main() {
  // A call's first work is begun however long it takes, so that every call gets further.
  let worked = false;
  for (const name of order) {
    if (name === 'adapted' && !(await isDone('full'))) refuse('arms', options.arms, "'full' before 'adapted'");
    if (!(await isDone(name))) {
      if (worked && left() < 3 * reserve) return false;
      worked = true;
      if (!(await advance(name))) return false;
    }
    if (heldOutOf(name) !== undefined) continue;
    if (worked && left() < (await finishingTime(name))) return false;
    worked = true;
    await evaluate(name);
    await publish();
  }
  if (reports.size === 0) await publish();
  return true;
}

if (await main()) {
  console.log(`done at ${(performance.now() / 1000).toFixed(0)} s`);
} else {
  await publishNumbers();
  console.log(`not done yet at ${(performance.now() / 1000).toFixed(0)} s: the same command goes on`);
  process.exitCode = 3;
}
