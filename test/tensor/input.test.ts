/** Bad input: for every argument the class, the code, and a sentence with its name, what it got and what it wanted. */

import { cudaProblem, setCpuThreads } from '../../lib/device/device.js';
import { type ErrorCode, VsaError, VsaRangeError, VsaTypeError } from '../../lib/errors.js';
import { keep, tidy } from '../../lib/tensor/scope.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import { fresh } from '../under-test.js';
import { checkFailure, failureOf, leaveNothingBehind } from './support.js';

leaveNothingBehind();

/** Calls that fail with the same code, argument and wish: what each is, the call, and what the message says it got. */
interface Group {
  code: ErrorCode;
  argument: string;
  wanted: string;
  calls: [what: string, call: () => unknown, got: string][];
}

/** Lets a test say what the types forbid. */
function wrong(value: unknown): never {
  return value as never;
}

/** Runs `call` on a tensor of [2, 3] that is disposed afterwards. */
function on(call: (x: Tensor) => unknown): () => unknown {
  return () => {
    using x = fresh.zeros([2, 3]);
    const result = call(x);
    if (result instanceof Tensor) result.dispose();
  };
}

const revoked = Proxy.revocable({}, {});
revoked.revoke();
const cyclic: unknown[] = [];
cyclic.push(cyclic);
const bits = new Uint16Array(6);

const typeErrors: Group[] = [
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'data' },
    wanted: 'numbers, a Float32Array, Float64Array, Uint16Array or Int32Array',
    calls: [
      ['a number as data', () => Tensor.from(wrong(5)), '5'],
      ['a string as data', () => Tensor.from(wrong('12\n3')), "'12\\n3'"],
      ['no data', () => Tensor.from(wrong(undefined)), 'undefined'],
      ['an object as data', () => Tensor.from(wrong({ length: 1 })), 'an object'],
      ['an ArrayBuffer as data', () => Tensor.from(wrong(new ArrayBuffer(8))), 'an ArrayBuffer'],
      ['a DataView as data', () => Tensor.from(wrong(new DataView(new ArrayBuffer(8)))), 'a DataView'],
      ['a Uint8Array as data', () => Tensor.from(wrong(new Uint8Array(2))), 'a Uint8Array'],
      ['a BigInt64Array as data', () => Tensor.from(wrong(new BigInt64Array(2))), 'a BigInt64Array'],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'data[1]', wanted: 'a number' },
    calls: [
      ['a string among numbers', () => Tensor.from(wrong([1, '2'])), "'2'"],
      ['a list among numbers', () => Tensor.from(wrong([1, [2, [3, [4]]]])), '[2, [3, an array]]'],
      ['a bigint among numbers', () => Tensor.from(wrong([1, 2n])), '2n'],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'data[0]', wanted: 'a number' },
    calls: [['a list of holes', () => Tensor.from(new Array<number>(2)), 'undefined']],
  },
  {
    ...{ code: 'ERR_DTYPE', argument: 'dtype', wanted: "one of 'float32', 'bfloat16', 'float16', 'int32'" },
    calls: [
      ['from with an unknown dtype', () => Tensor.from([1], [1], { dtype: wrong('float64') }), "'float64'"],
      ['from with a dtype of null', () => Tensor.from([1], [1], { dtype: wrong(null) }), 'null'],
      ['zeros with an unknown dtype', () => Tensor.zeros([1], { dtype: wrong('f32') }), "'f32'"],
      ['full with a dtype of null', () => Tensor.full([1], 1, { dtype: wrong(null) }), 'null'],
      ['cast to nothing', on((x) => x.cast(wrong(undefined))), 'undefined'],
      ['cast to a number', on((x) => x.cast(wrong(3))), '3'],
      ['cast to a key of every object', on((x) => x.cast(wrong('constructor'))), "'constructor'"],
    ],
  },
  {
    ...{ code: 'ERR_DTYPE', argument: 'dtype', wanted: "one of 'float32', 'bfloat16', 'float16'" },
    calls: [
      ['randn of int32', () => Tensor.randn([1], { dtype: 'int32' }), "'int32'"],
      ['randn with a dtype of null', () => Tensor.randn([1], { dtype: wrong(null) }), 'null'],
    ],
  },
  {
    ...{ code: 'ERR_DTYPE', argument: 'dtype', wanted: "'bfloat16' or 'float16': it holds their bits" },
    calls: [
      ['bits without a dtype', () => Tensor.from(bits), 'undefined with a Uint16Array'],
      ['bits as float32', () => Tensor.from(bits, [6], { dtype: 'float32' }), "'float32' with a Uint16Array"],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'options', wanted: 'only dtype, device' },
    calls: [
      ['a misspelt option', () => Tensor.from([1], [1], wrong({ dtpye: 'int32' })), "the unknown option 'dtpye'"],
      ['zeros with a seed', () => Tensor.zeros([1], wrong({ seed: 1 })), "the unknown option 'seed'"],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'options', wanted: 'only device, seed' },
    calls: [
      ['randbits with a dtype', () => Tensor.randbits([1], wrong({ dtype: 'int32' })), "the unknown option 'dtype'"],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'options', wanted: 'an object' },
    calls: [
      ['options of null', () => Tensor.from([1], [1], wrong(null)), 'null'],
      ['options that are a string', () => Tensor.zeros([1], wrong('bfloat16')), "'bfloat16'"],
      ['options that are a list', () => Tensor.full([1], 1, wrong([])), '[]'],
      ['options that are a function', () => Tensor.randn([1], wrong(on)), 'function on'],
    ],
  },
  {
    ...{ code: 'ERR_DEVICE', argument: 'device', wanted: "'cpu', 'cuda', 'cuda:N' or a Device that device() gave" },
    calls: [
      ['an unknown device', () => Tensor.from([1], [1], { device: wrong('gpu') }), "'gpu'"],
      ['a device of null', () => Tensor.zeros([1], { device: wrong(null) }), 'null'],
      ['what looks like a device', () => Tensor.zeros([1], { device: wrong({ type: 'cpu', index: 0 }) }), 'an object'],
      [
        'a revoked proxy',
        () => Tensor.zeros([1], { device: wrong(revoked.proxy) }),
        'an object that cannot be looked at',
      ],
      ['to an unknown device', on((x) => x.to(wrong('cpu:0'))), "'cpu:0'"],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'value', wanted: 'a number' },
    calls: [
      ['full of text', () => Tensor.full([1], wrong('1')), "'1'"],
      ['full of a bigint', () => Tensor.full([1], wrong(1n)), '1n'],
      ['full of nothing', () => Tensor.full([1], wrong(undefined)), 'undefined'],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'source', wanted: 'a Tensor or a typed array' },
    calls: [
      ['copyFrom numbers', on((x) => x.copyFrom(wrong([1, 2]))), '[1, 2]'],
      ['copyFrom nothing', on((x) => x.copyFrom(wrong(undefined))), 'undefined'],
      ['copyFrom a DataView', on((x) => x.copyFrom(wrong(new DataView(new ArrayBuffer(4))))), 'a DataView'],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'source' },
    wanted: 'a Tensor, a Float32Array, Float64Array, Uint16Array or Int32Array',
    calls: [['copyFrom bytes', on((x) => x.copyFrom(wrong(new Uint8Array(6)))), 'a Uint8Array']],
  },
  {
    ...{ code: 'ERR_DTYPE', argument: 'source', wanted: "'bfloat16' or 'float16': it holds their bits" },
    calls: [['copyFrom bits into float32', on((x) => x.copyFrom(bits)), "'float32' with a Uint16Array"]],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'fn', wanted: 'a function' },
    calls: [
      ['tidy of nothing', () => tidy(wrong(undefined)), 'undefined'],
      ['tidy of an object', () => tidy(wrong({})), 'an object'],
    ],
  },
];

const rangeErrors: Group[] = [
  {
    ...{ code: 'ERR_SHAPE', argument: 'shape', wanted: 'as many elements as there are values' },
    calls: [
      ['fewer values than elements', () => Tensor.from([1, 2, 3], [2, 2]), '[2, 2] for 3 values'],
      ['more values than elements', () => Tensor.from(new Float32Array(9), []), '[] for 9 values'],
    ],
  },
  {
    ...{ code: 'ERR_SHAPE', argument: 'shape', wanted: 'an array of whole numbers' },
    calls: [
      ['a shape of null', () => Tensor.from([1], wrong(null)), 'null'],
      ['a number as shape', () => Tensor.zeros(wrong(4)), '4'],
      ['a typed array as shape', () => Tensor.zeros(wrong(Int32Array.of(2))), 'an Int32Array'],
      ['no shape', () => Tensor.zeros(wrong(undefined)), 'undefined'],
      ['reshape to nothing', on((x) => x.reshape(wrong(undefined))), 'undefined'],
    ],
  },
  {
    ...{ code: 'ERR_SHAPE', argument: 'shape', wanted: 'whole numbers of at least 0' },
    calls: [
      ['from with a dim to be found', () => Tensor.from([1], [-1]), '[-1]'],
      ['a negative dim', () => Tensor.zeros([2, -3]), '[2, -3]'],
      ['a dim with a fraction', () => Tensor.zeros([1.5]), '[1.5]'],
      ['a dim of NaN', () => Tensor.full([NaN], 1), '[NaN]'],
      ['a dim of infinity', () => Tensor.randn([Infinity]), '[Infinity]'],
      ['a dim that is a string', () => Tensor.zeros(wrong(['2'])), "['2']"],
      ['a dim that is a hole', () => Tensor.zeros(new Array<number>(2)), '[undefined, undefined]'],
      ['a dim beyond exact numbers', () => Tensor.zeros([2 ** 53]), '[9007199254740992]'],
      ['a shape that contains itself', () => Tensor.zeros(wrong(cyclic)), '[[an array]]'],
    ],
  },
  {
    ...{ code: 'ERR_SHAPE', argument: 'shape', wanted: 'at most 8 dims' },
    calls: [['nine dims', () => Tensor.zeros(new Array<number>(9).fill(1)), '[1, 1, 1, 1, 1, 1, 1, 1, ... 9 in all]']],
  },
  {
    ...{ code: 'ERR_SHAPE', argument: 'shape', wanted: 'fewer than 2^50 elements' },
    calls: [
      ['bytes that cannot be counted', () => Tensor.zeros([2 ** 25, 2 ** 25]), '[33554432, 33554432]'],
      ['dims that cannot be counted, and 0', () => Tensor.zeros([0, 2 ** 30, 2 ** 30]), '[0, 1073741824, 1073741824]'],
      ['dims beyond all numbers', () => Tensor.randbits([2 ** 52, 2 ** 52]), '[4503599627370496, 4503599627370496]'],
    ],
  },
  {
    ...{ code: 'ERR_SHAPE', argument: 'shape', wanted: 'whole numbers of at least 0, or one -1' },
    calls: [
      ['reshape with two dims to be found', on((x) => x.reshape([-1, -1])), '[-1, -1]'],
      ['reshape to a dim of -2', on((x) => x.reshape([-2, -3])), '[-2, -3]'],
    ],
  },
  {
    ...{ code: 'ERR_SHAPE', argument: 'shape', wanted: '6 elements' },
    calls: [
      ['reshape to fewer elements', on((x) => x.reshape([4])), '[4]'],
      ['reshape to none', on((x) => x.reshape([0, -1])), '[0, -1]'],
      ['reshape that leaves a fraction', on((x) => x.reshape([4, -1])), '[4, -1]'],
    ],
  },
  {
    ...{ code: 'ERR_SHAPE', argument: 'shape', wanted: '0 elements' },
    calls: [['reshape where any dim would do', () => tidy(() => fresh.zeros([0]).reshape([0, -1])), '[0, -1]']],
  },
  {
    ...{ code: 'ERR_SHAPE', argument: 'source', wanted: '6, for [2, 3]' },
    calls: [['copyFrom too few values', on((x) => x.copyFrom(new Float32Array(5))), '5 values']],
  },
  {
    ...{ code: 'ERR_SHAPE', argument: 'source', wanted: '[2, 3]' },
    calls: [['copyFrom another shape', on((x) => tidy(() => void x.copyFrom(fresh.zeros([3, 2])))), '[3, 2]']],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'seed', wanted: 'a whole number from 0 to 2^64 - 1' },
    calls: [
      ['a negative seed', () => Tensor.randn([1], { seed: -1 }), '-1'],
      ['a seed with a fraction', () => Tensor.randn([1], { seed: 0.5 }), '0.5'],
      ['a seed beyond exact numbers', () => Tensor.randbits([1], { seed: 2 ** 53 }), '9007199254740992'],
      ['a seed of 2^64', () => Tensor.randbits([1], { seed: 2n ** 64n }), '18446744073709551616n'],
      ['a seed of -1n', () => Tensor.randn([1], { seed: -1n }), '-1n'],
      ['a seed that is a string', () => Tensor.randn([1], { seed: wrong('1') }), "'1'"],
      ['a seed of null', () => Tensor.randn([1], { seed: wrong(null) }), 'null'],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'mean', wanted: 'a finite number' },
    calls: [
      ['an infinite mean', () => Tensor.randn([1], { mean: Infinity }), 'Infinity'],
      ['a mean that is a string', () => Tensor.randn([1], { mean: wrong('0') }), "'0'"],
    ],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'std', wanted: 'a finite number' },
    calls: [['a deviation of NaN', () => Tensor.randn([1], { std: NaN }), 'NaN']],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'std', wanted: 'at least 0' },
    calls: [['a negative deviation', () => Tensor.randn([1], { std: -0.5 }), '-0.5']],
  },
  {
    ...{ code: 'ERR_ARGUMENT', argument: 'count', wanted: 'a whole number from 1 to 1024' },
    calls: [
      ['no threads', () => setCpuThreads(0), '0'],
      ['too many threads', () => setCpuThreads(1025), '1025'],
      ['half a thread', () => setCpuThreads(1.5), '1.5'],
      ['threads as text', () => setCpuThreads(wrong('2')), "'2'"],
    ],
  },
];

describe.each([
  ['VsaTypeError', VsaTypeError, TypeError, typeErrors],
  ['VsaRangeError', VsaRangeError, RangeError, rangeErrors],
] as const)('%s', (_, type, base, groups) => {
  const cases = groups.flatMap(({ calls, ...rest }) =>
    calls.map(([what, call, got]) => ({ ...rest, what, call, got })),
  );
  test.each(cases)('$what', async ({ call, code, argument, got, wanted }) => {
    const error = await failureOf(call);
    expect(error).toBeInstanceOf(base);
    checkFailure(error, { type, code, argument, got, wanted });
  });
});

const missing = (['cuda', 'cuda:0', 'cuda:12'] as const).filter((name) => cudaProblem(Number(name.slice(5))) !== '');
test.each(missing)('a device that is not here: %s, with the reason', async (name) => {
  const error = await failureOf(() => Tensor.zeros([1], { device: name }));
  const [got, wanted] = [`'${name}'`, /^'cpu', or a GPU that can be used: .*cuda/i];
  checkFailure(error, { type: VsaError, code: 'ERR_DEVICE', argument: 'device', got, wanted });
});

test('keep and tidy take whatever they are given', () => {
  for (const value of [undefined, null, 5, 'text', Symbol('s'), [], {}, new Map(), new Date(0)]) {
    expect(keep(value)).toBe(value);
    expect(tidy(() => value)).toBe(value);
  }
});
