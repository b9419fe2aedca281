/** Host data on its way into a tensor. */

import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import type { DType, TypedArray } from './dtype.js';

/** What tensors take from the host. */
export type HostData = Float32Array | Float64Array | Uint16Array | Int32Array | readonly number[];

/**
 * The array to upload for some data, and its dtype there; the tensor casts from that to what was asked for. The kind
 * is asked of the array's tag, not its class: typed arrays may come from another realm.
 *
 * @param argument Names the data in errors.
 */
export function toHostArray(
  data: HostData,
  dtype: DType | undefined,
  argument: 'data' | 'source',
): { array: TypedArray; dtype: DType } {
  const kind: string = Array.isArray(data) ? 'Array' : (data as Float32Array)[Symbol.toStringTag];
  switch (kind) {
    case 'Float32Array':
      return { array: data as Float32Array, dtype: 'float32' };
    case 'Int32Array':
      return { array: data as unknown as Int32Array, dtype: 'int32' };
    case 'Float64Array':
    case 'Array': {
      if (Array.isArray(data)) checkNumbers(data as unknown[], argument);
      // Whole numbers beyond 2^24 would not survive a float32.
      if (dtype === 'int32') return { array: Int32Array.from(data, toInt32), dtype: 'int32' };
      const array = new Float32Array(data);
      if (dtype === 'bfloat16' || dtype === 'float16') roundToOdd(data, array);
      return { array, dtype: 'float32' };
    }
    case 'Uint16Array':
    case 'Float16Array': {
      const bits = kind === 'Float16Array' ? 'float16' : dtype;
      if (bits !== 'bfloat16' && bits !== 'float16') {
        throw new VsaTypeError({
          code: 'ERR_DTYPE',
          argument: argument === 'data' ? 'dtype' : argument,
          got: `${show(dtype)} with a Uint16Array`,
          wanted: "'bfloat16' or 'float16': it holds their bits",
        });
      }
      const array = data as Uint16Array;
      return { array: new Uint16Array(array.buffer, array.byteOffset, array.length), dtype: bits };
    }
    default:
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument,
        got: show(data),
        wanted: `${argument === 'data' ? 'numbers' : 'a Tensor'}, a Float32Array, Float64Array, Uint16Array or Int32Array`,
      });
  }
}

/** As the cast does: truncated and saturated, NaN becomes 0. */
export function toInt32(value: number): number {
  return Number.isNaN(value) ? 0 : Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, Math.trunc(value)));
}

/**
 * Where a float32 is not the value itself, makes it the one next to it with an odd significand: rounding that to 16
 * bits is rounding the value, while the nearest float32 may lie in the middle of two and fall to the wrong side.
 */
function roundToOdd(values: ArrayLike<number>, floats: Float32Array): void {
  const bits = new Uint32Array(floats.buffer);
  for (let i = 0; i < floats.length; i++) {
    const [value, nearest] = [values[i]!, floats[i]!];
    if (nearest === value || Number.isNaN(value)) continue;
    // One step towards zero, in the order of magnitudes that the bits are.
    if (Math.abs(nearest) > Math.abs(value)) bits[i]!--;
    bits[i]! |= 1;
  }
}

function checkNumbers(data: readonly unknown[], argument: string): void {
  const at = data.findIndex((value) => typeof value !== 'number');
  if (at === -1) return;
  throw new VsaTypeError({
    code: 'ERR_ARGUMENT',
    argument: `${argument}[${String(at)}]`,
    got: show(data[at]),
    wanted: 'a number',
  });
}

/** A seed, 0 without one. */
export function parseSeed(seed: unknown = 0): bigint {
  const value = typeof seed === 'number' && Number.isSafeInteger(seed) ? BigInt(seed) : seed;
  if (typeof value === 'bigint' && value >= 0n && value < 1n << 64n) return value;
  throw new VsaRangeError({
    code: 'ERR_ARGUMENT',
    argument: 'seed',
    got: show(seed),
    wanted: 'a whole number from 0 to 2^64 - 1',
  });
}
