import { type DeviceString, memory } from '../../lib/device/device.js';
import { VsaTypeError } from '../../lib/errors.js';
import type { Tensor } from '../../lib/tensor/tensor.js';
import { encode } from './exact.js';
import { checkFailure, failureOf, leaveNothingBehind } from './support.js';
import { fresh, here } from '../under-test.js';

leaveNothingBehind();

const SIX = [1, 2, 3, 4, 5, 6];

describe('reshape', () => {
  test.each([
    [[6], [6]],
    [
      [3, 2],
      [3, 2],
    ],
    [
      [1, 6, 1, 1],
      [1, 6, 1, 1],
    ],
    [[-1], [6]],
    [
      [2, -1],
      [2, 3],
    ],
    [
      [-1, 1, 3],
      [2, 1, 3],
    ],
    [
      [6, -1],
      [6, 1],
    ],
  ])('[2, 3] to %j', (shape, wanted) => {
    using x = fresh.from(SIX, [2, 3]);
    using y = x.reshape(shape);
    expect(y.shape).toStrictEqual(wanted);
    expect([...y.dataSync()]).toEqual(SIX);
  });

  test('a scalar, and tensors without elements', () => {
    using scalar = fresh.full([], 5);
    using one = scalar.reshape([1, -1]);
    using back = one.reshape([]);
    expect([one.shape, back.shape, back.item()]).toEqual([[1, 1], [], 5]);
    using none = fresh.zeros([0, 3]);
    using other = none.reshape([7, 0, 2]);
    using left = none.reshape([5, -1]);
    expect([other.shape, left.shape]).toEqual([
      [7, 0, 2],
      [5, 0],
    ]);
  });

  test('shares the memory, each tensor with a lifetime of its own', () => {
    const x = fresh.from(SIX);
    const y = x.reshape([3, 2]);
    expect(memory()).toEqual({ numTensors: 2, numBytes: 24 });
    x.copyFrom(Float32Array.of(6, 5, 4, 3, 2, 1));
    x.dispose();
    expect(memory()).toEqual({ numTensors: 1, numBytes: 24 });
    expect([...y.dataSync()]).toEqual([6, 5, 4, 3, 2, 1]);
    y.dispose();
  });

  test('does not keep or change the shape it is given', () => {
    using x = fresh.from(SIX);
    const shape = [-1, 3];
    using y = x.reshape(shape);
    expect(shape).toEqual([-1, 3]);
    shape[1] = 1;
    expect(y.shape).toEqual([2, 3]);
  });
});

describe('clone and to', () => {
  test.each(['float32', 'bfloat16', 'float16', 'int32'] as const)('a clone of %s has memory of its own', (dtype) => {
    using x = fresh.from(SIX, [2, 3], { dtype });
    using y = x.clone();
    expect(memory()).toEqual({ numTensors: 2, numBytes: 2 * x.byteLength });
    expect([y.shape, y.dtype]).toEqual([[2, 3], dtype]);
    const before = y.dataSync();
    expect(before).toEqual(x.dataSync());
    using zeros = fresh.zeros([2, 3]);
    x.copyFrom(zeros);
    expect(y.dataSync()).toEqual(before);
    expect([...x.dataSync()]).toEqual([0, 0, 0, 0, 0, 0]);
  });

  test('a clone keeps the bits, those of NaNs too', () => {
    const patterns = Uint16Array.of(0x7f81, 0xffff, 0x7fc0, 0x8000);
    using x = fresh.from(patterns, undefined, { dtype: 'bfloat16' });
    using y = x.clone();
    expect(y.dataSync()).toEqual(patterns);
  });

  test('to the device it is on: the memory is shared, the result is to be disposed', () => {
    const x = fresh.from(SIX);
    for (const where of [here.toString() as DeviceString, here]) {
      const y = x.to(where);
      expect(y).not.toBe(x);
      expect(memory()).toEqual({ numTensors: 2, numBytes: 24 });
      y.dispose();
    }
    expect(x.disposed).toBe(false);
    x.dispose();
  });
});

describe('copyFrom', () => {
  test.each(['float32', 'bfloat16', 'float16', 'int32'] as const)(
    'into %s: from every dtype and typed array',
    (dtype) => {
      using x = fresh.zeros([4], { dtype });
      const values = [1, -2, 3.75, 40_000];
      const wanted = values.map((value) => (dtype === 'int32' ? Math.trunc(value) : encode(dtype, value)));
      const bits = () => {
        const data = x.dataSync();
        return data instanceof Float32Array ? [...new Uint32Array(data.buffer)] : [...data];
      };
      const whole = values.map(Math.trunc);
      const wantedWhole = whole.map((value) => (dtype === 'int32' ? value : encode(dtype, value)));

      expect(x.copyFrom(Float32Array.from(values))).toBe(x);
      expect(bits()).toEqual(wanted);
      x.copyFrom(Int32Array.from(whole));
      expect(bits()).toEqual(wantedWhole);
      x.copyFrom(Float64Array.from(values));
      expect(bits()).toEqual(wanted);
      for (const from of ['float32', 'int32'] as const) {
        using source = fresh.from(values, undefined, { dtype: from });
        x.copyFrom(source);
        expect(bits()).toEqual(from === 'int32' ? wantedWhole : wanted);
      }
      if (dtype === 'bfloat16' || dtype === 'float16') {
        const patterns = Uint16Array.of(1, 0x8000, 0x1234, 0xfe01);
        x.copyFrom(patterns);
        expect(x.dataSync()).toEqual(patterns);
      }
    },
  );

  test('is in order with the operations called before and after', async () => {
    using x = fresh.zeros([1000]);
    const values: Promise<unknown>[] = [];
    const host = new Float32Array(1000);
    for (let i = 1; i <= 50; i++) {
      host.fill(i);
      x.copyFrom(host);
      host.fill(-1); // what was given is copied before the call returns
      using y = x.clone();
      values.push(y.data().then((data) => data[999]));
      values.push(x.data().then((data) => data[0]));
    }
    expect(await Promise.all(values)).toEqual(Array.from({ length: 100 }, (_, i) => Math.floor(i / 2) + 1));
  });

  test('from itself, and from a tensor that shares its memory', () => {
    using x = fresh.from(SIX);
    using y = x.reshape([6]);
    x.copyFrom(x).copyFrom(y);
    expect([...x.dataSync()]).toEqual(SIX);
  });

  test('an empty tensor', () => {
    using x = fresh.zeros([0, 2]);
    x.copyFrom(new Float32Array(0));
    expect(x.dataSync()).toEqual(new Float32Array(0));
  });
});

describe('item', () => {
  test.each([
    ['float32', 1.5, 1.5],
    ['bfloat16', -0.15625, -0.15625],
    ['float16', 65504, 65504],
    ['int32', -2147483648, -2147483648],
    ['float32', -0, -0],
    ['float16', NaN, NaN],
  ] as const)('%s %d', (dtype, value, wanted) => {
    for (const shape of [[], [1], [1, 1, 1]]) {
      using x = fresh.full(shape, value, { dtype });
      expect(x.item()).toBe(wanted);
    }
  });

  test('of more or no elements is an error', async () => {
    for (const shape of [[2], [0]]) {
      using x = fresh.zeros(shape);
      const error = await failureOf(() => x.item());
      expect(error).toMatchObject({
        name: 'VsaRangeError',
        code: 'ERR_SHAPE',
        argument: 'this',
        got: `[${shape[0]!}]`,
      });
    }
  });
});

describe('disposal', () => {
  test('dispose gives the memory back, twice is once', () => {
    const x = fresh.zeros([10]);
    expect([x.disposed, memory().numBytes]).toEqual([false, 40]);
    x.dispose();
    x.dispose();
    expect([x.disposed, memory()]).toEqual([true, { numTensors: 0, numBytes: 0 }]);
    expect(x.shape).toEqual([10]);
  });

  test('what its memory was known by serves the next tensors, and the disposed one stays disposed', async () => {
    const first = fresh.full([3], 1);
    first.dispose();
    using second = fresh.full([3], 2);
    using third = second.reshape([3, 1]);
    expect(() => first.cast('int32')).toThrow('a disposed tensor');
    first.dispose();
    expect([...(await second.data()), ...(await third.data())]).toEqual([2, 2, 2, 2, 2, 2]);
    second.dispose();
    using fourth = fresh.full([3], 4);
    expect([...(await third.data()), ...(await fourth.data())]).toEqual([2, 2, 2, 4, 4, 4]);
  });

  test('using disposes at the end of the block, also when it throws', () => {
    let outer: Tensor | undefined;
    expect(() => {
      using x = fresh.zeros([2]);
      outer = x;
      throw new Error('mine');
    }).toThrow('mine');
    expect(outer?.disposed).toBe(true);
    const y = fresh.zeros([2]);
    y[Symbol.dispose]();
    expect(y.disposed).toBe(true);
  });

  test('operations already called still run on what is disposed', async () => {
    const x = fresh.randn([100_000], { seed: 9 });
    const y = x.cast('bfloat16');
    const promise = y.data();
    x.dispose();
    y.dispose();
    using again = fresh.randn([100_000], { seed: 9, dtype: 'bfloat16' });
    expect(await promise).toEqual(again.dataSync());
  });

  const uses: [string, (x: Tensor) => unknown][] = [
    ['to', (x) => x.to(here)],
    ['cast', (x) => x.cast('float16')],
    ['cast to the same dtype', (x) => x.cast('float32')],
    ['reshape', (x) => x.reshape([2, 1])],
    ['clone', (x) => x.clone()],
    ['copyFrom', (x) => x.copyFrom(new Float32Array(2))],
    ['data', (x) => x.data()],
    ['dataSync', (x) => x.dataSync()],
    ['toFloat32', (x) => x.toFloat32()],
    ['item', (x) => x.item()],
  ];
  test.each(uses)('%s of a disposed tensor', async (_, use) => {
    const x = fresh.zeros([2]);
    x.dispose();
    const [got, wanted] = ['a disposed tensor', 'a living one'];
    const expected = { type: VsaTypeError, code: 'ERR_DISPOSED', argument: 'this', got, wanted } as const;
    checkFailure(await failureOf(() => use(x)), expected);
  });

  test('copyFrom a disposed tensor', async () => {
    using x = fresh.zeros([2]);
    const y = fresh.zeros([2]);
    y.dispose();
    expect(await failureOf(() => x.copyFrom(y))).toMatchObject({ code: 'ERR_DISPOSED', argument: 'source' });
  });

  test('data and toFloat32 reject, they do not throw', async () => {
    const x = fresh.zeros([2]);
    x.dispose();
    const [a, b] = [x.data(), x.toFloat32()];
    await expect(a).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await expect(b).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});

test('toString', () => {
  using x = fresh.zeros([2, 3], { dtype: 'bfloat16' });
  expect(String(x)).toBe(`Tensor([2, 3], bfloat16, ${here.toString()})`);
  const y = fresh.zeros([]);
  y.dispose();
  expect(y.toString()).toBe(`Tensor([], float32, ${here.toString()}, disposed)`);
});
