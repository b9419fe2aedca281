/**
 * The header of a numpy file: a Python dict literal such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4),
 * }`. Read by a parser for exactly these three keys, never by evaluating anything.
 */
import { VsaTypeError } from '../errors.js';
import { MAX_RANK, fileDTypeBytes, type FileDType } from './host-array.js';
import { formatError, quote } from './io.js';

/** What a header says. */
export interface NpyHeader {
  readonly dtype: FileDType;
  /** Whether the elements' bytes are in the other order. */
  readonly bigEndian: boolean;
  /** Whether the first index varies fastest (column-major). */
  readonly fortranOrder: boolean;
  readonly shape: readonly number[];
}

const TYPE_CODES: ReadonlyMap<string, FileDType> = new Map<string, FileDType>([
  ['b1', 'bool'],
  ['u1', 'uint8'],
  ['i1', 'int8'],
  ['u2', 'uint16'],
  ['i2', 'int16'],
  ['u4', 'uint32'],
  ['i4', 'int32'],
  ['u8', 'uint64'],
  ['i8', 'int64'],
  ['f2', 'float16'],
  ['f4', 'float32'],
  ['f8', 'float64'],
]);

const KEYS = ['descr', 'fortran_order', 'shape'] as const;
type Key = (typeof KEYS)[number];

const SPACE = /[ \t\r\n\f]*/y;
const STRING = /'([^'"\\\r\n]*)'|"([^'"\\\r\n]*)"/y;
const BOOLEAN = /True|False/y;
// Python 2 wrote its long integers with an L.
const INTEGER = /(0|[1-9][0-9]{0,15})L?(?![0-9A-Za-z_.])/y;

/** A cursor over the literal's text. */
class LiteralScanner {
  private position = 0;

  constructor(
    private readonly text: string,
    private readonly path: string,
  ) {}

  fail(got: string, wanted: string): never {
    throw formatError(this.path, `a header with ${got}`, wanted);
  }

  unexpected(wanted: string): never {
    const next = this.text.slice(this.position, this.position + 20);
    return this.fail(next === '' ? 'its end' : `${quote(next)} at character ${String(this.position)}`, wanted);
  }

  private match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.position;
    const found = pattern.exec(this.text) ?? undefined;
    this.position += found?.[0].length ?? 0;
    return found;
  }

  /** Takes one punctuation character if it comes next. */
  accept(char: string): boolean {
    this.match(SPACE);
    if (this.text[this.position] !== char) return false;
    this.position++;
    return true;
  }

  expect(char: string, wanted: string): void {
    if (!this.accept(char)) this.unexpected(wanted);
  }

  string(wanted: string): string {
    this.match(SPACE);
    const found = this.match(STRING) ?? this.unexpected(wanted);
    return found[1] ?? found[2] ?? '';
  }

  boolean(wanted: string): boolean {
    this.match(SPACE);
    return (this.match(BOOLEAN) ?? this.unexpected(wanted))[0] === 'True';
  }

  private integer(wanted: string): number {
    this.match(SPACE);
    const start = this.position;
    const value = Number((this.match(INTEGER) ?? this.unexpected(wanted))[1]);
    if (Number.isSafeInteger(value)) return value;
    this.position = start;
    return this.unexpected(wanted);
  }

  /** `()`, `(3,)`, `(3, 4)` or `(3, 4,)`. `(3)` is a number in Python, not a tuple. */
  tuple(): number[] {
    const wanted = 'a shape that is a tuple of non-negative integers up to 2^53 - 1';
    this.expect('(', wanted);
    const values: number[] = [];
    while (!this.accept(')')) {
      if (values.length === MAX_RANK)
        this.fail(`more than ${String(MAX_RANK)} dimensions`, `at most ${String(MAX_RANK)}`);
      values.push(this.integer(wanted));
      if (this.accept(',')) continue;
      if (values.length === 1) this.unexpected(wanted);
      this.expect(')', wanted);
      break;
    }
    return values;
  }

  end(): void {
    this.match(SPACE);
    if (this.position < this.text.length) this.unexpected('nothing but spaces after the dict');
  }
}

function parseDType(scanner: LiteralScanner, descr: string): Pick<NpyHeader, 'dtype' | 'bigEndian'> {
  const order = descr[0] ?? '';
  const dtype = TYPE_CODES.get(descr.slice(1));
  // '|' says that byte order does not apply; '=' is that of this machine, little-endian.
  if (dtype !== undefined && (fileDTypeBytes(dtype) === 1 ? '<>=|' : '<>=').includes(order) && order !== '') {
    return { dtype, bigEndian: order === '>' && fileDTypeBytes(dtype) > 1 };
  }
  const what = /^.?O/.test(descr) ? 'Python objects (descr ' + quote(descr) + ')' : `descr ${quote(descr)}`;
  return scanner.fail(what, `one of ${[...TYPE_CODES.keys()].join(', ')} after "<", ">", "=" or "|"`);
}

/**
 * Reads a header.
 * @param text the header, decoded
 * @param path names the file in errors
 * @throws VsaError ERR_FILE_FORMAT for anything but the literal of an array of a known dtype.
 */
export function parseNpyHeader(text: string, path: string): NpyHeader {
  const scanner = new LiteralScanner(text, path);
  const fields: Partial<{ -readonly [K in keyof NpyHeader]: NpyHeader[K] }> = {};
  const seen = new Set<Key>();
  scanner.expect('{', 'a Python dict');
  while (!scanner.accept('}')) {
    const name = scanner.string(`a key of ${KEYS.join(', ')}`);
    const key =
      KEYS.find((known) => known === name) ?? scanner.fail(`the key ${quote(name)}`, `only ${KEYS.join(', ')}`);
    if (seen.has(key)) scanner.fail(`${key} twice`, 'every key once');
    seen.add(key);
    scanner.expect(':', `":" after ${key}`);
    if (key === 'descr') {
      Object.assign(
        fields,
        parseDType(scanner, scanner.string('a descr that is a string (structured dtypes are none)')),
      );
    } else if (key === 'fortran_order') {
      fields.fortranOrder = scanner.boolean('a fortran_order of True or False');
    } else {
      fields.shape = scanner.tuple();
    }
    if (scanner.accept(',')) continue;
    scanner.expect('}', '"," or "}"');
    break;
  }
  scanner.end();
  const { dtype, bigEndian, fortranOrder, shape } = fields;
  if (dtype === undefined || bigEndian === undefined || fortranOrder === undefined || shape === undefined) {
    const missing = KEYS.filter((key) => !seen.has(key)).join(' and ');
    return scanner.fail(`no ${missing}`, `a dict with ${KEYS.join(', ')}`);
  }
  return { dtype, bigEndian, fortranOrder, shape };
}

/**
 * The first bytes of a version 1.0 file, little-endian and row-major, padded to a multiple of 64.
 * @throws VsaTypeError ERR_DTYPE for bfloat16, which numpy does not have.
 */
export function makeNpyHeader(dtype: FileDType, shape: readonly number[]): Uint8Array {
  const code = [...TYPE_CODES].find(([, known]) => known === dtype)?.[0];
  if (code === undefined) {
    throw new VsaTypeError({
      code: 'ERR_DTYPE',
      argument: 'array',
      got: dtype,
      wanted: 'a dtype that numpy has: cast to float32, or write a safetensors file, which keeps bfloat16',
    });
  }
  const order = fileDTypeBytes(dtype) === 1 ? '|' : '<';
  const tuple = shape.length === 1 ? `(${String(shape[0])},)` : `(${shape.join(', ')})`;
  const text = `{'descr': '${order}${code}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const header = Buffer.alloc(Math.ceil((10 + text.length + 1) / 64) * 64, ' ');
  header.write('\x93NUMPY\x01\x00', 0, 'latin1');
  header.writeUInt16LE(header.byteLength - 10, 8);
  header.write(text, 10, 'latin1');
  header.write('\n', header.byteLength - 1, 'latin1');
  return header;
}
