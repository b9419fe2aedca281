/** Element types, the typed arrays that carry them, and nothing else. */

import { show, VsaTypeError } from '../errors.js';

/** Element types a tensor may have. */
export type DType = 'float32' | 'bfloat16' | 'float16' | 'int32';

/** What crosses the border: bfloat16 and float16 are their bits in a Uint16Array. */
export type TypedArray = Float32Array | Uint16Array | Int32Array;

/** The numbers of csrc/core/dtype.h. */
const CODES: Readonly<Record<DType, number>> = { float32: 0, bfloat16: 1, float16: 2, int32: 3 };

export const DTYPES = Object.keys(CODES) as readonly DType[];
export const FLOAT_DTYPES: readonly DType[] = ['float32', 'bfloat16', 'float16'];

export function dtypeCode(dtype: DType): number {
  return CODES[dtype];
}

/** Bytes of one element. */
export function dtypeSize(dtype: DType): number {
  return dtype === 'float32' || dtype === 'int32' ? 4 : 2;
}

export function checkDType(argument: string, value: unknown, allowed: readonly DType[] = DTYPES): DType {
  if (typeof value === 'string' && (allowed as readonly string[]).includes(value)) return value as DType;
  throw new VsaTypeError({
    code: 'ERR_DTYPE',
    argument,
    got: show(value),
    wanted: `one of ${allowed.map((dtype) => `'${dtype}'`).join(', ')}`,
  });
}

/** A view of raw bytes as the dtype's typed array; no copy. */
export function typedView(dtype: DType, buffer: ArrayBuffer): TypedArray {
  switch (dtype) {
    case 'float32':
      return new Float32Array(buffer);
    case 'int32':
      return new Int32Array(buffer);
    case 'bfloat16':
    case 'float16':
      return new Uint16Array(buffer);
  }
}
