/**
 * The error rule: is an array as close to the float64 reference as its format allows?
 *
 * What the format allows is measured, not guessed: by the error of the same-precision reference (precision.ts) on the
 * same inputs. Two bounds must hold:
 *   max|got - reference| <= 2 * max|samePrecision - reference| + steps * (rounding step at the largest |reference|)
 *   relative L2 error <= a floor, or a little above what the same-precision reference itself has
 *
 * 16-bit formats: one step; floor 3e-3, about three bfloat16 roundings (each 1e-3 rms) on the way; else a quarter above
 * the same-precision reference. At large logits both sides owe most of their error to the rounding of one output (dS
 * cancels against delta), so the two errors are alike, but neither is bound to be the smaller one.
 * The usual rule rounds S and dP of the reference as well (precision.ts, `scores`) and allows its L2 error itself, which
 * bounds next to nothing at large logits. Where the code under test rounds P and dS itself (`roundedScores`), that rule
 * holds, and so that it bounds something everywhere, twice the error of the sharper reference as well: rounding at the
 * same places, but relative to other maxima, it is another draw of that error.
 * float32: eight steps, since nothing here is coarser than the result itself and the same-precision reference may be
 * exact by luck (a short sum, equal scores) where another order of summing or another exp is a few steps off; floor
 * 1e-5, as float32 scores of some tens carry errors of some 1e-6 into the probabilities; else twice the same-precision
 * reference, whose error is a draw of the same size from another order of summing.
 */
import { requireInteger, requireLength } from './checks.js';
import { type FloatFormat, roundTo, roundingStep } from './rounding.js';

const { isFinite } = Number; // by name: see rounding.ts
const { is } = Object;

export interface Comparison {
  /** What the code under test computed, as numbers. */
  readonly got: ArrayLike<number>;
  /** The float64 reference. */
  readonly reference: ArrayLike<number>;
  /** The same-precision reference. */
  readonly samePrecision: ArrayLike<number>;
  /** Format of `got`. */
  readonly format: FloatFormat;
  /** Sizes of the array, for the coordinates of its worst element. */
  readonly shape: readonly number[];
  /**
   * Magnitude of the terms that cancel to the reference. Give it where the reference is all rounding noise around 0
   * (dq with a single key, say) and no error can be judged by the reference's own size.
   */
  readonly magnitude?: number;
  /** Where the code under test rounds P and dS to a 16-bit format: the reference that rounds S and dP as well. */
  readonly roundedScores?: ArrayLike<number> | undefined;
}

export interface Verdict {
  readonly ok: boolean;
  /** max|got - reference|; Infinity where NaN or an infinity stands in the wrong place. */
  readonly maxError: number;
  /** What maxError may be. */
  readonly limit: number;
  readonly relativeL2: number;
  readonly limitL2: number;
  /** The element with the largest error. */
  readonly worst: {
    readonly index: number;
    readonly coordinates: readonly number[];
    readonly got: number;
    readonly want: number;
  };
}

interface Errors {
  readonly max: number;
  readonly index: number;
  /** Square root of the sum of squares, over finite elements. */
  readonly l2: number;
}

/** Applies the error rule. Throws RangeError if the lengths differ or there is nothing to compare. */
export function compare(comparison: Comparison): Verdict {
  const { got, reference, samePrecision, format, shape, magnitude = 0, roundedScores } = comparison;
  requireLengths(shape, { got, reference, samePrecision, ...(roundedScores !== undefined && { roundedScores }) });
  const float32 = format === 'float32';

  let largest = magnitude;
  let squares = 0;
  for (let i = 0; i < reference.length; i++) {
    if (!isFinite(roundTo(reference[i]!, format))) continue;
    largest = Math.max(largest, Math.abs(reference[i]!));
    squares += reference[i]! ** 2;
  }
  const norm = Math.max(Math.sqrt(squares), magnitude * Math.sqrt(reference.length));
  const relative = (l2: number) => (l2 === 0 ? 0 : l2 / norm);

  const own = errorsOf(samePrecision, reference, format, 'skip');
  const errors = errorsOf(got, reference, format, 'fail');
  const limit = 2 * own.max + (float32 ? 8 : 1) * roundingStep(format, largest);
  const ownL2 = relative(own.l2);
  const l2 = (other: ArrayLike<number>) => relative(errorsOf(other, reference, format, 'skip').l2);
  const allowed = roundedScores === undefined ? 1.25 * ownL2 : Math.min(2 * ownL2, l2(roundedScores));
  const limitL2 = float32 ? Math.max(1e-5, 2 * ownL2) : Math.max(3e-3, allowed);
  return verdictOf(comparison, errors, limit, relative(errors.l2), limitL2);
}

/** A log-sum-exp: max|got - reference| <= 1e-3, -inf exactly where the reference has it. No L2 bound. */
export function compareLse(comparison: Pick<Comparison, 'got' | 'reference' | 'shape'>): Verdict {
  const { got, reference, shape } = comparison;
  requireLengths(shape, { got, reference });
  return verdictOf(comparison, errorsOf(got, reference, 'float32', 'fail'), 1e-3, 0, Infinity);
}

function requireLengths(shape: readonly number[], arrays: Record<string, ArrayLike<number>>): void {
  for (const dim of shape) requireInteger('shape', dim, 1); // comparing nothing would always pass
  for (const [name, array] of Object.entries(arrays)) requireLength(name, array, shape);
}

function verdictOf(
  { got, reference, shape }: Pick<Comparison, 'got' | 'reference' | 'shape'>,
  errors: Errors,
  limit: number,
  relativeL2: number,
  limitL2: number,
): Verdict {
  const { index } = errors;
  return {
    ok: errors.max <= limit && relativeL2 <= limitL2,
    maxError: errors.max,
    limit,
    relativeL2,
    limitL2,
    worst: { index, coordinates: coordinatesOf(index, shape), got: got[index]!, want: reference[index]! },
  };
}

/**
 * Errors of `values`. Where the reference, rounded to the format, is NaN or infinite, `values` must be the same, and
 * where it is finite they must be finite; otherwise the error is Infinity ('fail') or the element is left out ('skip').
 */
function errorsOf(
  values: ArrayLike<number>,
  reference: ArrayLike<number>,
  format: FloatFormat,
  misplaced: 'fail' | 'skip',
): Errors {
  let max = -1;
  let index = 0;
  let squares = 0;
  for (let i = 0; i < reference.length; i++) {
    const want = roundTo(reference[i]!, format);
    let error = 0;
    if (!isFinite(want) || !isFinite(values[i]!)) {
      if (!is(want, values[i])) error = misplaced === 'fail' ? Infinity : 0;
    } else {
      error = Math.abs(values[i]! - reference[i]!);
      squares += error ** 2;
    }
    if (error > max) {
      max = error;
      index = i;
    }
  }
  return { max, index, l2: Math.sqrt(squares) };
}

/** Index of every dimension, row-major. */
export function coordinatesOf(index: number, shape: readonly number[]): number[] {
  const coordinates: number[] = [];
  let rest = index;
  for (const dim of [...shape].reverse()) {
    coordinates.unshift(rest % dim);
    rest = Math.floor(rest / dim);
  }
  return coordinates;
}
