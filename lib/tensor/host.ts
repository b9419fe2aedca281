/** Host data on its way into a tensor. */

import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import type { DType, TypedArray } from './dtype.js';

/** The bytes of a typed array; no copy. */
export function bytesOf(array: TypedArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/**
 * The array to upload for some data, and its dtype there; the tensor casts from that to what was asked for. The kind
 * is asked of the array's tag, not its class: typed arrays may come from another realm.
 */
export function toHostArray(
  data: Float32Array | Float64Array | Uint16Array | Int32Array | readonly number[],
  dtype: DType | undefined,
): { array: TypedArray; dtype: DType } {
  const kind: string = Array.isArray(data) ? 'Array' : (data as Float32Array)[Symbol.toStringTag];
  switch (kind) {
    case 'Float32Array':
      return { array: data as Float32Array, dtype: 'float32' };
    case 'Int32Array':
      return { array: data as unknown as Int32Array, dtype: 'int32' };
    case 'Float64Array':
    case 'Array':
      if (Array.isArray(data)) checkNumbers(data as unknown[]);
      // Whole numbers beyond 2^24 would not survive a float32.
      return dtype === 'int32'
        ? { array: Int32Array.from(data, saturate), dtype: 'int32' }
        : { array: Float32Array.from(data), dtype: 'float32' };
    case 'Uint16Array':
    case 'Float16Array': {
      const bits = kind === 'Float16Array' ? 'float16' : dtype;
      if (bits !== 'bfloat16' && bits !== 'float16') {
        throw new VsaTypeError({
          code: 'ERR_DTYPE',
          argument: 'dtype',
          got: show(dtype),
          wanted: "'bfloat16' or 'float16' with a Uint16Array: it holds their bits",
        });
      }
      const array = data as Uint16Array;
      return { array: new Uint16Array(array.buffer, array.byteOffset, array.length), dtype: bits };
    }
    default:
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: 'data',
        got: `a ${kind}`,
        wanted: 'numbers, a Float32Array, Float64Array, Uint16Array or Int32Array',
      });
  }
}

function saturate(value: number): number {
  return Number.isNaN(value) ? 0 : Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, Math.trunc(value)));
}

function checkNumbers(data: readonly unknown[]): void {
  const at = data.findIndex((value) => typeof value !== 'number');
  if (at === -1) return;
  throw new VsaTypeError({
    code: 'ERR_ARGUMENT',
    argument: `data[${String(at)}]`,
    got: show(data[at]),
    wanted: 'a number',
  });
}

export function parseSeed(seed: unknown): bigint {
  const value = typeof seed === 'number' && Number.isSafeInteger(seed) ? BigInt(seed) : seed;
  if (typeof value === 'bigint' && value >= 0n && value < 1n << 64n) return value;
  throw new VsaRangeError({
    code: 'ERR_ARGUMENT',
    argument: 'seed',
    got: show(seed),
    wanted: 'a whole number from 0 to 2^64 - 1',
  });
}
