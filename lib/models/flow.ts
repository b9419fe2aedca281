/**
 * Rectified flow (Liu et al., arXiv 2209.03003; flow matching, Lipman et al., arXiv 2210.02747): straight lines from
 * data at time 0 to noise at time 1. A network learns their velocity, noise - data, and samples by following it back.
 */

import { noGrad } from '../autograd/mode.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { checkFactor } from '../nn/ops/arithmetic.js';
import { combine } from '../tensor/arithmetic.js';
import { checkAnyTensor, checkLike } from '../nn/ops/checks.js';
import { concatOf, sliceOf } from '../nn/ops/shape.js';
import { FLOAT_DTYPES } from '../tensor/dtype.js';
import { parseSeed } from '../tensor/host.js';
import { tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { checkInteger, checkNumber, checkOptions } from '../validate.js';
import { normalAt } from './philox.js';

/** Of the training times among the streams of a seed: below it is `Tensor.randn`'s. */
const TIMES_STREAM = 1;

export interface TrainingTimesOptions {
  /** As many times: the batch size. */
  count: number;
  /** A whole number from 0 to 2^64 - 1. */
  seed: number | bigint;
  /** The training step, from 0. */
  step: number;
  /** As of `shiftTime`. Default 1: none. */
  shift?: number;
}

export interface InterpolateOptions {
  /** `[B, ...]` float32, bfloat16 or float16. */
  data: Tensor;
  /** Standard normal numbers of the shape and dtype of data. */
  noise: Tensor;
  /** For each batch entry, from 0 (data) to 1 (noise). */
  times: readonly number[];
}

/** The velocity of `x [B, ...]` at times, one a batch entry: of the shape of x, in any float dtype. */
export type Velocity = (x: Tensor, times: readonly number[]) => Tensor;

export interface EulerStep {
  /** Steps done, from 1. */
  step: number;
  steps: number;
  /** Where the sample is now: the last step's is 0. */
  time: number;
  /** The sample as it is now; disposed after the call. */
  x: Tensor;
}

export interface EulerSampleOptions {
  velocity: Velocity;
  /** `[B, ...]`, where sampling begins; float32 unless memory is short. It is not changed. */
  noise: Tensor;
  /** Steps of equal length but for the shift. */
  steps: number;
  /** As of `shiftTime`; Wan2.1 samples with 5. Default 1: none. */
  shift?: number;
  /** Classifier-free guidance (Ho and Salimans, arXiv 2207.12598): `unconditional + scale (velocity - unconditional)`. */
  guidance?: { scale: number; unconditional: Velocity };
  /** Called after every step. Operations return before they have run: to wait for them, read from `x`. */
  onStep?: (progress: EulerStep) => void;
}

function checkTime(argument: string, value: unknown): number {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a time from 0 to 1' });
}

function checkShift(value: unknown): number {
  const shift = checkNumber('shift', value);
  if (shift > 0) return shift;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'shift', got: show(shift), wanted: 'a number above 0' });
}

function shifted(time: number, shift: number): number {
  return (shift * time) / (1 + (shift - 1) * time);
}

function checkBatch(argument: string, value: unknown): Tensor {
  const tensor = checkAnyTensor(argument, value);
  if (tensor.rank > 0) return tensor;
  throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: show(tensor.shape), wanted: 'rank 1 or more, [B, ...]' });
}

/**
 * `shift * t / (1 + (shift - 1) t)`: moves times towards 1 where shift is above 1, for long sequences need more noise to
 * hide what they show. Source: Esser et al., arXiv 2403.03206, section 5.3.2; used by Wan2.1.
 */
export function shiftTime(time: number, shift: number): number {
  return shifted(checkTime('time', time), checkShift(shift));
}

/**
 * Times to train at: `sigmoid(z)` of standard normal z (logit-normal(0, 1), Esser et al., arXiv 2403.03206), shifted,
 * rounded to float32. The same for the same seed, step and place in the batch, whatever was drawn before.
 *
 * @throws VsaRangeError ERR_ARGUMENT.
 */
export function trainingTimes(options: TrainingTimesOptions): number[] {
  checkOptions('options', options, ['count', 'seed', 'step', 'shift']);
  const count = checkInteger('count', options.count, 0, 2 ** 32 - 1);
  const step = checkInteger('step', options.step, 0);
  const shift = checkShift(options.shift ?? 1);
  const seed = parseSeed(options.seed);
  return Array.from({ length: count }, (_, i) => {
    const time = 1 / (1 + Math.exp(-normalAt(seed, TIMES_STREAM, step, i)));
    return Math.fround(shifted(time, shift));
  });
}

/** The times of a sampler's steps, `steps + 1` of them, from 1 to 0: equally spaced, then shifted; float32 numbers. */
export function samplingTimes(steps: number, shift = 1): number[] {
  const count = checkInteger('steps', steps, 1, 1e6);
  const by = checkShift(shift);
  return Array.from({ length: count + 1 }, (_, i) => Math.fround(shifted(1 - i / count, by)));
}

/**
 * What a network sees, and what it is to say: `noisy = (1 - t) data + t noise`, each in float32 and rounded once, and
 * `target = noise - data`. No gradients flow through it.
 *
 * @returns Both of the shape and dtype of data.
 * @throws VsaRangeError ERR_SHAPE, ERR_ARGUMENT; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_ARGUMENT.
 */
export function interpolate(options: InterpolateOptions): { noisy: Tensor; target: Tensor } {
  checkOptions('options', options, ['data', 'noise', 'times']);
  const data = checkBatch('data', options.data);
  const noise = checkLike('noise', options.noise, data, 'data');
  const B = data.shape[0]!;
  const times: unknown = options.times;
  if (!Array.isArray(times) || times.length !== B) {
    const wanted = `${String(B)} times, one a batch entry`;
    throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'times', got: show(times), wanted });
  }
  const checked = Array.from(times, (time, i) => checkTime(`times[${String(i)}]`, time));
  return noGrad(() =>
    tidy(() => {
      const entry = (x: Tensor, i: number) => sliceOf(x, { dim: 0, start: i, length: 1 });
      const parts = checked.map((time, i) => combine(entry(data, i), 1 - time, entry(noise, i), time));
      return { noisy: B === 0 ? data.clone() : concatOf(parts, 0), target: combine(noise, 1, data, -1) };
    }),
  );
}

/** What a user's velocity returned, in the dtype of x. */
function velocityAt(argument: string, velocity: Velocity, x: Tensor, times: readonly number[]): Tensor {
  const value: unknown = velocity(x, times);
  const dtype = value instanceof Tensor && FLOAT_DTYPES.includes(value.dtype) ? value.dtype : x.dtype;
  return checkLike(argument, value, { shape: x.shape, dtype, device: x.device }, 'noise').cast(x.dtype);
}

function checkFunction(argument: string, value: unknown): void {
  if (typeof value === 'function') return;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a function' });
}

/**
 * Samples by Euler's method: follows the velocity from noise at time 1 to data at time 0,
 * `x += (t[i + 1] - t[i]) * velocity(x, t[i])` with `t = samplingTimes(steps, shift)`. Nothing is recorded, and what a
 * step makes is disposed after it.
 *
 * @returns Of the shape and dtype of noise; yours to dispose.
 * @throws VsaRangeError ERR_SHAPE, ERR_ARGUMENT; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_ARGUMENT, also
 *   for what `velocity` returns; whatever the functions throw.
 */
export function eulerSample(options: EulerSampleOptions): Tensor {
  checkOptions('options', options, ['velocity', 'noise', 'steps', 'shift', 'guidance', 'onStep']);
  const { velocity, guidance, onStep } = options;
  checkFunction('velocity', velocity);
  if (onStep !== undefined) checkFunction('onStep', onStep);
  if (guidance !== undefined) {
    checkOptions('guidance', guidance, ['scale', 'unconditional']);
    checkFactor('guidance.scale', guidance.scale);
    checkFunction('guidance.unconditional', guidance.unconditional);
  }
  const noise = checkBatch('noise', options.noise);
  const times = samplingTimes(options.steps, options.shift ?? 1);
  const advance = (x: Tensor, from: number, to: number) => {
    const at = new Array<number>(x.shape[0]!).fill(from);
    let direction = velocityAt('velocity', velocity, x, at);
    if (guidance !== undefined) {
      const unconditional = velocityAt('guidance.unconditional', guidance.unconditional, x, at);
      direction = combine(direction, guidance.scale, unconditional, 1 - guidance.scale);
    }
    return combine(x, 1, direction, to - from);
  };
  return noGrad(() =>
    tidy(() => {
      let x = noise;
      for (let i = 1; i < times.length; i++) {
        const [from, to] = [times[i - 1]!, times[i]!];
        const before = x;
        x = tidy(() => advance(before, from, to));
        if (before !== noise) before.dispose();
        onStep?.({ step: i, steps: times.length - 1, time: to, x });
      }
      return x;
    }),
  );
}
