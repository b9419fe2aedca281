/** What the suites of arithmetic share: tensors with the values they hold, and gradients by finite differences. */

import { tensorOf, valuesOf } from '../../lib/check/values.js';
import { type Device, Tensor } from '../../lib/index.js';
import { type FloatFormat, rounded, roundingStep } from '../../lib/oracle/index.js';
import { product } from '../../lib/validate.js';
import { here } from '../under-test.js';

// By name: a look-up of a global in every step of an inner loop is slow in Jest's sandbox.
const { abs, imul } = Math;
const { is } = Object;

export const FORMATS: readonly FloatFormat[] = ['float32', 'bfloat16', 'float16'];

const made: { dispose(): void }[] = [];

/** Everything that a test owns is disposed after it. Call it before other checks that run after each test. */
export function disposeWhatIsOwned(): void {
  afterEach(() => {
    for (const resource of made.splice(0)) resource.dispose();
  });
}

export function own<T extends { dispose(): void }>(resource: T): T {
  made.push(resource);
  return resource;
}

/** Values that a format holds exactly, and the tensor of them. */
export interface Given {
  tensor: Tensor;
  values: Float64Array;
  shape: readonly number[];
}

export function given(
  values: ArrayLike<number>,
  shape: readonly number[],
  format: FloatFormat = 'float32',
  device: Device = here,
): Given {
  const exact = rounded(values, format);
  return { tensor: own(tensorOf(exact, shape, format, device)), values: exact, shape };
}

/** Random numbers from -2 to 2, of a seed: mulberry32, which is quick. */
export function random(shape: readonly number[], format: FloatFormat, seed: number): Given {
  const values = new Float64Array(product(shape));
  let state = imul(seed, 0x9e3779b1);
  for (let i = 0; i < values.length; i++) {
    state = (state + 0x6d2b79f5) | 0;
    let word = imul(state ^ (state >>> 15), state | 1);
    word ^= word + imul(word ^ (word >>> 7), word | 61);
    values[i] = ((word ^ (word >>> 14)) >>> 0) / 2 ** 30 - 2;
  }
  return given(values, shape, format);
}

/** Of `loss` with respect to every element of x: central differences in float64. */
export function finiteDifferences(loss: (x: Float64Array) => number, x: Float64Array, step = 1e-4): Float64Array {
  return x.map((_, i) => {
    const at = (offset: number) => loss(x.map((value, j) => (j === i ? value + offset : value)));
    return (at(step) - at(-step)) / (2 * step);
  });
}

export function dot(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}

/** Equal within so many steps of the format, at the size of each value; `least` is added for values near 0. */
export async function expectClose(
  got: Tensor | undefined,
  wanted: Float64Array,
  format: FloatFormat,
  { steps = 2, least = 1e-7 } = {},
): Promise<void> {
  const values = await valuesOf(got!);
  expect([got!.dtype, values.length]).toEqual([format, wanted.length]);
  const wrong: object[] = [];
  for (const [i, value] of values.entries()) {
    const room = steps * roundingStep(format, abs(wanted[i]!)) + least;
    if (!(abs(value - wanted[i]!) <= room)) wrong.push({ i, value, wanted: wanted[i] });
  }
  expect(wrong).toEqual([]);
}

/** The same numbers: NaN is NaN, and -0 is not 0. A loop: Jest's own comparison takes seconds for long arrays. */
export function expectSame(got: Float64Array, wanted: Float64Array): void {
  let at = 0;
  while (at < wanted.length && is(got[at], wanted[at])) at += 1;
  expect({ length: got.length, at, value: got[at] }).toEqual({
    length: wanted.length,
    at: wanted.length,
    value: undefined,
  });
}

export async function expectExact(got: Tensor | undefined, wanted: Float64Array): Promise<void> {
  expectSame(await valuesOf(got!), wanted);
}
