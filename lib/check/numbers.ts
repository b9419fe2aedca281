/** `Tensor.randn`, `Tensor.randbits` and `cast`: what makes the inputs of everything else. */

import { type DType, Tensor } from '../index.js';
import { type FloatFormat, rounded, roundingStep } from '../oracle/index.js';
import { philoxNormals, philoxWords } from './philox.js';
import { CaseRows, type CheckRow } from './report.js';
import { type CaseContext, tensorOf, valuesOf } from './values.js';

export interface RandomCase {
  readonly name: string;
  readonly shape: readonly number[];
  readonly seed: bigint;
  readonly dtype: FloatFormat;
  readonly mean: number;
  readonly std: number;
}

/** Normals to 1e-6 in units of std, and to half a step of a 16-bit dtype. */
export async function checkRandn(c: RandomCase, context: CaseContext): Promise<CheckRow[]> {
  const { shape, seed, dtype, mean, std } = c;
  const { device } = context;
  const tensor = context.own(Tensor.randn(shape, { seed, dtype, device, mean, std }));
  const want = philoxNormals(seed, tensor.size, mean, std);
  const largest = want.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const limit = 1e-6 * Math.max(std, Math.abs(mean)) + (dtype === 'float32' ? 0 : roundingStep(dtype, largest) / 2);
  const rows = new CaseRows('Tensor.randn', c.name);
  rows.within('values', limit, { got: await valuesOf(tensor), want, shape });
  return rows.rows;
}

/** The generator's words, bit for bit. */
export async function checkRandbits(
  c: Pick<RandomCase, 'name' | 'shape' | 'seed'>,
  context: CaseContext,
): Promise<CheckRow[]> {
  const tensor = context.own(Tensor.randbits(c.shape, { seed: c.seed, device: context.device }));
  const want = Int32Array.from(philoxWords(c.seed, tensor.size));
  const rows = new CaseRows('Tensor.randbits', c.name);
  rows.within('words', 0, { got: await valuesOf(tensor), want, shape: c.shape });
  return rows.rows;
}

export interface CastCase {
  readonly name: string;
  readonly from: DType;
  readonly to: DType;
}

/** Exactly: to nearest even for floats, towards zero and saturated for int32, NaN to NaN or 0. */
export async function checkCast({ name, from, to }: CastCase, context: CaseContext): Promise<CheckRow[]> {
  const values = rounding(castValues(from), from);
  const tensor = context.own(tensorOf(values, [values.length], from, context.device));
  const rows = new CaseRows('Tensor.cast', name);
  const got = await valuesOf(context.own(tensor.cast(to)));
  rows.within('values', 0, { got, want: rounding(values, to), shape: [values.length] });
  return rows.rows;
}

function rounding(values: ArrayLike<number>, dtype: DType): Float64Array {
  return dtype === 'int32' ? Float64Array.from(values, toInt32) : rounded(values, dtype);
}

function toInt32(value: number): number {
  if (Number.isNaN(value)) return 0;
  return Math.trunc(Math.min(Math.max(value, -(2 ** 31)), 2 ** 31 - 1)) + 0; // -0 becomes 0
}

/** Every exponent, each with a tie, its neighbours and random digits; zeros, infinities, NaN. */
function castValues(from: DType): Float64Array {
  if (from === 'int32') {
    const random = philoxWords(99n, 1000).map((word, i) => word >>> (i % 31));
    const edges = [0, 1, 255, 256, 257, 259, 2049, 2051, 65519, 65520, 2 ** 24 + 1, 2 ** 24 + 3, 2 ** 31 - 1, 2 ** 31];
    const all = [...edges, ...random].map((value) => Math.min(value, 2 ** 31 - 1));
    return Float64Array.from([...all, ...all.map((value) => -value), -(2 ** 31)]);
  }
  const random = philoxNormals(98n, 600, 0, 1);
  const positive = [0, Infinity, 65504, 65519.99, 65520, 3.3895e38, 3.4028234663852886e38, 2 ** 31, 2 ** 31 - 128];
  for (let exponent = -149; exponent <= 127; exponent++) {
    const power = 2 ** exponent;
    for (const bits of [7, 10]) {
      const tie = power * (1 + 2 ** -(bits + 1));
      positive.push(tie, tie + power * 2 ** -bits, tie * (1 + 2 ** -22), tie * (1 - 2 ** -22));
    }
    positive.push(power, power * Math.abs(random[exponent + 149]!));
  }
  return Float64Array.from([...positive, ...positive.map((value) => -value), NaN, ...random]);
}
