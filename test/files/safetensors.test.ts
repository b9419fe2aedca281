import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { FILE_DTYPES, fileDTypeBytes, type HostArray } from '../../lib/files/host-array.js';
import { SafetensorsFile, readSafetensors, writeSafetensors } from '../../lib/files/safetensors.js';
import { failure, put, safetensorsBytes, scratch, scratchNames, thrown, useScratchFolder } from './support.js';

useScratchFolder();

function array(dtype: HostArray['dtype'], shape: readonly number[], start = 0): HostArray {
  const bytes = shape.reduce((a, b) => a * b, fileDTypeBytes(dtype));
  return { dtype, shape, data: Uint8Array.from({ length: bytes }, (_, i) => (start + i) & 0xff) };
}

/** Format's names by dtype, typed out again. */
const FORMAT: Record<HostArray['dtype'], string> = {
  bool: 'BOOL',
  uint8: 'U8',
  int8: 'I8',
  uint16: 'U16',
  int16: 'I16',
  uint32: 'U32',
  int32: 'I32',
  uint64: 'U64',
  int64: 'I64',
  float16: 'F16',
  bfloat16: 'BF16',
  float32: 'F32',
  float64: 'F64',
};

describe('golden files', () => {
  const header =
    '{"__metadata__":{"a":"1","format":"pt"},' +
    '"wide":{"dtype":"F64","shape":[],"data_offsets":[0,8]},' +
    '"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]},' +
    '"c":{"dtype":"BF16","shape":[0,7],"data_offsets":[16,16]},' +
    '"a":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}}';
  const padded = header + ' '.repeat((8 - (header.length % 8)) % 8);
  // 1.5, then bfloat16 1, -2, 0.5, infinity, then bytes.
  const data = Uint8Array.of(0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0x80, 0x3f, 0, 0xc0, 0, 0x3f, 0x80, 0x7f, 7, 8, 9);
  const golden = safetensorsBytes(padded, data);
  const tensors = new Map<string, HostArray>([
    ['a', { dtype: 'uint8', shape: [3], data: Uint8Array.of(7, 8, 9) }],
    ['c', { dtype: 'bfloat16', shape: [0, 7], data: new Uint8Array(0) }],
    ['wide', { dtype: 'float64', shape: [], data: data.slice(0, 8) }],
    ['b', { dtype: 'bfloat16', shape: [2, 2], data: data.slice(8, 16) }],
  ]);

  test('written byte for byte, whatever the order of tensors and metadata', async () => {
    await writeSafetensors(scratch(), tensors, { metadata: { format: 'pt', a: '1' } });
    expect(readFileSync(scratch()).equals(golden)).toBe(true);
    const reversed = Object.fromEntries([...tensors].reverse());
    await writeSafetensors(scratch(), reversed, { metadata: { a: '1', format: 'pt' } });
    expect(readFileSync(scratch()).equals(golden)).toBe(true);
    expect(scratchNames()).toEqual(['file']);
  });

  test('read', async () => {
    const read = await readSafetensors(put(golden));
    expect(read.metadata).toEqual({ a: '1', format: 'pt' });
    expect([...read.tensors.keys()]).toEqual(['wide', 'b', 'c', 'a']);
    for (const [name, expected] of tensors) expect(read.tensors.get(name)).toEqual(expected);
  });

  test('a file without tensors', async () => {
    await writeSafetensors(scratch(), {});
    expect(readFileSync(scratch()).equals(safetensorsBytes('{}      '))).toBe(true);
    expect((await readSafetensors(scratch())).tensors.size).toBe(0);
  });

  test('every legal spelling of a header: spaces, escapes, order of keys, tensors out of order', async () => {
    const text =
      ` {\n"\\u0061\\n\\"\\ud83d\\ude00" :\t{ "data_offsets" : [ 4 , 6 ],"shape":[ ],"dtype":"\\u0046\\u00316" } ,
      "é":{"shape":[1],"dtype":"I32","data_offsets":[0,4]}, "__metadata__":{} } \r\n`.slice(1);
    const { tensors: read } = await readSafetensors(put(safetensorsBytes(text, Uint8Array.of(1, 0, 0, 0, 2, 3))));
    expect([...read]).toEqual([
      ['é', { dtype: 'int32', shape: [1], data: Uint8Array.of(1, 0, 0, 0) }],
      ['a\n"😀', { dtype: 'float16', shape: [], data: Uint8Array.of(2, 3) }],
    ]);
  });
});

describe('round trips', () => {
  test.each(FILE_DTYPES)('%s', async (dtype) => {
    const original = new Map([
      ['matrix', array(dtype, [3, 5], 200)],
      ['scalar', array(dtype, [], 1)],
      ['empty', array(dtype, [4, 0, 2])],
      ['deep', array(dtype, [1, 2, 1, 3, 1], 9)],
    ]);
    await writeSafetensors(scratch(), original);
    expect(readFileSync(scratch(), 'latin1')).toContain(`"dtype":"${FORMAT[dtype]}"`);
    expect((await readSafetensors(scratch())).tensors).toEqual(new Map([...original].sort()));
  });

  test('the first tensor is aligned to 8 bytes and each to its own element', async () => {
    const names = FILE_DTYPES.map((dtype, i) => [`${'x'.repeat(i)}${dtype}`, array(dtype, [i % 3])] as const);
    await writeSafetensors(scratch(), new Map(names));
    await using file = await SafetensorsFile.open(scratch());
    expect(file.info(file.names()[0] ?? '').offset % 8).toBe(0);
    for (const name of file.names()) expect(file.info(name).offset % fileDTypeBytes(file.info(name).dtype)).toBe(0);
  });

  test('names that JavaScript objects know, or that need escapes', async () => {
    const names = [
      '__proto__',
      'constructor',
      'hasOwnProperty',
      'toString',
      '',
      '7',
      '\u0000"\\\n',
      '日本',
      '😀',
      '\uffee',
    ];
    const original = new Map(names.map((name, i) => [name, array('uint8', [1], i)]));
    const metadata = Object.create(null) as Record<string, string>;
    for (const name of names) metadata[name] = `value of ${name}`;
    await writeSafetensors(scratch(), original, { metadata });
    const read = await readSafetensors(scratch());
    for (const [name, expected] of original) expect(read.tensors.get(name)).toEqual(expected);
    expect(read.tensors.size).toBe(names.length);
    expect(Object.getPrototypeOf(read.metadata)).toBeNull();
    expect(Object.entries(read.metadata).sort()).toEqual(Object.entries(metadata).sort());
    expect(({} as Record<string, unknown>)['dtype']).toBeUndefined();
    // In a plain object, too, as far as one can hold such a name.
    await writeSafetensors(scratch(), Object.fromEntries(original), { metadata });
    expect((await readSafetensors(scratch())).tensors.size).toBe(names.length);
    // Byte order of UTF-8: U+FFEE before U+1F600, though its UTF-16 unit is the larger.
    expect([...read.tensors.keys()].slice(-2)).toEqual(['\uffee', '😀']);
  });

  test('thousands of tensors', async () => {
    const original = new Map(Array.from({ length: 2000 }, (_, i) => [`layer.${i}.weight`, array('uint16', [2], i)]));
    await writeSafetensors(scratch(), original);
    await using file = await SafetensorsFile.open(scratch());
    expect(file.names()).toHaveLength(2000);
    expect(await file.read('layer.1321.weight')).toEqual(original.get('layer.1321.weight'));
  });
});

describe('SafetensorsFile', () => {
  const open = async (): Promise<SafetensorsFile> => {
    await writeSafetensors(
      scratch(),
      { x: array('int32', [5]), y: array('uint8', [3], 100) },
      { metadata: { k: 'v' } },
    );
    return SafetensorsFile.open(scratch());
  };

  test('names, info, metadata, has', async () => {
    await using file = await open();
    expect(file.path).toBe(scratch());
    expect(file.names()).toEqual(['x', 'y']);
    expect(file.metadata).toEqual({ k: 'v' });
    expect([file.has('x'), file.has('z'), file.has('toString')]).toEqual([true, false, false]);
    const { offset } = file.info('x');
    expect(file.info('y')).toEqual({ dtype: 'uint8', shape: [3], offset: offset + 20, byteLength: 3 });
    thrown(() => file.info('z'), 'ERR_ARGUMENT', '"z"', '"x", "y"');
    await failure(file.read('constructor'), 'ERR_ARGUMENT', '"constructor"');
  });

  test('streams whole elements in chunks of the size asked for', async () => {
    await using file = await open();
    const sizes = async (chunkBytes?: number): Promise<number[]> => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of file.stream('x', chunkBytes)) chunks.push(chunk);
      expect(Buffer.concat(chunks)).toEqual(Buffer.from(array('int32', [5]).data));
      return chunks.map((chunk) => chunk.byteLength);
    };
    expect(await sizes()).toEqual([20]);
    expect(await sizes(8)).toEqual([8, 8, 4]);
    expect(await sizes(11)).toEqual([8, 8, 4]);
    expect(await sizes(1)).toEqual([4, 4, 4, 4, 4]);
    for (const bad of [0, -8, 1.5, NaN, '8' as never])
      thrown(() => file.stream('x', bad), 'ERR_ARGUMENT', 'chunkBytes');
    thrown(() => file.stream('z'), 'ERR_ARGUMENT', '"z"');
  });

  test('an empty tensor streams nothing', async () => {
    await writeSafetensors(scratch(), { empty: array('float32', [0]) });
    await using file = await SafetensorsFile.open(scratch());
    for await (const chunk of file.stream('empty')) throw new Error(`${chunk.byteLength} bytes`);
    expect((await file.read('empty')).data.byteLength).toBe(0);
  });

  test('reads into memory of the right size only', async () => {
    await using file = await open();
    const memory = new Uint8Array(9);
    await file.readInto('y', memory.subarray(3, 6));
    expect([...memory]).toEqual([0, 0, 0, 100, 101, 102, 0, 0, 0]);
    await failure(file.readInto('y', memory), 'ERR_SHAPE', '9 bytes', '3 bytes');
    await failure(file.readInto('y', [1, 2, 3] as never), 'ERR_SHAPE', 'target');
  });

  test('many reads at once', async () => {
    await using file = await open();
    const reads = await Promise.all(Array.from({ length: 50 }, (_, i) => file.read(i % 2 ? 'x' : 'y')));
    for (const [i, read] of reads.entries())
      expect(read).toEqual(i % 2 ? array('int32', [5]) : array('uint8', [3], 100));
  });

  test('a closed file says so; closing again does nothing', async () => {
    const file = await open();
    const stream = file.stream('x', 4)[Symbol.asyncIterator]();
    await stream.next();
    await file.close();
    await file.close();
    await failure(file.read('x'), 'ERR_DISPOSED', 'closed');
    await failure(file.readInto('x', new Uint8Array(20)), 'ERR_DISPOSED');
    await failure(stream.next(), 'ERR_DISPOSED');
    thrown(() => file.stream('x'), 'ERR_DISPOSED');
    expect(file.names()).toEqual(['x', 'y']);
  });

  test('a file that shrinks while it is open', async () => {
    await using file = await open();
    truncateSync(scratch(), file.info('y').offset + 1);
    await failure(file.read('y'), 'ERR_FILE_FORMAT', 'the end of the file');
    expect(await file.read('x')).toEqual(array('int32', [5]));
  });
});

describe('files larger than memory', () => {
  test('gigabytes are opened at once, and read from where one wants', async () => {
    const huge = 6 * 2 ** 30;
    const header =
      `{"huge":{"dtype":"BF16","shape":[3,${2 ** 30}],"data_offsets":[0,${huge}]},` +
      `"tail":{"dtype":"U8","shape":[4],"data_offsets":[${huge},${huge + 4}]}}`;
    const start = safetensorsBytes(header);
    writeFileSync(scratch(), start);
    truncateSync(scratch(), start.byteLength + huge + 4);
    const descriptor = openSync(scratch(), 'r+');
    writeSync(descriptor, Uint8Array.of(1, 2, 3), 0, 3, start.byteLength + 2 ** 20 - 1);
    writeSync(descriptor, Uint8Array.of(9, 8, 7, 6), 0, 4, start.byteLength + huge);
    closeSync(descriptor);

    await using file = await SafetensorsFile.open(scratch());
    expect(file.info('huge').byteLength).toBe(huge);
    const before = process.memoryUsage().rss;
    let position = 0;
    for await (const chunk of file.stream('huge', 2 ** 20)) {
      if (position === 0) expect(chunk.at(-1)).toBe(1);
      if (position === 2 ** 20) expect([...chunk.subarray(0, 3)]).toEqual([2, 3, 0]);
      position += chunk.byteLength;
      if (position === 2 ** 24) break;
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(2 ** 28);
    expect([...(await file.read('tail')).data]).toEqual([9, 8, 7, 6]);
  });

  test('what no machine has the memory for is an error, and can be streamed', async () => {
    const huge = 2 ** 41;
    const start = safetensorsBytes(`{"huge":{"dtype":"U8","shape":[${huge}],"data_offsets":[0,${huge}]}}`);
    writeFileSync(scratch(), start);
    truncateSync(scratch(), start.byteLength + huge);
    await failure(readSafetensors(scratch()), 'ERR_OUT_OF_MEMORY', 'tensor "huge"', `${huge} bytes`, 'streamed');
    await using file = await SafetensorsFile.open(scratch());
    for await (const chunk of file.stream('huge')) {
      expect(chunk.byteLength).toBe(2 ** 23);
      break;
    }
  });
});

describe('writing', () => {
  async function* chunks(...sizes: number[]): AsyncGenerator<Uint8Array> {
    for (const size of sizes) {
      await Promise.resolve();
      yield new Uint8Array(size).fill(size);
    }
  }

  test('streams are cut anywhere, and read in the order of the file', async () => {
    const order: string[] = [];
    async function* source(name: string, ...sizes: number[]): AsyncGenerator<Uint8Array> {
      order.push(name);
      yield* chunks(...sizes);
    }
    await writeSafetensors(scratch(), {
      b: { dtype: 'uint8', shape: [2], chunks: source('b', 1, 1) },
      a: { dtype: 'uint8', shape: [1], chunks: [Uint8Array.of(7)] },
      c: { dtype: 'float32', shape: [2], chunks: source('c', 3, 0, 5) },
      d: { dtype: 'float32', shape: [0], chunks: source('d') },
    });
    expect(order).toEqual(['c', 'd', 'b']);
    const { tensors } = await readSafetensors(scratch());
    expect([...(tensors.get('c')?.data ?? [])]).toEqual([3, 3, 3, 5, 5, 5, 5, 5]);
    expect([...(tensors.get('a')?.data ?? [])]).toEqual([7]);
  });

  test.each([
    ['too few bytes', chunks(3), 'ERR_SHAPE', '3 bytes, wanted 4 bytes'],
    ['no bytes', [], 'ERR_SHAPE', '0 bytes'],
    ['too many bytes', chunks(3, 2), 'ERR_SHAPE', '5 bytes so far'],
    ['no bytes at all', ['text'], 'ERR_ARGUMENT', "a chunk that is 'text'"],
    ['not an iterable', 7, 'ERR_ARGUMENT', 'chunks'],
  ] as const)('a stream of %s leaves the old file', async (_, source, code, words) => {
    const path = put('old');
    const tensors = { x: { dtype: 'int32', shape: [1], chunks: source as never } } as const;
    await failure(writeSafetensors(path, tensors), code, 'tensors["x"]', words);
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(scratchNames()).toEqual(['file']);
  });

  test('a stream that fails: its own error, and the old file', async () => {
    const path = put('old');
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(2);
      await Promise.reject(new Error('the source broke'));
    }
    const tensors = { x: { dtype: 'int32', shape: [1], chunks: broken() } } as const;
    await expect(writeSafetensors(path, tensors)).rejects.toThrow('the source broke');
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(scratchNames()).toEqual(['file']);
  });

  const byte = array('uint8', [1]);
  test.each<[string, unknown, unknown, string, string]>([
    ['no tensors', null, {}, 'ERR_ARGUMENT', 'tensors'],
    ['a tensor that is none', { x: 5 }, {}, 'ERR_ARGUMENT', 'tensors["x"]'],
    ['a tensor without bytes', { x: { dtype: 'uint8', shape: [1] } }, {}, 'ERR_ARGUMENT', 'tensors["x"]'],
    ['an unknown dtype', { x: { ...byte, dtype: 'float8' } }, {}, 'ERR_DTYPE', "'float8'"],
    ['a negative dim', { x: { ...byte, shape: [-1] } }, {}, 'ERR_SHAPE', '[-1]'],
    ['a size beyond 2^53', { x: { dtype: 'uint8', shape: [2 ** 52, 2], chunks: [] } }, {}, 'ERR_SHAPE', '2^53'],
    [
      'sizes beyond 2^53 together',
      {
        x: { dtype: 'uint8', shape: [2 ** 52], chunks: [] },
        y: { dtype: 'uint8', shape: [2 ** 52], chunks: [] },
      },
      {},
      'ERR_SHAPE',
      '2^53',
    ],
    ['bytes that do not fit', { x: { ...byte, shape: [2] } }, {}, 'ERR_SHAPE', '1 bytes, wanted 2 bytes'],
    ['the reserved name', { __metadata__: byte }, {}, 'ERR_ARGUMENT', '__metadata__'],
    ['a name that is half a character', { '\ud800': byte }, {}, 'ERR_ARGUMENT', 'well-formed'],
    ['a name that is no string', new Map([[5, byte]]), {}, 'ERR_ARGUMENT', 'the name 5'],
    ['metadata that is no text', { x: byte }, { metadata: { k: 5 } }, 'ERR_ARGUMENT', 'metadata["k"]: got 5'],
    ['metadata that is no object', { x: byte }, { metadata: new Map([['k', 'v']]) }, 'ERR_ARGUMENT', 'metadata'],
    ['an unknown option', { x: byte }, { metdata: {} }, 'ERR_ARGUMENT', 'metdata'],
    ['a header beyond the limit', { ['x'.repeat(100_000_000)]: byte }, {}, 'ERR_ARGUMENT', '100000000'],
  ])('refuses %s', async (_, tensors, options, code, words) => {
    const path = put('old');
    await failure(writeSafetensors(path, tensors as never, options as never), code as never, words);
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(scratchNames()).toEqual(['file']);
  });
});
