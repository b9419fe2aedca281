/** What the suites of functional pairs share: float64 references, their gradients by differences, wrong calls. */

import { Tensor } from '../../lib/index.js';
import { type FloatFormat, rounded, roundingStep } from '../../lib/oracle/index.js';
import { disposed, elsewhere, expectError, type Misuse, NO_TENSORS } from '../attention/misuse.js';
import { fresh } from '../under-test.js';

export const FORMATS: readonly FloatFormat[] = ['float32', 'bfloat16', 'float16'];

export type Values = Record<string, Float64Array>;

/** Normal numbers, the same in every run. */
export function normals(count: number, seed: number, { mean = 0, std = 1 } = {}): Float64Array {
  let state = seed * 2654435761 + 1;
  const uniform = () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x6d2b79f5) | 0;
    return ((state >>> 0) + 0.5) / 2 ** 32;
  };
  return Float64Array.from(
    { length: count },
    () => mean + std * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

export function count(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

/** Values that a format holds, and a tensor of them. */
export function operand(shape: readonly number[], seed: number, format: FloatFormat = 'float32', options = {}) {
  const values = rounded(normals(count(shape), seed, options), format);
  return { values, tensor: fresh.from(values, shape, { dtype: format }) };
}

/** The gradient of `sum(f(inputs) * doutput)` with respect to one input, by central differences in float64. */
export function differences(
  f: (inputs: Values) => Float64Array,
  inputs: Values,
  name: string,
  doutput: Float64Array,
): Float64Array {
  const moved = Float64Array.from(inputs[name]!);
  const at = (i: number, value: number) => {
    moved[i] = value;
    return f({ ...inputs, [name]: moved });
  };
  return moved.map((x, i) => {
    const step = 1e-5 * Math.max(1, Math.abs(x));
    const [above, below] = [at(i, x + step), at(i, x - step)];
    moved[i] = x;
    return above.reduce((sum, value, j) => sum + (value - below[j]!) * doutput[j]!, 0) / (2 * step);
  });
}

/**
 * Every element must be the reference rounded once, but for the rounding of float32 arithmetic on the way: `slack` of
 * the largest magnitude.
 */
export async function expectClose(tensor: Tensor, reference: ArrayLike<number>, what: string, slack = 2e-6) {
  const got = await tensor.toFloat32();
  expect({ what, length: got.length }).toEqual({ what, length: reference.length });
  let largest = 0;
  for (let i = 0; i < got.length; i++) largest = Math.max(largest, Math.abs(reference[i]!));
  for (let i = 0; i < got.length; i++) {
    const limit = 0.51 * roundingStep(tensor.dtype as FloatFormat, reference[i]!) + slack * largest;
    if (Math.abs(got[i]! - reference[i]!) <= limit) continue;
    throw new Error(`${what} at ${String(i)}: ${String(got[i])}, wanted ${String(reference[i])} +- ${String(limit)}`);
  }
}

/** Checks gradients against differences, and disposes them. */
export async function expectGradients(
  grads: Readonly<Record<string, Tensor | undefined>>,
  f: (inputs: Values) => Float64Array,
  inputs: Values,
  doutput: Float64Array,
): Promise<void> {
  expect(Object.keys(grads).sort()).toEqual(Object.keys(inputs).sort());
  for (const [name, grad] of Object.entries(grads)) {
    await expectClose(grad!, differences(f, inputs, name, doutput), `gradient of ${name}`);
    grad!.dispose();
  }
}

/** The valid call must work, and every wrong one be a typed error that says so. Disposes what it is given. */
export function expectMisuses(
  pair: { forward(options: never): unknown },
  valid: () => Record<string, unknown>,
  misuses: readonly Misuse[],
): void {
  const right = valid();
  dispose(pair.forward(right as never));
  dispose(right);
  for (const [what, wrong, code, argument, says] of misuses) {
    const base = valid();
    try {
      expectError(() => pair.forward({ ...base, ...wrong } as never), code, argument, says);
    } catch (error) {
      throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    } finally {
      dispose(base);
      dispose(wrong);
    }
  }
}

/** Wrong values of an option that takes a tensor: no tensor, disposed, an int32, on another device. */
export function notTensors(name: string, example: Tensor, { optional = false } = {}): Misuse[] {
  const values = NO_TENSORS.filter((value) => !(optional && value === undefined));
  return [
    ...values.map((value): Misuse => [`${String(value)} as ${name}`, { [name]: value }, 'ERR_ARGUMENT', name]),
    [`${name} disposed`, { [name]: disposed(example) }, 'ERR_DISPOSED', name],
    [`${name} of whole numbers`, { [name]: fresh.zeros(example.shape, { dtype: 'int32' }) }, 'ERR_DTYPE', name],
  ];
}

/** `example` on another device than the rest. */
export function away(name: string, example: Tensor): Misuse {
  return [`${name} elsewhere`, { [name]: elsewhere(example) }, 'ERR_DEVICE', name, 'cuda:7'];
}

/** A backward of a pair with what is no saved state of it, and with what is no gradient of its output. */
export function expectBackwardMisuses(
  pair: { backward(saved: never, grads: never): unknown },
  saved: { dispose(): void },
  output: Tensor,
): void {
  const call = ({ state, ...grads }: { state: unknown }) => pair.backward(state as never, grads as never);
  const other = fresh.zeros([...output.shape, 1], { dtype: output.dtype });
  const dtype = output.dtype === 'float16' ? 'bfloat16' : 'float16';
  const valid = () => ({ state: saved, output: output.clone() });
  for (const state of [undefined, null, {}, output]) {
    expectError(() => pair.backward(state as never, { output } as never), 'ERR_ARGUMENT', 'saved');
  }
  for (const grads of [undefined, null, 3, []]) {
    expectError(() => pair.backward(saved as never, grads as never), 'ERR_ARGUMENT', 'grads');
  }
  const wrong: Misuse[] = [
    ...NO_TENSORS.map((value): Misuse => ['no tensor', { output: value }, 'ERR_ARGUMENT', 'grads.output']),
    ['an unknown gradient', { inptu: 1 }, 'ERR_ARGUMENT', 'grads', 'inptu'],
    ['another shape', { output: other }, 'ERR_SHAPE', 'grads.output'],
    ['another dtype', { output: fresh.zeros(output.shape, { dtype }) }, 'ERR_DTYPE', 'grads.output'],
    ['disposed', { output: disposed(output) }, 'ERR_DISPOSED', 'grads.output'],
    ['elsewhere', { output: elsewhere(output) }, 'ERR_DEVICE', 'grads.output'],
  ];
  for (const [what, options, code, argument, says] of wrong) {
    const base = valid();
    try {
      expectError(() => call({ ...base, ...options }), code, argument, says);
    } catch (error) {
      throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    } finally {
      base.output.dispose();
      dispose(options);
    }
  }
  saved.dispose();
  expectError(() => pair.backward(saved as never, { output } as never), 'ERR_DISPOSED', 'saved');
}

/** Disposes the tensors among values, and the output and saved state of a forward. */
export function dispose(values: unknown): void {
  if (typeof values !== 'object' || values === null) return;
  for (const value of Object.values(values)) {
    if (typeof (value as { dispose?: unknown } | null)?.dispose === 'function') (value as Tensor).dispose();
  }
}
