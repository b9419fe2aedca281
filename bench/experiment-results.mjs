// What the experiment's runs came to, in numbers: see experiment.mjs.
import { built } from './built.mjs';

const { finalLoss, lossWindow, median } = /** @type {typeof import('../lib/train/report/data.js')} */ (
  built('train/report/data.js')
);
const { firstAsGood, wholeRun } = /** @type {typeof import('../lib/train/report/comparison.js')} */ (
  built('train/report/comparison.js')
);

/**
 * @typedef {import('../lib/train/log.js').LogRow} LogRow
 * @typedef {{ averages: number[][] | null, weights: number[][] }} Errors Of clips and times.
 * @typedef {Errors & { seed: number, clips: number, times: number[], unadapted?: Errors }} HeldOut
 * @typedef {{ settings: import('../lib/index.js').TrainSettings, rows: LogRow[], done: boolean, heldOut: HeldOut | undefined }} Arm
 */

/** The first steps compile, fill caches and record. */
const WARM_UP = 20;

/** @param {number} value @param {number} digits */
const rounded = (value, digits) => Number(value.toPrecision(digits));
/** @param {readonly number[]} values */
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The mean of some independent numbers, and its standard error. @param {readonly number[]} values */
function estimate(values) {
  const middle = mean(values);
  const variance = values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1);
  return { mean: rounded(middle, 6), standardError: rounded(Math.sqrt(variance / values.length), 3) };
}

/** A log in means of ten steps, a line of JSON each. @param {readonly LogRow[]} rows */
export function thinnedLog(rows) {
  const lines = [];
  for (let begin = 0; begin < rows.length; begin += 10) {
    const some = rows.slice(begin, begin + 10);
    const last = /** @type {LogRow} */ (some.at(-1));
    /** @param {'loss' | 'gradientNorm' | 'ms'} field */
    const of = (field) => rounded(mean(some.map((row) => row[field])), 6);
    const { step, learningRate, topK, flop } = last;
    const losses = { loss: of('loss'), gradientNorm: of('gradientNorm') };
    lines.push(`${JSON.stringify({ step, ...losses, learningRate, topK, ms: of('ms'), flop })}\n`);
  }
  return lines.join('');
}

/** @param {number[][] | null} errors @param {readonly number[]} times */
function heldOutOf(errors, times) {
  if (errors === null) return null;
  /** @type {Record<string, number>} */
  const byTime = {};
  times.forEach((time, at) => (byTime[time] = rounded(mean(errors.map((clip) => clip[at] ?? NaN)), 5)));
  return { ...estimate(errors.map(mean)), byTime };
}

/** An arm by itself. @param {Arm} arm */
export function armSummary({ settings, rows, done, heldOut }) {
  const { step: steps, flop, seconds } = wholeRun(rows);
  const topK = rows.at(-1)?.topK;
  // An adaptation's steps before it has come to its K are slower, and those that record have no part in its speed.
  const timed = rows.slice(WARM_UP).filter((row) => row.topK === topK);
  const mfu = timed.flatMap((row) => row.mfu ?? []);
  const both = heldOut && {
    averages: heldOutOf(heldOut.averages, heldOut.times),
    weights: heldOutOf(heldOut.weights, heldOut.times),
  };
  return {
    ...{ done, steps, flop, seconds: rounded(seconds, 5) },
    ...{ topK, timedSteps: timed.length, msMedian: rounded(median(timed.map(({ ms }) => ms)), 5) },
    mfuMedian: rounded(median(mfu), 4),
    peakBytes: rows.reduce((most, row) => Math.max(most, row.memory), 0),
    ...{ finalLoss: rounded(finalLoss(rows), 6), finalLossOver: Math.min(rows.length, lossWindow(rows.length)) },
    heldOut: both ?? null,
    settings,
  };
}

/** Differences of the same clips, noise and times. @param {number[][] | null} some @param {number[][] | null} others */
function heldOutDifference(some, others) {
  if (some === null || others === null) return null;
  return estimate(some.map((clip, at) => mean(clip) - mean(others[at] ?? [])));
}

/** @param {HeldOut | undefined} some @param {HeldOut | undefined} others */
function heldOutDifferences(some, others) {
  if (some === undefined || others === undefined) return null;
  const averages = heldOutDifference(some.averages, others.averages);
  return { averages, weights: heldOutDifference(some.weights, others.weights) };
}

/** @param {Arm} arm @param {Arm} full */
function speeds(arm, full) {
  const [own, its] = [armSummary(arm), armSummary(full)];
  return {
    flopRatio: rounded(own.flop / its.flop, 4),
    secondsRatio: rounded(own.seconds / its.seconds, 4),
    msRatio: rounded(own.msMedian / its.msMedian, 4),
  };
}

/** VSA from the start beside full attention, both done. @param {Arm} vsa @param {Arm} full */
function fromStart(vsa, full) {
  const loss = finalLoss(full.rows);
  const window = lossWindow(full.rows.length);
  const whole = wholeRun(full.rows);
  /** @param {import('../lib/train/report/comparison.js').Reach} reach */
  const ratios = ({ step, flop, seconds }) => ({
    ...{ step, flop, seconds: rounded(seconds, 5) },
    ...{ stepRatio: rounded(step / whole.step, 4), flopRatio: rounded(flop / whole.flop, 4) },
    secondsRatio: rounded(seconds / whole.seconds, 4),
  });
  const reach = firstAsGood(vsa.rows, loss, window);
  const reached = firstAsGood(full.rows, finalLoss(vsa.rows), window);
  const own = firstAsGood(full.rows, loss, window) ?? whole;
  const differences = vsa.rows.slice(-window).flatMap((row) => {
    const other = full.rows[row.step - 1];
    return other === undefined ? [] : [row.loss - other.loss];
  });
  return {
    ...{ loss: rounded(loss, 6), window },
    // By chance a mean may be as low as the last one before the end: full attention's own first time tells by how much.
    ...{
      reaches: reach === undefined ? null : ratios(reach),
      fullItselfReaches: ratios(own),
    },
    // Where full attention first is as good as VSA ends, and how much of that VSA took.
    fullReachesVsa:
      reached === undefined
        ? null
        : {
            ...{ loss: rounded(finalLoss(vsa.rows), 6), step: reached.step, flop: reached.flop },
            seconds: rounded(reached.seconds, 5),
            vsaFlopRatio: rounded(wholeRun(vsa.rows).flop / reached.flop, 4),
            vsaSecondsRatio: rounded(wholeRun(vsa.rows).seconds / reached.seconds, 4),
          },
    wholeRun: speeds(vsa, full),
    finalLossDifference: estimate(differences),
    heldOutDifference: heldOutDifferences(vsa.heldOut, full.heldOut),
  };
}

/** Dense weights made sparse beside what they were, both done. @param {Arm} adapted @param {Arm} full */
function fromDense(adapted, full) {
  const [own, dense] = [wholeRun(adapted.rows), wholeRun(full.rows)];
  const unadapted = adapted.heldOut?.unadapted;
  const withDense = {
    ...{ flop: own.flop + dense.flop, flopRatio: rounded(1 + own.flop / dense.flop, 4) },
    seconds: rounded(own.seconds + dense.seconds, 5),
  };
  return {
    ...{ adaptation: { flop: own.flop, ...speeds(adapted, full) }, withDenseTraining: withDense },
    heldOutDifference: heldOutDifferences(adapted.heldOut, full.heldOut),
    // The dense weights at the same K without a step of adaptation: what is between the two, adaptation has recovered.
    unadaptedDifference:
      unadapted === undefined || full.heldOut === undefined
        ? null
        : {
            averages: heldOutDifference(unadapted.averages, full.heldOut.averages),
            weights: heldOutDifference(unadapted.weights, full.heldOut.weights),
          },
  };
}

/**
 * The arms, and what they say of the claim; differences are those to full attention, above 0 where it is better.
 *
 * @param {Readonly<Record<string, Arm>>} arms
 */
export function summarise(arms) {
  const { full, vsa, adapted } = arms;
  const heldOut = Object.values(arms).find((arm) => arm.heldOut !== undefined)?.heldOut;
  return {
    arms: Object.fromEntries(Object.entries(arms).map(([name, arm]) => [name, armSummary(arm)])),
    heldOut: heldOut === undefined ? null : { clips: heldOut.clips, seed: heldOut.seed, times: heldOut.times },
    vsaAgainstFull: full?.done === true && vsa?.done === true ? fromStart(vsa, full) : null,
    adaptedAgainstFull: full?.done === true && adapted?.done === true ? fromDense(adapted, full) : null,
  };
}
