/** numpy's .npy files, read and written: one array each. Versions 1.0, 2.0 and 3.0. */
import type { FileHandle } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { show } from '../errors.js';
import { writeFileAtomic } from './atomic.js';
import { allocateBytes, countElements, fileDTypeBytes, type HostArray } from './host-array.js';
import { formatError, openForReading, readExactly } from './io.js';
import { makeNpyHeader, parseNpyHeader, type NpyHeader } from './npy-header.js';
import { checkSource, sourceBytes, type HostArraySource } from './source.js';

/** Longest header in bytes; one of 64 dimensions takes less than 2 KB. */
const MAX_HEADER_BYTES = 1 << 16;
const MAGIC = '\x93NUMPY';
/** Magic, version, and a length of two bytes, or four since version 2.0. */
const PREFIX_BYTES = 12;
/** Bytes or elements converted between two turns of the event loop. */
const STEP = 1 << 20;

async function readHeader(
  handle: FileHandle,
  size: number,
  path: string,
): Promise<{ header: NpyHeader; dataOffset: number }> {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  await readExactly(handle, path, prefix.subarray(0, Math.min(size, PREFIX_BYTES)), 0);
  if (prefix.toString('latin1', 0, MAGIC.length) !== MAGIC || size < PREFIX_BYTES) {
    const got = size < PREFIX_BYTES ? `a file of ${String(size)} bytes` : 'a file of another kind';
    throw formatError(path, got, 'a numpy file, which begins with "\\x93NUMPY", version and length');
  }
  const [major, minor] = [prefix.readUInt8(6), prefix.readUInt8(7)];
  if (major < 1 || major > 3 || minor !== 0) {
    throw formatError(path, `version ${String(major)}.${String(minor)}`, 'version 1.0, 2.0 or 3.0');
  }
  const length = major === 1 ? prefix.readUInt16LE(8) : prefix.readUInt32LE(8);
  if (length > MAX_HEADER_BYTES) {
    throw formatError(path, `a header of ${String(length)} bytes`, `at most ${String(MAX_HEADER_BYTES)}`);
  }
  const headerOffset = major === 1 ? 10 : PREFIX_BYTES;
  const dataOffset = headerOffset + length;
  if (dataOffset > size) {
    throw formatError(
      path,
      `a header that ends at byte ${String(dataOffset)}`,
      `at most ${String(size)}, the file's size`,
    );
  }
  const bytes = Buffer.alloc(length);
  await readExactly(handle, path, bytes, headerOffset);
  let text: string;
  try {
    text = major < 3 ? bytes.toString('latin1') : new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw formatError(path, 'a header that is not UTF-8', 'a Python dict in UTF-8', cause);
  }
  return { header: parseNpyHeader(text, path), dataOffset };
}

/** Reverses the bytes of every element, in place. */
async function swapBytes(data: Uint8Array, elementBytes: number): Promise<void> {
  for (let begin = 0; begin < data.byteLength; begin += STEP) {
    const length = Math.min(STEP, data.byteLength - begin);
    const part = Buffer.from(data.buffer, data.byteOffset + begin, length);
    if (elementBytes === 2) part.swap16();
    else if (elementBytes === 4) part.swap32();
    else part.swap64();
    await nextTurn();
  }
}

/** Units of one, two or four bytes for copying elements; eight bytes are two units of four. */
function units(data: Uint8Array<ArrayBuffer>, elementBytes: number): Uint8Array | Uint16Array | Uint32Array {
  if (elementBytes === 1) return data;
  return elementBytes === 2 ? new Uint16Array(data.buffer) : new Uint32Array(data.buffer);
}

/**
 * A column-major array as a row-major copy. `data` begins at byte 0 of its memory.
 * Walks the destination in order; the source index follows by the strides of the dimensions that turned over.
 */
async function toRowMajor(
  data: Uint8Array<ArrayBuffer>,
  shape: readonly number[],
  elementBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const dims = shape.filter((dim) => dim !== 1);
  if (data.byteLength === 0 || dims.length < 2) return data;
  const result = allocateBytes(data.byteLength, 'the array in row-major order');
  const source = units(data, elementBytes);
  const target = units(result, elementBytes);
  const width = elementBytes === 8 ? 2 : 1;

  const strides: number[] = [];
  dims.reduce((stride, dim) => (strides.push(stride), stride * dim), width);
  const innerDim = dims[dims.length - 1] ?? 1;
  const innerStride = strides[dims.length - 1] ?? width;
  const index = dims.map(() => 0);
  let base = 0;
  let turnAt = STEP;
  for (let out = 0; out < target.length;) {
    for (let i = 0; i < innerDim;) {
      const stop = Math.min(innerDim, i + STEP);
      for (let from = base + i * innerStride; i < stop; i++, from += innerStride) {
        for (let part = 0; part < width; part++) target[out++] = source[from + part] ?? 0;
      }
      if (out < turnAt) continue;
      turnAt = out + STEP;
      await nextTurn();
    }
    for (let axis = dims.length - 2; axis >= 0; axis--) {
      const [dim, stride, at] = [dims[axis] ?? 1, strides[axis] ?? 0, (index[axis] ?? 0) + 1];
      index[axis] = at < dim ? at : 0;
      base += at < dim ? stride : -stride * (dim - 1);
      if (at < dim) break;
    }
  }
  return result;
}

/**
 * Reads a numpy file. Big-endian data is converted, as is column-major order (`fortran_order`); the result is always
 * little-endian and row-major.
 * @throws VsaError ERR_FILE if the file cannot be read; ERR_FILE_FORMAT if it is no valid numpy file of one numeric
 *   array, with nothing after it; OutOfMemoryError. VsaTypeError ERR_ARGUMENT if `path` is no string.
 */
export async function readNpy(path: string): Promise<HostArray> {
  const { handle, size } = await openForReading(path);
  try {
    const { header, dataOffset } = await readHeader(handle, size, path);
    const { dtype, shape, bigEndian, fortranOrder } = header;
    const elementBytes = fileDTypeBytes(dtype);
    const bytes = (countElements(shape) ?? Infinity) * elementBytes;
    if (bytes !== size - dataOffset) {
      const wanted = bytes > Number.MAX_SAFE_INTEGER ? 'less than 2^53 bytes' : `${String(bytes)} bytes`;
      throw formatError(path, `${String(size - dataOffset)} bytes of data`, `${wanted} for ${dtype} ${show(shape)}`);
    }
    const data = allocateBytes(bytes, path);
    await readExactly(handle, path, data, dataOffset);
    if (bigEndian) await swapBytes(data, elementBytes);
    return { dtype, shape, data: fortranOrder ? await toRowMajor(data, shape, elementBytes) : data };
  } finally {
    await handle.close();
  }
}

async function* fileBytes(header: Uint8Array, array: HostArraySource, byteLength: number): AsyncGenerator<Uint8Array> {
  yield header;
  yield* sourceBytes(array, byteLength, 'array');
}

/**
 * Writes a numpy file, version 1.0, little-endian, row-major. It appears complete or not at all (see
 * writeFileAtomic).
 * @throws VsaTypeError ERR_DTYPE for bfloat16, which numpy does not have; ERR_ARGUMENT, VsaRangeError ERR_SHAPE for
 *   what is no array; VsaError ERR_FILE if the system refuses; whatever a stream throws.
 */
export async function writeNpy(path: string, array: HostArraySource): Promise<void> {
  const byteLength = checkSource(array, 'array');
  await writeFileAtomic(path, fileBytes(makeNpyHeader(array.dtype, array.shape), array, byteLength));
}
