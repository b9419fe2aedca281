/** Numbers on their way to a device and back: inputs that the oracle knows exactly, and outputs as float64. */

import { type Device, type DType, type Order, Tensor } from '../index.js';
import {
  decodeArray,
  encodeArray,
  EXACT,
  type FloatFormat,
  fromTiled,
  layoutOf,
  type OracleGrid,
  type Precision,
  samePrecision,
  toTiled,
} from '../oracle/index.js';
import { philoxIntegers } from './philox.js';

interface Disposable {
  dispose(): void;
}

/** 'cuda': the portable kernels, also where Hopper's own would serve. */
export type CheckBackend = 'auto' | 'cpu' | 'cuda';

/** Where one case runs: its device, its random numbers, and what it must give back at its end. */
export class CaseContext {
  readonly #owned: Disposable[] = [];
  #seed: bigint;

  constructor(
    readonly device: Device,
    seed: number | bigint,
    /** What fine attention is asked to run on. */
    readonly backend: CheckBackend = 'auto',
  ) {
    this.#seed = BigInt(seed);
  }

  /** Every call another stream of random numbers, the same ones in every run. */
  nextSeed(): bigint {
    this.#seed = BigInt.asUintN(64, this.#seed + 1n);
    return this.#seed;
  }

  /** Whole numbers from 0 to below the argument. */
  integers(): (n: number) => number {
    return philoxIntegers(this.nextSeed());
  }

  /** Disposed at the end of the case. */
  own<T extends Disposable>(resource: T): T {
    this.#owned.push(resource);
    return resource;
  }

  /** All of them; what is absent is no matter. */
  ownAll(...resources: readonly (Disposable | undefined)[]): void {
    for (const resource of resources) if (resource !== undefined) this.own(resource);
  }

  dispose(): void {
    for (const resource of this.#owned.splice(0)) resource.dispose();
  }
}

/** A tensor and its values; tokens in grid order, whatever order the tensor has. */
export interface Input {
  readonly tensor: Tensor;
  readonly values: Float64Array;
}

/** A tensor of tokens, `[batch, rows of the grid, heads, headDim]`. */
export interface TokenShape {
  readonly batch: number;
  readonly heads: number;
  readonly headDim: number;
  readonly grid: OracleGrid;
  readonly order: Order;
}

/** The values of a tensor, exactly. */
export async function valuesOf(tensor: Tensor): Promise<Float64Array> {
  const { dtype } = tensor;
  const data = await tensor.data();
  return dtype === 'bfloat16' || dtype === 'float16'
    ? decodeArray(data as Uint16Array, dtype)
    : Float64Array.from(data);
}

/** A tensor of values that its dtype holds exactly. */
export function tensorOf(values: Float64Array, shape: readonly number[], dtype: DType, device: Device): Tensor {
  const options = { dtype, device };
  if (dtype === 'bfloat16' || dtype === 'float16') return Tensor.from(encodeArray(values, dtype), shape, options);
  return Tensor.from(dtype === 'float32' ? Float32Array.from(values) : Int32Array.from(values), shape, options);
}

/** Normally distributed values, rounded to the dtype on the device; the oracle gets the rounded ones. */
export async function randomTensor(
  context: CaseContext,
  shape: readonly number[],
  dtype: FloatFormat = 'float32',
  std = 1,
): Promise<Input> {
  const { device } = context;
  const tensor = context.own(Tensor.randn(shape, { dtype, device, std, seed: context.nextSeed() }));
  return { tensor, values: await valuesOf(tensor) };
}

/** Random tokens. In tiled order the padding slots hold `padding`, which must not reach any result. */
export async function randomTokens(
  context: CaseContext,
  shape: TokenShape,
  dtype: FloatFormat,
  std = 1,
  padding = NaN,
): Promise<Input> {
  const { batch, heads, headDim, grid, order } = shape;
  const { length, slots } = layoutOf(grid);
  const inGridOrder = await randomTensor(context, [batch, length, heads, headDim], dtype, std);
  if (order === 'grid') return inGridOrder;
  const tiled = toTiled(inGridOrder.values, grid, { outer: batch, rowSize: heads * headDim }, padding);
  const tensor = context.own(tensorOf(tiled, [batch, slots, heads, headDim], dtype, context.device));
  return { tensor, values: inGridOrder.values };
}

/** What the oracle computes exactly, and what it computes with the roundings of a format: the measure of the error. */
export function twice<T>(own: Precision, compute: (precision: Precision) => T): { reference: T; own: T } {
  return { reference: compute(EXACT), own: compute(own) };
}

/**
 * The same-precision reference of attention over tensors of a format. As in the code it judges, lse is rounded to
 * float32 and scores enter the softmax by a fused multiply-add, unrounded. (Were both rounded, the backward of a query
 * with one key would be exact by luck, S - lse = 0, where others have what an lse of hundreds costs in float32.)
 */
export function ownPrecision(format: FloatFormat): Precision {
  return { ...samePrecision(format), scores: 'float64' };
}

/** Whether attention on a device rounds P and dS to the format of its inputs: tensor cores take nothing wider. */
export function roundsOperands(device: Device, format: FloatFormat): boolean {
  return device.type === 'cuda' && format !== 'float32';
}

/** `twice` for attention on a device, and where it rounds P and dS a third time: see lib/oracle/compare.ts. */
export function attentionReferences<T>(
  device: Device,
  format: FloatFormat,
  compute: (precision: Precision) => T,
): { reference: T; own: T; roundedScores: T | undefined } {
  const rounded = roundsOperands(device, format) ? compute(samePrecision(format, { scores: true })) : undefined;
  return { ...twice(ownPrecision(format), compute), roundedScores: rounded };
}

/** Tokens read back to grid order. */
export interface Output {
  readonly values: Float64Array;
  /** What is wrong with the padding, if anything is. */
  readonly problem: string | undefined;
}

/** A token tensor `[batch, rows, heads, headDim]`, or with `lse` one of `[batch, heads, rows]`. */
export async function readTokens(
  tensor: Tensor,
  shape: TokenShape,
  kind: 'tokens' | 'lse' = 'tokens',
): Promise<Output> {
  const { batch, heads, headDim, grid, order } = shape;
  const values = await valuesOf(tensor);
  if (order === 'grid') return { values, problem: undefined };
  const [rows, padding] =
    kind === 'lse'
      ? [{ outer: batch * heads, rowSize: 1 }, -Infinity]
      : [{ outer: batch, rowSize: heads * headDim }, 0];
  return { values: fromTiled(values, grid, rows), problem: paddingProblem(values, grid, rows, padding) };
}

function paddingProblem(
  values: Float64Array,
  grid: OracleGrid,
  { outer, rowSize }: { outer: number; rowSize: number },
  wanted: number,
): string | undefined {
  const { slots, slotOfToken } = layoutOf(grid);
  const valid = new Uint8Array(slots);
  for (const slot of slotOfToken) valid[slot] = 1;
  for (let o = 0; o < outer; o++) {
    for (let slot = 0; slot < slots; slot++) {
      if (valid[slot] === 1) continue;
      const at = (o * slots + slot) * rowSize;
      const stray = values.subarray(at, at + rowSize).find((value) => value !== wanted);
      if (stray !== undefined) return `padding slot ${slot}: got ${stray}, wanted ${wanted}`;
    }
  }
  return undefined;
}
