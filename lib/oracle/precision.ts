/**
 * Where the oracle rounds.
 *
 * With `EXACT` it is the float64 reference. With `samePrecision(format)` the same code becomes the "same-precision
 * reference": what a careful implementation with tensors of that format would compute. Its distance from the float64
 * reference says how much error the format itself costs, and so how much an implementation may have (see compare.ts).
 */
import { type FloatFormat, type Rounding } from './rounding.js';

const { fround } = Math; // by name: see rounding.ts

export interface Precision {
  /** Sums, softmax and pooled values. */
  readonly accumulate: 'float64' | 'float32';
  /** Token-level scores S and dP, as they leave their matrix products. */
  readonly scores: Rounding;
  /** P before P V and P^T dO, dS before dS K and dS^T Q: the operands of the second matrix products. */
  readonly operands: Rounding;
  /** Outputs and gradients that have the format of the inputs. */
  readonly outputs: Rounding;
}

/** The float64 reference: no rounding anywhere. */
export const EXACT: Precision = { accumulate: 'float64', scores: 'float64', operands: 'float64', outputs: 'float64' };

/** float32 throughout, sums included: the coarse stage of every same-precision reference. */
export const FLOAT32: Precision = { accumulate: 'float32', scores: 'float32', operands: 'float32', outputs: 'float32' };

/**
 * The same-precision reference of a tensor format: float32 sums and softmax, and P, dS, outputs and gradients rounded
 * to the format.
 *
 * `scores: true` rounds S and dP to it as well, as an implementation without a fused softmax would. That is the right
 * reference for kernels that round P and dS themselves: their error is then below the reference's, not a second draw
 * of the same size. It is a poor one at large logits, where a bfloat16 score is off by more than 1; without it the
 * reference stays sharp there, and implementations that keep P and dS in float32 must stay below it.
 */
export function samePrecision(format: FloatFormat, { scores = false }: { scores?: boolean } = {}): Precision {
  return { accumulate: 'float32', scores: scores ? format : 'float32', operands: format, outputs: format };
}

/** sum of a[i] * b[i] over n elements from the two offsets. */
export type Dot = (a: Float64Array, aStart: number, b: Float64Array, bStart: number, n: number) => number;
/** y[i] += factor * x[i] over n elements from the two offsets. */
export type Axpy = (
  factor: number,
  x: Float64Array,
  xStart: number,
  y: Float64Array,
  yStart: number,
  n: number,
) => void;

/** Dot product in float64, in four chains (a single chain waits for each addition to finish). */
function dot64(a: Float64Array, aStart: number, b: Float64Array, bStart: number, n: number): number {
  let sum0 = 0;
  let sum1 = 0;
  let sum2 = 0;
  let sum3 = 0;
  let i = 0;
  for (; i + 3 < n; i += 4) {
    sum0 += a[aStart + i]! * b[bStart + i]!;
    sum1 += a[aStart + i + 1]! * b[bStart + i + 1]!;
    sum2 += a[aStart + i + 2]! * b[bStart + i + 2]!;
    sum3 += a[aStart + i + 3]! * b[bStart + i + 3]!;
  }
  for (; i < n; i++) sum0 += a[aStart + i]! * b[bStart + i]!;
  return sum0 + sum1 + (sum2 + sum3);
}

/** Dot product as a chain of float32 multiply-adds, one after the other: the plain order, and the least accurate. */
function dot32(a: Float64Array, aStart: number, b: Float64Array, bStart: number, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum = fround(sum + a[aStart + i]! * b[bStart + i]!);
  return sum;
}

function axpy64(factor: number, x: Float64Array, xStart: number, y: Float64Array, yStart: number, n: number): void {
  for (let i = 0; i < n; i++) y[yStart + i]! += factor * x[xStart + i]!;
}

function axpy32(factor: number, x: Float64Array, xStart: number, y: Float64Array, yStart: number, n: number): void {
  for (let i = 0; i < n; i++) y[yStart + i] = fround(y[yStart + i]! + factor * x[xStart + i]!);
}

export function dotOf(precision: Precision): Dot {
  return precision.accumulate === 'float32' ? dot32 : dot64;
}

export function axpyOf(precision: Precision): Axpy {
  return precision.accumulate === 'float32' ? axpy32 : axpy64;
}

/** Sum of the first n values, one after the other. */
export function sumOf(values: Float64Array, n: number, precision: Precision): number {
  let sum = 0;
  if (precision.accumulate === 'float32') {
    for (let i = 0; i < n; i++) sum = fround(sum + values[i]!);
  } else {
    for (let i = 0; i < n; i++) sum += values[i]!;
  }
  return sum;
}
