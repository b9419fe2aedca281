import {
  FILE_DTYPES,
  allocateBytes,
  byteLengthOf,
  checkHostArray,
  countElements,
  fileDTypeBytes,
  fromTypedArray,
  toTypedArray,
  type FileDType,
} from '../../lib/files/host-array.js';
import { OutOfMemoryError } from '../../lib/errors.js';
import { thrown } from './support.js';

describe('sizes', () => {
  test('every dtype has the bytes its name says', () => {
    const sizes = Object.fromEntries(FILE_DTYPES.map((dtype) => [dtype, fileDTypeBytes(dtype)]));
    expect(sizes).toEqual({
      bool: 1,
      uint8: 1,
      int8: 1,
      uint16: 2,
      int16: 2,
      float16: 2,
      bfloat16: 2,
      uint32: 4,
      int32: 4,
      float32: 4,
      uint64: 8,
      int64: 8,
      float64: 8,
    });
    thrown(() => fileDTypeBytes('float8' as FileDType), 'ERR_DTYPE', "'float8'", 'bfloat16');
    thrown(() => fileDTypeBytes('constructor' as FileDType), 'ERR_DTYPE');
  });

  test('element counts: scalars, empty arrays, overflow', () => {
    expect(countElements([])).toBe(1);
    expect(countElements([3, 4])).toBe(12);
    expect(countElements([2 ** 40, 2 ** 40, 0])).toBe(0);
    expect(countElements([2 ** 26, 2 ** 26])).toBe(2 ** 52);
    expect(countElements([2 ** 27, 2 ** 26])).toBeUndefined();
    expect(countElements([2 ** 53 - 1, 2 ** 53 - 1, 2])).toBeUndefined();
    expect(byteLengthOf('float64', [2, 3])).toBe(48);
    thrown(() => byteLengthOf('float64', [2 ** 26, 2 ** 26]), 'ERR_SHAPE', '2^53');
    for (const shape of [[-1], [1.5], [NaN], [2 ** 53], 'ab', [1n], Array<number>(65).fill(1)]) {
      thrown(() => byteLengthOf('uint8', shape as number[], 'tensors["x"]'), 'ERR_SHAPE', 'tensors["x"]');
    }
  });

  test('memory beyond what the process can have is a typed error', () => {
    const error = thrown(() => allocateBytes(Number.MAX_SAFE_INTEGER, 'the array'), 'ERR_OUT_OF_MEMORY', 'the array');
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect((error as OutOfMemoryError).wantedBytes).toBe(Number.MAX_SAFE_INTEGER);
  });
});

describe('typed arrays', () => {
  test('views the bytes of an aligned array and copies those of a misaligned one', () => {
    const memory = new Uint8Array(32);
    const aligned = { dtype: 'float32', shape: [2], data: memory.subarray(8, 16) } as const;
    toTypedArray(aligned)[1] = 1;
    expect([...memory.subarray(12, 16)]).toEqual([0, 0, 0x80, 0x3f]);

    const misaligned = { dtype: 'float32', shape: [1], data: memory.subarray(13, 17) } as const;
    memory.set([0, 0, 0, 0x40], 13);
    const copy = toTypedArray(misaligned);
    expect([...copy]).toEqual([2]);
    copy[0] = 3;
    expect([...memory.subarray(13, 17)]).toEqual([0, 0, 0, 0x40]);
    // A Buffer's own slice would share the memory, and its misalignment.
    const pooled = { ...misaligned, data: Buffer.from(memory.buffer, 13, 4) };
    expect([...toTypedArray(pooled)]).toEqual([2]);
  });

  test.each<[FileDType, string]>([
    ['bool', 'Uint8Array'],
    ['uint8', 'Uint8Array'],
    ['int8', 'Int8Array'],
    ['uint16', 'Uint16Array'],
    ['int16', 'Int16Array'],
    ['float16', 'Uint16Array'],
    ['bfloat16', 'Uint16Array'],
    ['uint32', 'Uint32Array'],
    ['int32', 'Int32Array'],
    ['float32', 'Float32Array'],
    ['uint64', 'BigUint64Array'],
    ['int64', 'BigInt64Array'],
    ['float64', 'Float64Array'],
  ])('%s is a %s', (dtype, name) => {
    const values = toTypedArray({ dtype, shape: [1], data: new Uint8Array(fileDTypeBytes(dtype)) });
    expect(values[Symbol.toStringTag]).toBe(name);
    const array = fromTypedArray(dtype, [1], values);
    expect(array.data.buffer).toBe(values.buffer);
  });

  test('refuses arrays of another kind, and bytes that do not fit the shape', () => {
    thrown(() => fromTypedArray('float32', [1], new Uint16Array(1) as never), 'ERR_DTYPE', 'Float32Array');
    thrown(() => fromTypedArray('int8', [1], [1] as never), 'ERR_DTYPE', 'Int8Array');
    thrown(() => fromTypedArray('int32', [3], new Int32Array(2)), 'ERR_SHAPE', '8 bytes', '12 bytes');
    thrown(() => checkHostArray({ dtype: 'int8', shape: [1], data: [1] as never }, 'x'), 'ERR_ARGUMENT', 'x.data');
  });
});
