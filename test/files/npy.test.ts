import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, truncateSync } from 'node:fs';
import { FILE_DTYPES, fileDTypeBytes, toTypedArray, type FileDType } from '../../lib/files/host-array.js';
import { readNpy, writeNpy } from '../../lib/files/npy.js';
import { failure, npyBytes, put, scratch, scratchNames, useScratchFolder } from './support.js';

useScratchFolder();

const NUMPY_DTYPES = FILE_DTYPES.filter((dtype) => dtype !== 'bfloat16');

function dict(descr: string, shape: string, fortran = 'False'): string {
  return `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }`;
}

async function values(bytes: Uint8Array): Promise<unknown[]> {
  return [...toTypedArray(await readNpy(put(bytes)))];
}

describe('golden files', () => {
  test('written byte for byte', async () => {
    const data = Uint8Array.of(0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0);
    await writeNpy(scratch(), { dtype: 'float32', shape: [2, 1], data });
    const header = dict('<f4', '(2, 1)');
    expect(readFileSync(scratch()).equals(npyBytes(`${header.padEnd(117)}\n`, data))).toBe(true);
    expect(scratchNames()).toEqual(['file']);
  });

  test.each([
    [[], '()'],
    [[5], '(5,)'],
    [[0, 3], '(0, 3)'],
  ])('shape %j', async (shape, tuple) => {
    const data = Uint8Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => i + 1);
    await writeNpy(scratch(), { dtype: 'int8', shape, data });
    expect(readFileSync(scratch()).equals(npyBytes(`${dict('|i1', tuple).padEnd(117)}\n`, data))).toBe(true);
  });

  test('a header that needs more than one block of 64', async () => {
    const shape = Array<number>(64).fill(1);
    await writeNpy(scratch(), { dtype: 'uint8', shape, data: Uint8Array.of(3) });
    expect((readFileSync(scratch()).byteLength - 1) % 64).toBe(0);
    expect(await readNpy(scratch())).toEqual({ dtype: 'uint8', shape, data: Uint8Array.of(3) });
  });

  test.each([1, 2, 3] as const)('version %i.0', async (version) => {
    const header = `${dict('<i2', '(2,)')}      \n`;
    expect(await values(npyBytes(header, Uint8Array.of(1, 0, 0xff, 0xff), version))).toEqual([1, -1]);
  });

  test('every legal spelling of the dict', async () => {
    const data = Uint8Array.of(1, 2, 3, 4, 5, 6);
    for (const header of [
      `{'descr':'|u1','fortran_order':False,'shape':(2,3)}`,
      ` { "shape" : ( 2 , 3 , ) , "descr" : "u1" , "fortran_order" : False , } \n`.replace('"u1"', '"<u1"'),
      `{'fortran_order': False, 'shape': (2L, 3L), 'descr': '=u1'}\n`,
    ]) {
      expect(await readNpy(put(npyBytes(header, data)))).toEqual({ dtype: 'uint8', shape: [2, 3], data });
    }
  });
});

describe('conversions', () => {
  test.each<[string, number[], unknown]>([
    ['>i2', [0xff, 0xfe], -2],
    ['>u2', [1, 2], 258],
    ['>f2', [0x3c, 0x00], 0x3c00],
    ['>i4', [0xff, 0xff, 0xff, 0xfd], -3],
    ['>u4', [0x80, 0, 0, 1], 0x80000001],
    ['>f4', [0x3f, 0x80, 0, 0], 1],
    ['>i8', [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc], -4n],
    ['>u8', [1, 0, 0, 0, 0, 0, 0, 2], (1n << 56n) + 2n],
    ['>f8', [0x3f, 0xf8, 0, 0, 0, 0, 0, 0], 1.5],
    ['>i1', [0xff], -1],
    ['>b1', [1], 1],
    ['=f4', [0, 0, 0x80, 0x3f], 1],
  ])('%s', async (descr, bytes, expected) => {
    expect(await values(npyBytes(dict(descr, '(2,)'), Uint8Array.from([...bytes, ...bytes])))).toEqual([
      expected,
      expected,
    ]);
  });

  test('big-endian data of several steps', async () => {
    const count = 3 * 2 ** 18 + 5;
    const big = Buffer.alloc(4 * count);
    for (let i = 0; i < count; i++) big.writeInt32BE(i * 1001, 4 * i);
    const read = toTypedArray(await readNpy(put(npyBytes(dict('>i4', `(${count},)`), big))));
    expect(read).toHaveLength(count);
    expect(read.findIndex((value: number | bigint, i: number) => value !== i * 1001)).toBe(-1);
  });

  test.each<[FileDType, string, number[]]>([
    ['uint8', '|u1', [2, 3]],
    ['int16', '<i2', [4, 1, 3]],
    ['int32', '>i4', [2, 3, 4, 5]],
    ['float64', '<f8', [3, 2, 2]],
    ['uint64', '>u8', [1, 5]],
    ['int8', '|i1', [7]],
    ['int8', '|i1', []],
    ['int8', '|i1', [3, 0, 2]],
    ['uint32', '<u4', [1030, 1030]],
    ['uint16', '<u2', [2, 1_100_000]],
  ])('column-major %s %s %j', async (dtype, descr, shape) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const size = fileDTypeBytes(dtype);
    const low = Math.min(size, 4);
    const swapped = descr.startsWith('>');
    // The value of an element is its place in row-major order; the file has it where column-major order puts it.
    const file = Buffer.alloc(count * size);
    const expected = Buffer.alloc(count * size);
    for (let place = 0; place < count; place++) {
      let rest = place;
      let at = 0;
      let stride = count;
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        const dim = shape[axis] ?? 1;
        stride /= dim;
        at += (rest % dim) * stride;
        rest = (rest - (rest % dim)) / dim;
      }
      for (let byte = 0; byte < low; byte++) {
        const value = (place >>> (8 * byte)) & 0xff;
        file[swapped ? (at + 1) * size - 1 - byte : at * size + byte] = value;
        expected[place * size + byte] = value;
      }
    }
    const tuple = `(${shape.join(', ')}${shape.length === 1 ? ',' : ''})`;
    const read = await readNpy(put(npyBytes(dict(descr, tuple, 'True'), file)));
    expect(read.shape).toEqual(shape);
    expect(Buffer.compare(read.data, expected)).toBe(0);
  });
});

describe('round trips', () => {
  test.each(NUMPY_DTYPES)('%s', async (dtype) => {
    for (const shape of [[], [3], [2, 3, 4], [5, 0]]) {
      const bytes = shape.reduce((a, b) => a * b, fileDTypeBytes(dtype));
      const array = { dtype, shape, data: Uint8Array.from({ length: bytes }, (_, i) => 7 * i + 1) };
      await writeNpy(scratch(), array);
      expect(await readNpy(scratch())).toEqual(array);
    }
  });

  test('from a stream', async () => {
    await writeNpy(scratch(), { dtype: 'int16', shape: [2], chunks: [Uint8Array.of(1), Uint8Array.of(0, 2, 0)] });
    expect(await readNpy(scratch())).toEqual({ dtype: 'int16', shape: [2], data: Uint8Array.of(1, 0, 2, 0) });
    const path = put('old');
    const short = { dtype: 'int16', shape: [2], chunks: [Uint8Array.of(1)] } as const;
    await failure(writeNpy(path, short), 'ERR_SHAPE', '1 bytes', '4 bytes');
    expect(readFileSync(path, 'utf8')).toBe('old');
  });

  test('bfloat16 cannot be written, and the error says what to do', async () => {
    const path = put('old');
    const array = { dtype: 'bfloat16', shape: [1], data: new Uint8Array(2) } as const;
    await failure(writeNpy(path, array), 'ERR_DTYPE', 'bfloat16', 'safetensors', 'cast');
    expect(readFileSync(path, 'utf8')).toBe('old');
  });

  test('what is no array cannot be written', async () => {
    await failure(writeNpy(scratch(), { dtype: 'int8', shape: [2], data: new Uint8Array(1) }), 'ERR_SHAPE', '1 bytes');
    await failure(writeNpy(scratch(), 5 as never), 'ERR_ARGUMENT', 'array');
    expect(scratchNames()).toEqual([]);
  });
});

describe('hostile files', () => {
  async function rejects(bytes: Uint8Array, ...parts: string[]): Promise<void> {
    const path = put(bytes);
    const error = await failure(readNpy(path), 'ERR_FILE_FORMAT', ...parts);
    expect(error.argument).toBe(path);
    expect(error.message.length).toBeLessThan(600);
  }

  const good = dict('<i4', '(2,)');

  test('no numpy file', async () => {
    for (const size of [0, 5, 11]) await rejects(new Uint8Array(size), `a file of ${size} bytes`);
    await rejects(Buffer.from('PK\x03\x04 an archive of arrays'), 'another kind');
    const magic = npyBytes(good, new Uint8Array(8));
    magic[0] = 0x92;
    await rejects(magic, 'another kind');
  });

  test('other versions', async () => {
    for (const [major, minor] of [
      [0, 0],
      [4, 0],
      [1, 1],
      [255, 255],
    ] as const) {
      const bytes = npyBytes(good, new Uint8Array(8));
      bytes[6] = major;
      bytes[7] = minor;
      await rejects(bytes, `version ${major}.${minor}`);
    }
  });

  test('header lengths of gigabytes, and beyond the file', async () => {
    for (const length of [2 ** 32 - 1, 2 ** 31, 65537]) {
      const bytes = npyBytes(good, new Uint8Array(8), 2);
      bytes.writeUInt32LE(length, 8);
      await rejects(bytes, `a header of ${length} bytes`, '65536');
    }
    const bytes = npyBytes(good);
    bytes.writeUInt16LE(good.length + 1, 8);
    await rejects(bytes, "the file's size");
  });

  test('not UTF-8 where it should be', async () => {
    const bytes = npyBytes(good, new Uint8Array(8), 3);
    bytes[20] = 0xff;
    await rejects(bytes, 'not UTF-8');
  });

  test.each([
    ['nothing', '', 'a Python dict'],
    ['no dict', '[1, 2]', 'a Python dict'],
    ['code', `__import__('os').system('true')`, 'a Python dict'],
    ['code for a shape', `{'descr': '<i4', 'fortran_order': False, 'shape': (1+1,), }`, 'a tuple'],
    ['code for an order', `{'descr': '<i4', 'fortran_order': exit(), 'shape': (2,), }`, 'True or False'],
    ['a number for an order', `{'descr': '<i4', 'fortran_order': 0, 'shape': (2,), }`, 'True or False'],
    ['a dict that does not end', `{'descr': '<i4', 'fortran_order': False, 'shape': (2,), `, 'its end'],
    ['a string that does not end', `{'descr': '<i4`, 'descr'],
    ['a string with escapes', `{'descr': '<i\\x34', 'fortran_order': False, 'shape': (2,)}`, 'descr'],
    ['something after the dict', `${good} + ''`, 'nothing but spaces'],
    ['zero bytes after the dict', `${good}\0\0`, 'nothing but spaces'],
    ['a missing key', `{'descr': '<i4', 'shape': (2,), }`, 'no fortran_order'],
    ['no keys', '{}', 'no descr and fortran_order and shape'],
    ['another key', `{'descr': '<i4', 'fortran_order': False, 'shape': (2,), 'x': 1}`, '"x"'],
    ['a key of Object', `{'__proto__': '<i4', 'fortran_order': False, 'shape': (2,)}`, '"__proto__"'],
    ['a key twice', `{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (2,)}`, 'descr twice'],
    ['no comma', `{'descr': '<i4' 'fortran_order': False, 'shape': (2,)}`, '","'],
    ['a number for a shape', `{'descr': '<i4', 'fortran_order': False, 'shape': (2), }`, 'a tuple'],
    ['a list for a shape', `{'descr': '<i4', 'fortran_order': False, 'shape': [2], }`, 'a tuple'],
    ['a comma alone', `{'descr': '<i4', 'fortran_order': False, 'shape': (,), }`, 'a tuple'],
    ['a negative dim', `{'descr': '<i4', 'fortran_order': False, 'shape': (-2,), }`, 'non-negative'],
    ['a fraction', `{'descr': '<i4', 'fortran_order': False, 'shape': (2.0,), }`, 'non-negative'],
    ['an exponent', `{'descr': '<i4', 'fortran_order': False, 'shape': (2e0,), }`, 'non-negative'],
    ['a leading zero', `{'descr': '<i4', 'fortran_order': False, 'shape': (02,), }`, 'non-negative'],
    ['a dim of 2^53', `{'descr': '<i4', 'fortran_order': False, 'shape': (9007199254740992,), }`, '2^53 - 1'],
    ['a dim of many digits', `{'descr': '<i4', 'fortran_order': False, 'shape': (${'9'.repeat(500)},), }`, '2^53 - 1'],
    ['a shape that overflows', `{'descr': '<i4', 'fortran_order': False, 'shape': (${2 ** 40}, ${2 ** 40}), }`, '2^53'],
    ['65 dims', `{'descr': '<i4', 'fortran_order': False, 'shape': (${'1, '.repeat(65)}), }`, 'more than 64'],
    ['nested tuples', `{'descr': '<i4', 'fortran_order': False, 'shape': ${'('.repeat(60_000)}, }`, 'a tuple'],
    ['Python objects', dict('|O', '(2,)'), 'Python objects'],
    ['text', dict('<U4', '(2,)'), 'descr "<U4"'],
    ['complex numbers', dict('<c8', '(1,)'), 'descr "<c8"'],
    ['structs', `{'descr': [('x', '<i4')], 'fortran_order': False, 'shape': (2,), }`, 'structured'],
    ['no byte order where it matters', dict('|i4', '(2,)'), 'descr "|i4"'],
    ['a type alone', dict('i4', '(2,)'), 'descr "i4"'],
    ['no type', dict('', '(2,)'), 'descr ""'],
    ['too little data', dict('<i4', '(3,)'), '8 bytes of data, wanted 12 bytes'],
    ['too much data', dict('<i4', '(1,)'), '8 bytes of data, wanted 4 bytes'],
    ['too much data for an empty array', dict('<i4', '(0, 9007199254740991, 5)'), 'wanted 0 bytes'],
  ])('%s', async (_, header, words) => {
    await rejects(npyBytes(header, new Uint8Array(8)), words);
  });

  test('an array of 2^51 elements in a small file allocates nothing', async () => {
    const before = process.memoryUsage().arrayBuffers;
    await rejects(npyBytes(dict('|u1', `(${2 ** 51},)`), new Uint8Array(8)), `wanted ${2 ** 51} bytes`);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20);
  });

  test('every truncation of a valid file', async () => {
    const bytes = npyBytes(good, new Uint8Array(8));
    for (let size = 0; size < bytes.length; size++) {
      put(bytes);
      truncateSync(scratch(), size);
      await failure(readNpy(scratch()), 'ERR_FILE_FORMAT');
    }
  });

  test('what the system refuses', async () => {
    expect((await failure(readNpy(scratch('none')), 'ERR_FILE', 'ENOENT')).cause).toMatchObject({ code: 'ENOENT' });
    mkdirSync(scratch('folder'));
    await failure(readNpy(scratch('folder')), 'ERR_FILE', 'EISDIR');
    execFileSync('mkfifo', [scratch('pipe')]);
    await failure(readNpy(scratch('pipe')), 'ERR_FILE', 'pipe');
    await failure(readNpy(7 as never), 'ERR_ARGUMENT', 'path');
  });
});
