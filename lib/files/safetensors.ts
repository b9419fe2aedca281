/**
 * safetensors files, read and written tensor by tensor: eight bytes of header length (little-endian), the header
 * (see safetensors-header.ts), the tensors' bytes. Python's safetensors reads what this writes and the other way round.
 */
import type { FileHandle } from 'node:fs/promises';
import { types } from 'node:util';
import { VsaRangeError, VsaTypeError, show } from '../errors.js';
import { checkOptions } from '../validate.js';
import { writeFileAtomic } from './atomic.js';
import { allocateBytes, fileDTypeBytes, type HostArray } from './host-array.js';
import { formatError, openForReading, quote, readExactly } from './io.js';
import { checkSource, entriesOf, sourceBytes, type HostArraySource, type Named } from './source.js';
import {
  MAX_HEADER_BYTES,
  makeHeader,
  parseHeader,
  writingOrder,
  type SafetensorsHeader,
  type TensorInfo,
} from './safetensors-header.js';

const LENGTH_BYTES = 8;
const STREAM_BYTES = 1 << 23;

/** Reads and checks everything but the tensors' bytes. Allocates nothing before the file is known to hold it. */
async function readHeader(handle: FileHandle, size: number, path: string): Promise<SafetensorsHeader> {
  if (size < LENGTH_BYTES) throw formatError(path, `a file of ${size} bytes`, 'at least 8, the length of the header');
  const first = Buffer.alloc(Math.min(size, LENGTH_BYTES + 1));
  await readExactly(handle, path, first, 0);
  const length = first.readBigUInt64LE(0);
  if (length > MAX_HEADER_BYTES) {
    throw formatError(path, `a header of ${length} bytes`, `at most ${MAX_HEADER_BYTES}`);
  }
  const dataOffset = LENGTH_BYTES + Number(length);
  if (dataOffset > size) {
    throw formatError(path, `a header that ends at byte ${dataOffset}`, `at most ${size}, the file's size`);
  }
  if (length === 0n || first[LENGTH_BYTES] !== 0x7b) {
    throw formatError(path, 'a header that does not begin with "{"', 'a JSON object');
  }
  const bytes = allocateBytes(Number(length), path);
  await readExactly(handle, path, bytes, LENGTH_BYTES);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw formatError(path, 'a header that is not UTF-8', 'a JSON object in UTF-8', cause);
  }
  return parseHeader(text, dataOffset, size, path);
}

/**
 * An open safetensors file. Opening reads and checks the header alone; tensors are read when asked for, as a whole
 * or in chunks. Several reads may run at once. Close it, or declare it with `await using`.
 */
export class SafetensorsFile {
  private open_ = true;

  private constructor(
    readonly path: string,
    private readonly handle: FileHandle,
    private readonly header: SafetensorsHeader,
  ) {}

  /**
   * Opens a file and checks that its header describes it completely.
   * @throws VsaError ERR_FILE if the file cannot be read; ERR_FILE_FORMAT if it is no valid safetensors file;
   *   ERR_OUT_OF_MEMORY. VsaTypeError ERR_ARGUMENT if `path` is no string.
   */
  static async open(path: string): Promise<SafetensorsFile> {
    const { handle, size } = await openForReading(path);
    try {
      return new SafetensorsFile(path, handle, await readHeader(handle, size, path));
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** The file's free-form text entries; a record without a prototype. */
  get metadata(): Readonly<Record<string, string>> {
    return this.header.metadata;
  }

  /** Names of the tensors, in the order of their bytes. */
  names(): string[] {
    return [...this.header.tensors.keys()];
  }

  has(name: string): boolean {
    return this.header.tensors.has(name);
  }

  /**
   * Dtype, shape and place of a tensor.
   * @throws VsaRangeError ERR_ARGUMENT if there is no tensor of this name.
   */
  info(name: string): TensorInfo {
    const info = this.header.tensors.get(name);
    if (info !== undefined) return info;
    const names = this.names();
    const some = names.slice(0, 8).map(quote).join(', ');
    throw new VsaRangeError({
      code: 'ERR_ARGUMENT',
      argument: 'name',
      got: typeof name === 'string' ? quote(name) : show(name),
      wanted: names.length > 8 ? `one of ${names.length} tensors: ${some}, ...` : `a tensor of the file: ${some}`,
    });
  }

  private checkOpen(): void {
    if (this.open_) return;
    throw new VsaTypeError({ code: 'ERR_DISPOSED', argument: this.path, got: 'a closed file', wanted: 'an open one' });
  }

  /**
   * Reads a tensor into memory of its own.
   * @throws OutOfMemoryError if it is too large for one piece of memory (then `stream` it); VsaError ERR_FILE or
   *   ERR_FILE_FORMAT; VsaRangeError ERR_ARGUMENT for an unknown name; VsaTypeError ERR_DISPOSED after `close`.
   */
  async read(name: string): Promise<HostArray> {
    this.checkOpen();
    const { dtype, shape, byteLength } = this.info(name);
    const data = allocateBytes(byteLength, `${this.path}: tensor ${quote(name)}`);
    await this.readInto(name, data);
    return { dtype, shape, data };
  }

  /**
   * Reads a tensor into memory the caller has, of exactly `info(name).byteLength` bytes.
   * @throws as `read`, and VsaRangeError ERR_SHAPE for memory of another size.
   */
  async readInto(name: string, target: Uint8Array): Promise<void> {
    this.checkOpen();
    const { offset, byteLength } = this.info(name);
    if (!types.isUint8Array(target) || target.byteLength !== byteLength) {
      throw new VsaRangeError({
        code: 'ERR_SHAPE',
        argument: 'target',
        got: types.isUint8Array(target) ? `${target.byteLength} bytes` : show(target),
        wanted: `a Uint8Array of ${byteLength} bytes for tensor ${quote(name)}`,
      });
    }
    await readExactly(this.handle, this.path, target, offset);
  }

  /**
   * A tensor's bytes in order, in chunks of whole elements, each in memory of its own: a tensor of any size passes
   * through without being in memory. An empty tensor has no chunks.
   * @param chunkBytes size of all chunks but the last, rounded down to whole elements; 8 MiB unless given
   * @throws as `read`, and VsaRangeError ERR_ARGUMENT for a chunk size that is no positive integer.
   */
  stream(name: string, chunkBytes: number = STREAM_BYTES): AsyncIterable<Uint8Array> {
    this.checkOpen();
    const info = this.info(name);
    if (!Number.isSafeInteger(chunkBytes) || chunkBytes < 1) {
      throw new VsaRangeError({
        code: 'ERR_ARGUMENT',
        argument: 'chunkBytes',
        got: show(chunkBytes),
        wanted: 'a positive integer',
      });
    }
    const size = fileDTypeBytes(info.dtype);
    return this.chunks(info, Math.max(size, chunkBytes - (chunkBytes % size)));
  }

  private async *chunks({ offset, byteLength }: TensorInfo, chunkBytes: number): AsyncGenerator<Uint8Array> {
    for (let done = 0; done < byteLength; done += chunkBytes) {
      this.checkOpen();
      const chunk = allocateBytes(Math.min(chunkBytes, byteLength - done), this.path);
      await readExactly(this.handle, this.path, chunk, offset + done);
      yield chunk;
    }
  }

  /** Closes the file when the reads under way have ended. Closing again does nothing. */
  async close(): Promise<void> {
    if (!this.open_) return;
    this.open_ = false;
    await this.handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Reads a whole safetensors file.
 * @throws as SafetensorsFile.open and SafetensorsFile.read.
 */
export async function readSafetensors(
  path: string,
): Promise<{ tensors: Map<string, HostArray>; metadata: Readonly<Record<string, string>> }> {
  const file = await SafetensorsFile.open(path);
  try {
    const tensors = new Map<string, HostArray>();
    for (const name of file.names()) tensors.set(name, await file.read(name));
    return { tensors, metadata: file.metadata };
  } finally {
    await file.close();
  }
}

interface WriteItem {
  readonly name: string;
  readonly dtype: HostArray['dtype'];
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly source: HostArraySource;
}

async function* fileBytes(header: Uint8Array, items: readonly WriteItem[]): AsyncGenerator<Uint8Array> {
  yield header;
  for (const { name, source, byteLength } of items) {
    yield* sourceBytes(source, byteLength, `tensors[${quote(name)}]`);
  }
}

/**
 * Writes a safetensors file. The same tensors and metadata give the same bytes, whatever the order they come in. The
 * file appears complete or not at all (see writeFileAtomic); sources are read one after the other, in the order of
 * the file: by dtype from the widest on, then by name. Arrays must not change until the promise settles.
 * @param tensors by name, as a Map or a plain object; streams need not be in memory as a whole
 * @param options.metadata text entries to store with the tensors
 * @throws VsaTypeError or VsaRangeError (ERR_ARGUMENT, ERR_DTYPE, ERR_SHAPE) for what cannot be written or a stream
 *   that has not the bytes its shape wants; VsaError ERR_FILE if the system refuses; whatever a stream throws.
 */
export async function writeSafetensors(
  path: string,
  tensors: Named<HostArraySource>,
  options: { metadata?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  checkOptions('options', options, ['metadata']);
  const items = entriesOf(tensors, 'tensors').map(([name, source]): WriteItem => {
    const byteLength = checkSource(source, `tensors[${quote(name)}]`);
    return { name, dtype: source.dtype, shape: [...source.shape], byteLength, source };
  });
  const ordered = writingOrder(items);
  await writeFileAtomic(path, fileBytes(makeHeader(ordered, options.metadata ?? {}), ordered));
}
