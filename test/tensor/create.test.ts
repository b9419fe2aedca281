import { device, memory } from '../../lib/device/device.js';
import { type DType } from '../../lib/tensor/dtype.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import { decode, encode, type FloatName, toInt32 } from './exact.js';
import { bitsOf, leaveNothingBehind } from './support.js';
import { fresh } from '../under-test.js';

leaveNothingBehind();

const DTYPES = ['float32', 'bfloat16', 'float16', 'int32'] as const;

/** Bits of a tensor's elements, with every NaN as 'NaN'. */
function bits(tensor: Tensor): (number | 'NaN')[] {
  const values = tensor.dataSync();
  if (tensor.dtype === 'int32') return [...values];
  const patterns = values instanceof Float32Array ? bitsOf(values) : values;
  const name: FloatName = tensor.dtype;
  return Array.from(patterns, (pattern) => (Number.isNaN(decode(name, pattern)) ? 'NaN' : pattern));
}

function expected(dtype: DType, value: number): number | 'NaN' {
  return dtype === 'int32' ? toInt32(value) : encode(dtype, value);
}

/** Values that are exact, that round (up, down, ties), that overflow, that vanish. */
const REALS = [
  ...[0, -0, 1, -1, 0.1, -1 / 3, 2.5, -2.5, 3.9999, 65504, 65519.99, 65520, -65536, 1e-8, 6e-8, 2 ** -25],
  ...[2 ** -24 * 1.5, 2 ** -14 - 2 ** -25, 2 ** -126, 2 ** -133, 2 ** -134, 2 ** -149, 2 ** -150, 1e-60, -1e-60],
  ...[1 + 2 ** -8, 1 + 2 ** -8 + 2 ** -40, 1 + 3 * 2 ** -8, 1 + 3 * 2 ** -8 - 2 ** -45, 1 + 2 ** -11 + 2 ** -50],
  ...[3.3895313892515355e38, 3.3961e38, 3.4028234663852886e38, 3.4028235677973366e38, 1e300, -1e300],
  ...[2 ** 31 - 1, 2 ** 31, -(2 ** 31), -(2 ** 31) - 1, 2 ** 24 + 1, 123456789, Infinity, -Infinity, NaN],
];
const INTEGERS = [0, 1, -1, 255, 256, 257, 2049, 2051, 65519, 65520, 2 ** 24 + 1, 2 ** 31 - 1, -(2 ** 31), 123456789];

describe('Tensor.from', () => {
  const sources = {
    'number[]': [REALS, (values: number[]) => values],
    Float64Array: [REALS, (values: number[]) => Float64Array.from(values)],
    Float32Array: [REALS.map(Math.fround), (values: number[]) => Float32Array.from(values)],
    Int32Array: [INTEGERS, (values: number[]) => Int32Array.from(values)],
  } as const;
  const pairs = Object.keys(sources).flatMap((source) => DTYPES.map((dtype) => [source, dtype] as const));

  test.each(pairs)('%s to %s, rounded once', (source, dtype) => {
    const [values, make] = sources[source as keyof typeof sources];
    using tensor = fresh.from(make([...values]), undefined, { dtype });
    expect(tensor.dtype).toBe(dtype);
    expect(bits(tensor)).toEqual(values.map((value) => expected(dtype, value)));
  });

  test.each(['bfloat16', 'float16'] as const)('Uint16Array holds the bits of %s', (dtype) => {
    const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
    using tensor = fresh.from(patterns, [256, 256], { dtype });
    expect(tensor.dataSync()).toEqual(patterns);
  });

  test('takes the dtype of the data', () => {
    const dtypes = [[1], new Float32Array(1), new Float64Array(1), new Int32Array(1)].map((data) => {
      using tensor = fresh.from(data);
      return tensor.dtype;
    });
    expect(dtypes).toEqual(['float32', 'float32', 'float32', 'int32']);
  });

  test.each([
    [[1, 2, 3, 4, 5, 6], undefined, [6]],
    [
      [1, 2, 3, 4, 5, 6],
      [2, 3],
      [2, 3],
    ],
    [
      [1, 2, 3, 4, 5, 6],
      [1, 6, 1],
      [1, 6, 1],
    ],
    [[7], [], []],
    [[7], [1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]],
    [[], undefined, [0]],
    [[], [0], [0]],
    [[], [3, 0, 2], [3, 0, 2]],
    [[], [-0], [0]],
  ])('%j of shape %j', (data, shape, wanted) => {
    using tensor = fresh.from(data, shape);
    expect(tensor.shape).toStrictEqual(wanted);
    expect(Object.isFrozen(tensor.shape)).toBe(true);
    expect([tensor.rank, tensor.size, tensor.byteLength]).toEqual([wanted.length, data.length, data.length * 4]);
    expect([...tensor.dataSync()]).toEqual(data);
  });

  test('copies the data and the shape, never aliases them', async () => {
    const data = Float32Array.of(1, 2, 3, 4);
    const shape = [2, 2];
    using tensor = fresh.from(data, shape);
    data.fill(9);
    shape[0] = 9;
    expect(tensor.shape).toEqual([2, 2]);
    const read = await tensor.data();
    expect([...read]).toEqual([1, 2, 3, 4]);
    read.fill(8);
    expect([...tensor.dataSync()]).toEqual([1, 2, 3, 4]);
  });

  test('takes a view of a part of a buffer, shared and resizable memory', () => {
    const buffer = Float32Array.of(0, 1, 2, 3, 4, 5).buffer;
    using part = fresh.from(new Float32Array(buffer, 8, 3));
    expect([...part.dataSync()]).toEqual([2, 3, 4]);
    const shared = new Int32Array(new SharedArrayBuffer(8));
    shared.set([-5, 6]);
    using fromShared = fresh.from(shared);
    expect([...fromShared.dataSync()]).toEqual([-5, 6]);
  });

  test('a Float16Array is float16, on a Node that has it', () => {
    const { Float16Array: Float16 } = globalThis as { Float16Array?: new (values: number[]) => Float32Array };
    expect(Float16 !== undefined).toBe(Number.parseInt(process.versions.node) >= 24);
    if (Float16 === undefined) return;
    using half = fresh.from(new Float16([1, -2.5, 65504]));
    using wide = fresh.from(new Float16([1, -2.5, 65504]), [3], { dtype: 'int32' });
    using copied = fresh.zeros([3]).copyFrom(new Float16([1, -2.5, 65504]));
    expect([half.dtype, ...half.dataSync()]).toEqual(['float16', 0x3c00, 0xc100, 0x7bff]);
    expect([...wide.dataSync(), ...copied.dataSync()]).toEqual([1, -2, 65504, 1, -2.5, 65504]);
  });

  test('a frozen list of whole numbers keeps 32 bits', () => {
    using tensor = fresh.from(Object.freeze([2 ** 31 - 1, 16777217, -16777217]), undefined, { dtype: 'int32' });
    expect([...tensor.dataSync()]).toEqual([2 ** 31 - 1, 16777217, -16777217]);
  });
});

describe('Tensor.zeros and Tensor.full', () => {
  test.each(DTYPES)('zeros of %s', (dtype) => {
    using tensor = fresh.zeros([3, 5], { dtype });
    expect([...tensor.dataSync()]).toEqual(new Array(15).fill(0));
    expect(tensor.byteLength).toBe(15 * (dtype === 'float32' || dtype === 'int32' ? 4 : 2));
  });

  test.each(DTYPES)('full of %s: every value, rounded once', (dtype) => {
    for (const value of [...REALS, 5e-324, Number.MAX_VALUE, 2.5, 3.5, -2.7]) {
      using tensor = fresh.full([3], value, { dtype });
      expect([value, ...bits(tensor)]).toEqual([value, ...new Array<number | 'NaN'>(3).fill(expected(dtype, value))]);
    }
  });

  test('full fills every element, on each side of the chunks that threads work on', () => {
    using tensor = fresh.full([2 * 16384 + 77], 1.5);
    expect(tensor.dataSync().every((value) => value === 1.5)).toBe(true);
  });

  test.each([[[]], [[0]], [[4, 0]]])('shape %j', (shape) => {
    using tensor = fresh.full(shape, 2);
    expect([...tensor.dataSync()]).toEqual(shape.length === 0 ? [2] : []);
  });

  test('float32 on the best device is the default', () => {
    using tensor = Tensor.zeros([1]);
    expect(tensor.dtype).toBe('float32');
    expect(tensor.device).toBe(device());
  });
});

test('a failed call leaves nothing behind', () => {
  expect(() => fresh.from([1, 2, 3], [2])).toThrow();
  expect(() => fresh.from(new Uint16Array(2), [2], { dtype: 'float32' })).toThrow();
  expect(memory()).toEqual({ numTensors: 0, numBytes: 0 });
});
