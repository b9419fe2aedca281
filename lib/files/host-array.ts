/**
 * Arrays as files hold them: dtype, shape and little-endian bytes in host memory. Files know more dtypes than tensors
 * do (see lib/tensor); whatever a tensor cannot hold is still readable as a HostArray.
 *
 * The machines this package runs on (x86-64, arm64) are little-endian, so a typed array over `data` shows the values.
 */
import { freemem, totalmem } from 'node:os';
import { types } from 'node:util';
import { OutOfMemoryError, VsaRangeError, VsaTypeError, show } from '../errors.js';

/** Typed array of each file dtype. float16 and bfloat16 are their bits; bool is one byte per element, 0 or 1. */
interface FileTypedArrays {
  bool: Uint8Array;
  uint8: Uint8Array;
  int8: Int8Array;
  uint16: Uint16Array;
  int16: Int16Array;
  uint32: Uint32Array;
  int32: Int32Array;
  uint64: BigUint64Array;
  int64: BigInt64Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  float32: Float32Array;
  float64: Float64Array;
}

/** The element types files can hold. */
export type FileDType = keyof FileTypedArrays;
export type FileTypedArray<D extends FileDType = FileDType> = FileTypedArrays[D];

interface TypedArrayConstructor {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): FileTypedArray;
}

const CONSTRUCTORS: ReadonlyMap<string, TypedArrayConstructor> = new Map<FileDType, TypedArrayConstructor>([
  ['bool', Uint8Array],
  ['uint8', Uint8Array],
  ['int8', Int8Array],
  ['uint16', Uint16Array],
  ['int16', Int16Array],
  ['uint32', Uint32Array],
  ['int32', Int32Array],
  ['uint64', BigUint64Array],
  ['int64', BigInt64Array],
  ['float16', Uint16Array],
  ['bfloat16', Uint16Array],
  ['float32', Float32Array],
  ['float64', Float64Array],
]);

/** Every file dtype. */
export const FILE_DTYPES = [...CONSTRUCTORS.keys()] as readonly FileDType[];

/** Most dimensions an array in a file may have, as in numpy and PyTorch; a bound on what a hostile header can ask. */
export const MAX_RANK = 64;

/** An array in host memory. */
export interface HostArray {
  readonly dtype: FileDType;
  /** Non-negative integers; `[]` is a scalar. */
  readonly shape: readonly number[];
  /** Little-endian elements, row-major, `product(shape)` times the dtype's size in bytes. */
  readonly data: Uint8Array;
}

/** An array that is made while it is written, so that it never has to be in memory as a whole. */
export interface HostArrayStream {
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  /** The bytes of `HostArray.data` in order, cut anywhere. Read once. */
  readonly chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

function constructorOf(dtype: unknown): TypedArrayConstructor {
  const constructor = typeof dtype === 'string' ? CONSTRUCTORS.get(dtype) : undefined;
  if (constructor !== undefined) return constructor;
  throw new VsaTypeError({
    code: 'ERR_DTYPE',
    argument: 'dtype',
    got: show(dtype),
    wanted: `one of ${FILE_DTYPES.join(', ')}`,
  });
}

/**
 * Bytes per element of a file dtype.
 * @throws VsaTypeError ERR_DTYPE for an unknown dtype.
 */
export function fileDTypeBytes(dtype: FileDType): number {
  return constructorOf(dtype).BYTES_PER_ELEMENT;
}

/**
 * `product(shape)`, or undefined if it is beyond 2^53 - 1. An array with a dimension of 0 has 0 elements, however
 * large its other dimensions are. The dimensions must be non-negative safe integers.
 */
export function countElements(shape: readonly number[]): number | undefined {
  if (shape.includes(0)) return 0;
  let count = 1;
  for (const dim of shape) {
    count *= dim;
    if (count > Number.MAX_SAFE_INTEGER) return undefined;
  }
  return count;
}

/**
 * Bytes of an array of this dtype and shape.
 * @param argument the array's name in the error's sentence
 * @throws VsaTypeError ERR_DTYPE for an unknown dtype; VsaRangeError ERR_SHAPE for a dimension that is not a
 *   non-negative safe integer, for more than 64 dimensions, or for a size beyond 2^53 - 1 bytes.
 */
export function byteLengthOf(dtype: FileDType, shape: readonly number[], argument = 'shape'): number {
  const elementBytes = fileDTypeBytes(dtype);
  if (
    !Array.isArray(shape) ||
    shape.length > MAX_RANK ||
    !shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0)
  ) {
    throw new VsaRangeError({
      code: 'ERR_SHAPE',
      argument,
      got: `shape ${show(shape)}`,
      wanted: `at most ${MAX_RANK} non-negative integers`,
    });
  }
  const bytes = (countElements(shape) ?? Infinity) * elementBytes;
  if (bytes > Number.MAX_SAFE_INTEGER) {
    throw new VsaRangeError({
      code: 'ERR_SHAPE',
      argument,
      got: `shape ${show(shape)}`,
      wanted: `at most 2^53 - 1 bytes of ${dtype}`,
    });
  }
  return bytes;
}

/**
 * Checks that a value is a HostArray whose bytes match its dtype and shape.
 * @param argument the array's name in the error's sentence
 * @returns its byte length
 * @throws VsaTypeError ERR_ARGUMENT or ERR_DTYPE; VsaRangeError ERR_SHAPE.
 */
export function checkHostArray(array: HostArray, argument: string): number {
  const bytes = byteLengthOf(array.dtype, array.shape, argument);
  if (!types.isUint8Array(array.data)) {
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: `${argument}.data`,
      got: show(array.data),
      wanted: 'a Uint8Array of little-endian bytes',
    });
  }
  if (array.data.byteLength !== bytes) {
    throw new VsaRangeError({
      code: 'ERR_SHAPE',
      argument: `${argument}.data`,
      got: `${array.data.byteLength} bytes`,
      wanted: `${bytes} bytes for ${array.dtype} ${show(array.shape)}`,
    });
  }
  return bytes;
}

/** The array's elements as a flat typed array: a view of `data` where its alignment allows, else a copy. */
export function toTypedArray<D extends FileDType>(array: HostArray & { readonly dtype: D }): FileTypedArray<D> {
  checkHostArray(array, 'array');
  const constructor = constructorOf(array.dtype);
  const size = constructor.BYTES_PER_ELEMENT;
  const { data } = array;
  const aligned = data.byteOffset % size === 0 ? data : Uint8Array.from(data);
  const view = new constructor(aligned.buffer, aligned.byteOffset, aligned.byteLength / size);
  return view as FileTypedArray<D>;
}

/**
 * A HostArray over the memory of a typed array (no copy). The element size of the two must agree:
 * `fromTypedArray('bfloat16', [2], new Uint16Array(2))`.
 * @throws VsaTypeError ERR_DTYPE if it does not; VsaRangeError ERR_SHAPE if the length does not match the shape.
 */
export function fromTypedArray<D extends FileDType>(
  dtype: D,
  shape: readonly number[],
  values: FileTypedArray<D>,
): HostArray & { readonly dtype: D } {
  const expected = constructorOf(dtype).name;
  if (!types.isTypedArray(values) || values[Symbol.toStringTag] !== expected) {
    throw new VsaTypeError({
      code: 'ERR_DTYPE',
      argument: 'values',
      got: show(values),
      wanted: `a ${expected} for dtype ${dtype}`,
    });
  }
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const array = { dtype, shape: [...shape], data };
  checkHostArray(array, 'values');
  return array;
}

/** Smaller pieces are not worth asking the system whether it has the memory. Bytes. */
const LARGE_BYTES = 2 ** 26;

/**
 * @internal Zeroed host memory.
 * @param argument what it is for, in the error's sentence
 * @throws OutOfMemoryError if this process cannot have so much in one piece.
 */
export function allocateBytes(byteLength: number, argument: string): Uint8Array<ArrayBuffer> {
  let cause: unknown;
  // Linux grants memory that it does not have and kills the process once it is used: refuse first.
  if (byteLength < LARGE_BYTES || byteLength <= freemem()) {
    try {
      return new Uint8Array(byteLength);
    } catch (error) {
      cause = error;
    }
  }
  const [freeBytes, totalBytes] = [freemem(), totalmem()];
  throw new OutOfMemoryError({
    code: 'ERR_OUT_OF_MEMORY',
    argument,
    got: `no host memory for ${byteLength} bytes in one piece (${freeBytes} of ${totalBytes} are free)`,
    wanted: 'a smaller array, or one that is streamed',
    wantedBytes: byteLength,
    freeBytes,
    totalBytes,
    cause,
  });
}
