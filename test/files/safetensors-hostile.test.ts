import { execFileSync } from 'node:child_process';
import { mkdirSync, truncateSync } from 'node:fs';
import { SafetensorsFile, readSafetensors } from '../../lib/files/safetensors.js';
import { failure, put, safetensorsBytes, scratch, useScratchFolder, type VsaFailure } from './support.js';

useScratchFolder();

/** Reading this file must fail as a format error that names the file and holds every part. */
async function rejects(bytes: Uint8Array, ...parts: (string | RegExp)[]): Promise<VsaFailure> {
  const path = put(bytes);
  const error = await failure(readSafetensors(path), 'ERR_FILE_FORMAT', ...parts);
  expect(error.argument).toBe(path);
  expect(error.got).toBeTruthy();
  expect(error.wanted).toBeTruthy();
  expect(error.message.length).toBeLessThan(600);
  return error;
}

function withLength(length: bigint, rest: Uint8Array | string): Buffer {
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(length);
  return Buffer.concat([start, Buffer.from(rest as string)]);
}

describe('the file around the header', () => {
  test.each([0, 1, 7])('%i bytes', async (size) => {
    await rejects(new Uint8Array(size), `a file of ${size} bytes`, 'at least 8');
  });

  test('header lengths beyond the limit or the file, up to 2^64 - 1', async () => {
    const before = process.memoryUsage();
    for (const length of [2n ** 64n - 1n, 2n ** 63n, 2n ** 53n, 5n * 2n ** 30n, 100_000_001n]) {
      await rejects(withLength(length, '{}'), `a header of ${length} bytes`, '100000000');
    }
    for (const length of [100_000_000n, 4n]) {
      await rejects(withLength(length, '{} '), `ends at byte ${length + 8n}`, "11, the file's size");
    }
    const after = process.memoryUsage();
    expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(2 ** 20);
  });

  test('a header of the largest size, all zeros', async () => {
    put(withLength(100_000_000n, ''));
    truncateSync(scratch(), 100_000_008);
    await failure(readSafetensors(scratch()), 'ERR_FILE_FORMAT', 'begin with "{"');
  });

  test('no header, and what else does not begin with a brace', async () => {
    await rejects(withLength(0n, ''), 'begin with "{"');
    for (const text of ['[]', '5', 'null', '"x"', ' {}', '\ufeff{}', 'not json']) {
      await rejects(safetensorsBytes(text), 'begin with "{"', 'a JSON object');
    }
  });

  test('not UTF-8', async () => {
    await rejects(safetensorsBytes(Buffer.from('7b22ff223a7b7d7d', 'hex')), 'not UTF-8');
    await rejects(safetensorsBytes(Buffer.from('7b22c0af223a7b7d7d', 'hex')), 'not UTF-8');
    await rejects(safetensorsBytes(Buffer.from('7b22eda080223a7b7d7d', 'hex')), 'not UTF-8');
  });

  test('bytes after the last tensor', async () => {
    const header = '{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}';
    await rejects(safetensorsBytes(header, new Uint8Array(5)), '3 bytes after the last tensor');
    await rejects(safetensorsBytes('{}', new Uint8Array(1)), '1 bytes after the last tensor');
  });
});

describe('JSON', () => {
  test.each([
    ['an open brace', '{', 'its end'],
    ['an open string', '{"x', 'closing quote'],
    ['a string that ends in a backslash', '{"x\\', 'closing quote'],
    ['a raw control character', '{"a\nb":{}}', 'control characters'],
    ['an unknown escape', '{"\\x41":{}}', 'escapes'],
    ['half an escape', '{"\\u00":{}}', 'escapes'],
    ['half a surrogate pair', '{"\\ud800":{}}', 'Unicode'],
    ['a name without quotes', '{x:{}}', 'a name'],
    ['single quotes', "{'x':{}}", 'a name'],
    ['no colon', '{"x" {}}', '":"'],
    ['no value', '{"x":}', 'as an object'],
    ['a comma too many', '{"__metadata__":{},}', 'a name'],
    ['a comment', '{/* x */}', 'a name'],
    ['two objects', '{}{}', 'nothing but spaces'],
    ['zero bytes as padding', '{}\0\0', 'nothing but spaces'],
  ])('%s', async (_, header, words) => {
    await rejects(safetensorsBytes(header), words);
  });

  const good = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}';
  test.each([
    ['tensors', `{"x":${good},"x":${good}}`, /"x" twice in the header/],
    ['tensors, one spelt with an escape', `{"x":${good},"\\u0078":${good}}`, /"x" twice/],
    ['tensors named __proto__', `{"__proto__":${good},"__proto__":${good}}`, /"__proto__" twice/],
    ['metadata', '{"__metadata__":{},"__metadata__":{}}', /"__metadata__" twice/],
    ['metadata keys', '{"__metadata__":{"k":"1","k":"2"}}', /"k" twice in __metadata__/],
    ['dtypes', '{"x":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', /"dtype" twice in tensor "x"/],
    ['shapes', '{"x":{"dtype":"U8","shape":[],"shape":[1],"data_offsets":[0,1]}}', /"shape" twice/],
    ['offsets', '{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}}', /"data_offsets" twice/],
  ])('duplicate %s', async (_, header, words) => {
    await rejects(safetensorsBytes(header, new Uint8Array(1)), words);
  });

  test('nesting as deep as the header is long, at once and without a stack', async () => {
    const deep = '['.repeat(10_000_000);
    const started = performance.now();
    await rejects(safetensorsBytes(`{"x":{"dtype":"U8","shape":${deep}`), 'non-negative integers');
    await rejects(safetensorsBytes(`{"x":${deep}`), 'as an object');
    await rejects(safetensorsBytes(`{"x":${'{"dtype":'.repeat(1_000_000)}`), 'the dtype of tensor "x" as a string');
    expect(performance.now() - started).toBeLessThan(5000);
  });

  test('a name of megabytes, and one that would write to the terminal', async () => {
    const long = await rejects(safetensorsBytes(`{"${'n'.repeat(5_000_000)}":5}`), 'nnn...');
    expect(long.message.length).toBeLessThan(400);
    const escape = await rejects(safetensorsBytes('{"\\u001b[2J\\u009b\u202e":5}'), '\\u001b', '\\u009b', '\\u202e');
    // eslint-disable-next-line no-control-regex -- what must not be there
    expect(escape.message).not.toMatch(/[\x00-\x1f\x7f-\x9f\u202e]/);
  });

  test('more names than any file needs', async () => {
    const keys = Array.from({ length: 2 ** 18 + 1 }, (_, i) => `"${i.toString(36)}":""`);
    await rejects(safetensorsBytes(`{"__metadata__":{${keys.join(',')}}}`), 'more than 262144 names in __metadata__');
  });
});

describe('tensors', () => {
  const entry = (fields: string, bytes = 8): Buffer => safetensorsBytes(`{"x":{${fields}}}`, new Uint8Array(bytes));

  test.each([
    ['no dtype', '"shape":[8],"data_offsets":[0,8]', 'no dtype'],
    ['no shape', '"dtype":"U8","data_offsets":[0,8]', 'no shape'],
    ['no offsets', '"dtype":"U8","shape":[8]', 'no two data_offsets'],
    ['one offset', '"dtype":"U8","shape":[8],"data_offsets":[8]', 'no two data_offsets'],
    ['three offsets', '"dtype":"U8","shape":[8],"data_offsets":[0,8,9]', 'more than 2 numbers'],
    ['another field', '"dtype":"U8","shape":[8],"data_offsets":[0,8],"strides":[1]', '"strides" in tensor "x"'],
    ['a field of Object', '"__proto__":{"dtype":"U8"}', '"__proto__" in tensor "x"'],
    ['an unknown dtype', '"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]', 'dtype "F8_E4M3" in tensor "x"'],
    ['a dtype in lower case', '"dtype":"f32","shape":[2],"data_offsets":[0,8]', 'dtype "f32"'],
    ['a dtype of Object', '"dtype":"constructor","shape":[2],"data_offsets":[0,8]', 'dtype "constructor"'],
    ['a dtype that is no string', '"dtype":5,"shape":[8],"data_offsets":[0,8]', 'as a string'],
    ['a shape that is no array', '"dtype":"U8","shape":8,"data_offsets":[0,8]', 'the shape of tensor "x" as an array'],
    ['a shape that is null', '"dtype":"U8","shape":null,"data_offsets":[0,8]', 'as an array'],
    ['a negative dim', '"dtype":"U8","shape":[-8],"data_offsets":[0,8]', 'non-negative integers'],
    ['a fraction', '"dtype":"U8","shape":[8.0],"data_offsets":[0,8]', 'non-negative integers'],
    ['an exponent', '"dtype":"U8","shape":[8e0],"data_offsets":[0,8]', 'non-negative integers'],
    ['a leading zero', '"dtype":"U8","shape":[08],"data_offsets":[0,8]', 'non-negative integers'],
    ['hexadecimal', '"dtype":"U8","shape":[0x8],"data_offsets":[0,8]', '"," or "]"'],
    ['a string for a dim', '"dtype":"U8","shape":["8"],"data_offsets":[0,8]', 'non-negative integers'],
    ['a dim of 2^53', '"dtype":"U8","shape":[9007199254740992],"data_offsets":[0,8]', '2^53 - 1'],
    ['a dim of a thousand digits', `"dtype":"U8","shape":[${'9'.repeat(1000)}],"data_offsets":[0,8]`, '2^53 - 1'],
    ['65 dims', `"dtype":"U8","shape":[${Array(65).fill(1).join()}],"data_offsets":[0,8]`, 'more than 64 numbers'],
    ['no comma between dims', '"dtype":"U8","shape":[4 2],"data_offsets":[0,8]', '"," or "]"'],
    ['a product that overflows 2^53', `"dtype":"U8","shape":[${2 ** 30},${2 ** 30}],"data_offsets":[0,8]`, '2^53'],
    [
      'a product that wraps to 8 in 64 bits',
      `"dtype":"U64","shape":[${2 ** 52},${2 ** 12},1],"data_offsets":[0,8]`,
      '2^53',
    ],
    ['bytes that overflow 2^53', `"dtype":"F64","shape":[${2 ** 51}],"data_offsets":[0,8]`, '2^53'],
    ['a shape larger than its offsets', '"dtype":"F32","shape":[3],"data_offsets":[0,8]', '12 bytes for float32 [3]'],
    ['a shape smaller than its offsets', '"dtype":"F32","shape":[1],"data_offsets":[0,8]', '4 bytes for float32 [1]'],
    ['an empty shape with bytes', '"dtype":"U8","shape":[0],"data_offsets":[0,8]', '0 bytes for uint8 [0]'],
    ['begin after end', '"dtype":"U8","shape":[0],"data_offsets":[8,0]', 'begin <= end'],
    ['an end beyond the buffer', '"dtype":"U8","shape":[9],"data_offsets":[0,9]', 'within the 8 bytes'],
    [
      'offsets far beyond',
      `"dtype":"U8","shape":[1],"data_offsets":[${2 ** 53 - 2},${2 ** 53 - 1}]`,
      'within the 8 bytes',
    ],
    ['negative offsets', '"dtype":"U8","shape":[8],"data_offsets":[-8,0]', 'non-negative integers'],
    ['a hole at the start', '"dtype":"U8","shape":[7],"data_offsets":[1,8]', 'leaves a hole before it'],
  ])('%s', async (_, fields, words) => {
    await rejects(entry(fields), words);
  });

  const two = (a: string, b: string): Buffer =>
    safetensorsBytes(
      `{"a":{"dtype":"U8","shape":[4],"data_offsets":[${a}]},"b":{"dtype":"U8","shape":[4],"data_offsets":[${b}]}}`,
      new Uint8Array(10),
    );
  test('overlaps and holes', async () => {
    await rejects(two('0,4', '3,7'), 'tensor "b" at 3, which overlaps', 'offset 4');
    await rejects(two('0,4', '0,4'), 'overlaps');
    await rejects(two('6,10', '0,4'), 'tensor "a" at 6, which leaves a hole', 'offset 4');
    await rejects(two('0,4', '4,8'), '2 bytes after the last tensor');
    const nested =
      '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}}';
    await rejects(safetensorsBytes(nested, new Uint8Array(4)), 'overlaps');
  });

  test('an element that is no tensor', async () => {
    for (const value of ['5', 'null', '[]', '"U8"', 'true']) {
      await rejects(safetensorsBytes(`{"x":${value}}`), 'tensor "x" as an object');
    }
  });

  test.each(['5', 'null', '"x"', '[]'])('metadata that is %s', async (value) => {
    await rejects(safetensorsBytes(`{"__metadata__":${value}}`), '__metadata__ as an object');
  });

  test.each(['5', 'null', '{}', '["x"]', 'true'])('a metadata value that is %s', async (value) => {
    await rejects(safetensorsBytes(`{"__metadata__":{"k":${value}}}`), 'a string for "k" in __metadata__');
  });
});

describe('what the system refuses', () => {
  test('no such file', async () => {
    const error = await failure(SafetensorsFile.open(scratch('none')), 'ERR_FILE', scratch('none'), 'ENOENT');
    expect(error.cause).toMatchObject({ code: 'ENOENT' });
    await failure(SafetensorsFile.open(''), 'ERR_FILE', 'ENOENT');
  });

  test('a folder', async () => {
    mkdirSync(scratch('folder'));
    const error = await failure(readSafetensors(scratch('folder')), 'ERR_FILE', 'EISDIR');
    expect(error.cause).toMatchObject({ code: 'EISDIR' });
  });

  test('a pipe nobody writes to does not hang, a device is refused', async () => {
    execFileSync('mkfifo', [scratch('pipe')]);
    await failure(readSafetensors(scratch('pipe')), 'ERR_FILE', 'a pipe, socket or device');
    await failure(readSafetensors('/dev/zero'), 'ERR_FILE', 'a pipe, socket or device');
  });

  test('a path that is no string', async () => {
    for (const path of [undefined, null, 5, {}, Buffer.from('x')]) {
      await failure(readSafetensors(path as never), 'ERR_ARGUMENT', 'path');
    }
  });
});
