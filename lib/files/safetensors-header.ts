/**
 * The header of a safetensors file: `{name: {"dtype": "BF16", "shape": [..], "data_offsets": [begin, end]}, ...,
 * "__metadata__": {string: string}}`, with offsets into the buffer that follows the header.
 *
 * The parser knows this schema and nothing else. A general JSON parser would keep the last of duplicate names without
 * a word and build whatever a header of 100 MB describes before it could be looked at; this one stops at the first
 * byte that does not belong.
 */
import { VsaRangeError, VsaTypeError, show } from '../errors.js';
import { MAX_RANK, byteLengthOf, countElements, fileDTypeBytes, type FileDType } from './host-array.js';
import { checkObject, formatError, isIterable, quote } from './io.js';
import { JsonScanner, isWellFormed } from './json-scanner.js';

/** Longest header in bytes, the limit of the format's reference implementation. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Most tensors, and most metadata entries, in one file: keeps the memory that a header can ask for in bounds. */
export const MAX_ENTRIES = 1 << 18;

/** Where a tensor lies in the file. */
export interface TensorInfo {
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface SafetensorsHeader {
  /** In the order of their bytes in the file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Without a prototype, so that any key is just a key. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** The format's names of the dtypes, by descending alignment: the order in which tensors are written. */
const FORMAT_NAMES: readonly (readonly [FileDType, string])[] = [
  ['uint64', 'U64'],
  ['int64', 'I64'],
  ['float64', 'F64'],
  ['float32', 'F32'],
  ['uint32', 'U32'],
  ['int32', 'I32'],
  ['bfloat16', 'BF16'],
  ['float16', 'F16'],
  ['uint16', 'U16'],
  ['int16', 'I16'],
  ['int8', 'I8'],
  ['uint8', 'U8'],
  ['bool', 'BOOL'],
];
const DTYPE_OF: ReadonlyMap<string, FileDType> = new Map(FORMAT_NAMES.map(([dtype, name]) => [name, dtype]));
const METADATA = '__metadata__';

/** An entry as the header has it: offsets are relative to the buffer. */
interface Entry {
  readonly name: string;
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

function parseEntry(scanner: JsonScanner, name: string): Entry {
  const what = (): string => `tensor ${quote(name)}`;
  const fields: { dtype?: FileDType; shape?: number[]; data_offsets?: number[] } = {};
  scanner.object(what, (key) => {
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets') {
      return scanner.fail(`${quote(key)} in ${what()}`, 'dtype, shape and data_offsets only');
    }
    if (fields[key] !== undefined) return scanner.fail(`${quote(key)} twice in ${what()}`, 'every name once');
    if (key === 'dtype') {
      const text = scanner.string(() => `the dtype of ${what()} as a string`);
      const known = DTYPE_OF.get(text);
      fields.dtype =
        known ?? scanner.fail(`dtype ${quote(text)} in ${what()}`, `one of ${[...DTYPE_OF.keys()].join(', ')}`);
    } else {
      fields[key] = scanner.integers(() => `the ${key} of ${what()}`, key === 'shape' ? MAX_RANK : 2);
    }
  });
  const { dtype, shape } = fields;
  const [begin, end] = fields.data_offsets ?? [];
  if (dtype === undefined || shape === undefined || begin === undefined || end === undefined) {
    const missing = dtype === undefined ? 'dtype' : shape === undefined ? 'shape' : 'two data_offsets';
    return scanner.fail(`no ${missing} in ${what()}`, 'dtype, shape and data_offsets [begin, end]');
  }
  return { name, dtype, shape, begin, end };
}

/** Offsets that fit dtype and shape and lie in the buffer. Overlaps and holes are the caller's to find. */
function checkEntry({ name, dtype, shape, begin, end }: Entry, bufferBytes: number, path: string): void {
  const fail = (fault: string, wanted: string): never => {
    throw formatError(path, `tensor ${quote(name)} with data_offsets [${begin}, ${end}]${fault}`, wanted);
  };
  if (begin > end) fail('', 'begin <= end');
  if (end > bufferBytes) fail('', `offsets within the ${bufferBytes} bytes after the header`);
  const bytes = (countElements(shape) ?? Infinity) * fileDTypeBytes(dtype);
  if (bytes > Number.MAX_SAFE_INTEGER) fail(` and shape ${show(shape)} of ${dtype}`, 'a size below 2^53 bytes');
  if (bytes !== end - begin) fail(`, ${end - begin} bytes`, `${bytes} bytes for ${dtype} ${show(shape)}`);
}

/**
 * Reads and checks a header.
 * @param text the header, decoded
 * @param dataOffset bytes before the buffer: 8 and the header's length
 * @param fileSize in bytes
 * @param path names the file in errors
 * @throws VsaError ERR_FILE_FORMAT unless the tensors cover the rest of the file exactly, without overlap or hole.
 */
export function parseHeader(text: string, dataOffset: number, fileSize: number, path: string): SafetensorsHeader {
  const bufferBytes = fileSize - dataOffset;
  const scanner = new JsonScanner(text, path);
  const metadata = new Map<string, string>();
  const entries = new Map<string, Entry>();
  let hasMetadata = false;

  const checkNew = (known: ReadonlyMap<string, unknown>, key: string, what: string): void => {
    if (known.has(key)) scanner.fail(`${quote(key)} twice in ${what}`, 'every name once');
    if (known.size === MAX_ENTRIES) scanner.fail(`more than ${MAX_ENTRIES} names in ${what}`, `at most ${MAX_ENTRIES}`);
  };
  scanner.object(
    () => 'the header',
    (name) => {
      if (name !== METADATA) {
        checkNew(entries, name, 'the header');
        const entry = parseEntry(scanner, name);
        checkEntry(entry, bufferBytes, path);
        entries.set(name, entry);
        return;
      }
      if (hasMetadata) scanner.fail(`"${METADATA}" twice in the header`, 'every name once');
      hasMetadata = true;
      scanner.object(
        () => METADATA,
        (key) => {
          checkNew(metadata, key, METADATA);
          metadata.set(
            key,
            scanner.string(() => `a string for ${quote(key)} in ${METADATA}`),
          );
        },
      );
    },
  );
  scanner.end();

  const inOrder = [...entries.values()].sort((a, b) => a.begin - b.begin || a.end - b.end);
  const tensors = new Map<string, TensorInfo>();
  let position = 0;
  for (const { name, dtype, shape, begin, end } of inOrder) {
    if (begin !== position) {
      const fault = begin < position ? 'overlaps the tensor before it' : 'leaves a hole before it';
      throw formatError(path, `tensor ${quote(name)} at ${begin}, which ${fault}`, `offset ${position}`);
    }
    tensors.set(name, { dtype, shape, offset: dataOffset + begin, byteLength: end - begin });
    position = end;
  }
  if (position !== bufferBytes) {
    throw formatError(path, `${bufferBytes - position} bytes after the last tensor`, 'the file to end there');
  }
  return { tensors, metadata: toRecord(metadata) };
}

/** A frozen record without a prototype: a key named `__proto__` is a key. */
export function toRecord<T>(entries: Iterable<readonly [string, T]>): Readonly<Record<string, T>> {
  const record = Object.create(null) as Record<string, T>;
  for (const [key, value] of entries) record[key] = value;
  return Object.freeze(record);
}

/** What a header says of a tensor that is to be written. */
export interface TensorPlan {
  readonly name: string;
  readonly dtype: FileDType;
  readonly shape: readonly number[];
}

function checkText(text: unknown, argument: string): asserts text is string {
  if (typeof text === 'string' && isWellFormed(text)) return;
  const got = typeof text === 'string' ? quote(text) : show(text);
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got, wanted: 'a well-formed string' });
}

function checkCount(count: number, argument: string): void {
  if (count <= MAX_ENTRIES) return;
  throw new VsaRangeError({
    code: 'ERR_ARGUMENT',
    argument,
    got: `${count} entries`,
    wanted: `at most ${MAX_ENTRIES}`,
  });
}

/** Place of a dtype in the writing order. */
function rankOf(dtype: FileDType): number {
  return FORMAT_NAMES.findIndex(([known]) => known === dtype);
}

/** Byte order of the UTF-8 forms: the order of code points, which is not that of UTF-16 units. */
function compareNames(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a, 'utf8'), Buffer.from(b, 'utf8'));
}

/**
 * The order in which tensors are written: by dtype from the widest on, so that each is aligned, then by name. The
 * same tensors give the same file.
 */
export function writingOrder<T extends TensorPlan>(plans: readonly T[]): T[] {
  return [...plans].sort((a, b) => rankOf(a.dtype) - rankOf(b.dtype) || compareNames(a.name, b.name));
}

/** Text of a header in the making; refuses what would make it longer than a reader accepts. */
class HeaderText {
  private readonly parts: string[] = [];
  private bytes = 0;

  add(part: string): void {
    this.bytes += Buffer.byteLength(part, 'utf8') + 1;
    if (this.bytes > MAX_HEADER_BYTES - 16) {
      throw new VsaRangeError({
        code: 'ERR_ARGUMENT',
        argument: 'tensors',
        got: 'names and metadata that make the header too long',
        wanted: `a header of at most ${MAX_HEADER_BYTES} bytes`,
      });
    }
    this.parts.push(part);
  }

  toString(): string {
    return `{${this.parts.join(',')}}`;
  }
}

function addMetadata(header: HeaderText, metadata: Readonly<Record<string, string>>): void {
  const wanted = 'a plain object of strings';
  checkObject(metadata, 'metadata', wanted);
  if (isIterable(metadata)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'metadata', got: show(metadata), wanted });
  }
  const keys = Object.keys(metadata).sort(compareNames);
  checkCount(keys.length, 'metadata');
  const members = new HeaderText();
  for (const key of keys) {
    checkText(key, 'metadata');
    const value: unknown = metadata[key];
    checkText(value, `metadata[${quote(key)}]`);
    members.add(`${JSON.stringify(key)}:${JSON.stringify(value)}`);
  }
  if (keys.length > 0) header.add(`"${METADATA}":${members.toString()}`);
}

/**
 * The first bytes of a file: length and header, padded with spaces to a multiple of 8.
 * @param plans in writing order
 * @throws VsaTypeError ERR_ARGUMENT or ERR_DTYPE, VsaRangeError ERR_ARGUMENT or ERR_SHAPE for what the format cannot
 *   hold.
 */
export function makeHeader(plans: readonly TensorPlan[], metadata: Readonly<Record<string, string>>): Uint8Array {
  checkCount(plans.length, 'tensors');
  const header = new HeaderText();
  addMetadata(header, metadata);
  let begin = 0;
  for (const { name, dtype, shape } of plans) {
    checkText(name, 'tensors');
    const argument = `tensors[${quote(name)}]`;
    if (name === METADATA) {
      throw new VsaRangeError({
        code: 'ERR_ARGUMENT',
        argument,
        got: 'the name of the metadata',
        wanted: 'another name',
      });
    }
    const end = begin + byteLengthOf(dtype, shape, argument);
    if (end > Number.MAX_SAFE_INTEGER) {
      throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: `an end at byte ${end}`, wanted: 'less than 2^53' });
    }
    const format = FORMAT_NAMES[rankOf(dtype)]?.[1] ?? '';
    header.add(
      `${JSON.stringify(name)}:{"dtype":"${format}","shape":[${shape.join(',')}],"data_offsets":[${begin},${end}]}`,
    );
    begin = end;
  }
  const text = Buffer.from(header.toString(), 'utf8');
  const bytes = Buffer.alloc(8 + Math.ceil(text.byteLength / 8) * 8, 0x20);
  bytes.writeBigUInt64LE(BigInt(bytes.byteLength - 8), 0);
  text.copy(bytes, 8);
  return bytes;
}
