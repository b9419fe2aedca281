import '../../lib/autograd/index.js';
import { cpuThreads, setCpuThreads, tidy } from '../../lib/index.js';
import * as functional from '../../lib/nn/functional-arithmetic.js';
import { add, multiply, scale } from '../../lib/nn/ops/arithmetic.js';
import { combine } from '../../lib/tensor/arithmetic.js';
import { type FloatFormat, rounded } from '../../lib/oracle/index.js';
import { disposed, elsewhere, expectError, NO_TENSORS } from '../attention/misuse.js';
import { bitsOf, useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import {
  disposeWhatIsOwned,
  dot,
  expectClose,
  expectExact,
  finiteDifferences,
  FORMATS,
  given,
  own,
  random,
} from './numbers.js';

disposeWhatIsOwned();
useGuardedMemory();

/** Of a, and of b below it: equal shapes, suffixes, repeats of 1, 3 and 17, a block's end inside of b, none at all. */
const SHAPES: readonly [number[], number[]][] = [
  [
    [3, 17],
    [3, 17],
  ],
  [
    [2, 3, 17],
    [3, 17],
  ],
  [[131, 17], [17]],
  [[401, 3], [3]],
  [[1025, 1], [1]],
  [[5, 7], []],
  [[], []],
  [[3, 1500], [1500]],
  [
    [2, 0, 3],
    [0, 3],
  ],
  [[0, 3], [3]],
];

/** What the sum of the rounded terms is, in float32 and then in the format. */
const sumOf = (a: Float64Array, b: Float64Array, format: FloatFormat) =>
  rounded(
    a.map((value, i) => Math.fround(value + b[i % b.length]!)),
    format,
  );
const productOf = (a: Float64Array, b: Float64Array, format: FloatFormat) =>
  rounded(
    a.map((value, i) => Math.fround(value * b[i % b.length]!)),
    format,
  );

describe.each(FORMATS)('%s', (format) => {
  test.each(SHAPES)('add: %j and %j', async (shape, bShape) => {
    const [a, b, g] = [random(shape, format, 1), random(bShape, format, 2), random(shape, format, 3)];
    const { output, saved } = add.forward({ a: a.tensor, b: b.tensor });
    const grads = add.backward(own(saved), { output: g.tensor });
    [output, grads.a!, grads.b!].forEach(own);
    await expectExact(output, sumOf(a.values, b.values, format));
    await expectExact(grads.a, g.values);
    const wanted = b.values.map((_, j) => g.values.reduce((s, v, i) => (i % b.values.length === j ? s + v : s), 0));
    await expectClose(grads.b, wanted, format, { least: 1e-4 });
    expect([output.shape, grads.a!.shape, grads.b!.shape]).toEqual([shape, shape, bShape]);
  });

  test.each([[[]], [[1]], [[3, 17]], [[2049]], [[2, 0]]])('multiply and scale: %j', async (shape) => {
    const [a, b, g] = [1, 2, 3].map((seed) => random(shape, format, seed)) as [
      ReturnType<typeof given>,
      ReturnType<typeof given>,
      ReturnType<typeof given>,
    ];
    const { output, saved } = multiply.forward({ a: a.tensor, b: b.tensor });
    const grads = multiply.backward(own(saved), { output: g.tensor });
    [output, grads.a!, grads.b!].forEach(own);
    await expectExact(output, productOf(a.values, b.values, format));
    await expectExact(grads.a, productOf(g.values, b.values, format));
    await expectExact(grads.b, productOf(g.values, a.values, format));
    const scaled = scale.forward({ x: a.tensor, by: 0.3 });
    const back = scale.backward(own(scaled.saved), { output: g.tensor });
    [scaled.output, back.x!].forEach(own);
    const factor = Float64Array.of(Math.fround(0.3));
    await expectExact(scaled.output, productOf(a.values, factor, format));
    await expectExact(back.x, productOf(g.values, factor, format));
  });

  test('gradients are those of the finite differences', async () => {
    const [a, b, g] = [random([5, 3], format, 4), random([3], format, 5), random([5, 3], format, 6)];
    const c = random([5, 3], format, 7);
    // (a + b) * c * 0.5
    const compute = (x: Float64Array, y: Float64Array, z: Float64Array) =>
      dot(
        x.map((value, i) => 0.5 * (value + y[i % 3]!) * z[i]!),
        g.values,
      );
    for (const { tensor } of [a, b, c]) tensor.requiresGrad = true;
    tidy(() => {
      const sum = functional.add({ a: a.tensor, b: b.tensor });
      functional.scale({ x: functional.multiply({ a: sum, b: c.tensor }), by: 0.5 }).backward(g.tensor);
    });
    const room = { steps: 4, least: format === 'float32' ? 1e-6 : format === 'float16' ? 4e-3 : 3e-2 };
    const wantedA = finiteDifferences((x) => compute(x, b.values, c.values), a.values);
    await expectClose(a.tensor.grad, wantedA, format, room);
    const wantedB = finiteDifferences((y) => compute(a.values, y, c.values), b.values);
    await expectClose(b.tensor.grad, wantedB, format, room);
    const wantedC = finiteDifferences((z) => compute(a.values, b.values, z), c.values);
    await expectClose(c.tensor.grad, wantedC, format, room);
  });
});

test('NaN, infinities and -0 are what IEEE 754 says', async () => {
  const a = given([NaN, Infinity, Infinity, -0, -0, 3e38, 1], [7]);
  const b = given([1, 1, -Infinity, -0, 0, 3e38, NaN], [7]);
  const sum = own(functional.add({ a: a.tensor, b: b.tensor }));
  await expectExact(sum, Float64Array.of(NaN, Infinity, NaN, -0, 0, Infinity, NaN));
  const scaled = own(functional.scale({ x: a.tensor, by: -1 }));
  await expectExact(scaled, Float64Array.of(NaN, -Infinity, -Infinity, 0, 0, -Math.fround(3e38), -1));
});

test('a combination of two weighs both in float32', async () => {
  const [a, b] = [random([1030], 'float32', 8), random([1030], 'float32', 9)];
  const output = own(combine(a.tensor, 0.25, b.tensor, 0.75));
  await expectClose(
    output,
    a.values.map((value, i) => 0.25 * value + 0.75 * b.values[i]!),
    'float32',
  );
});

test('only what is wanted is computed', () => {
  const { tensor } = random([3, 2], 'float32', 1);
  const row = random([2], 'float32', 2);
  const sum = add.forward({ a: tensor, b: row.tensor });
  const times = multiply.forward({ a: tensor, b: tensor });
  const scaled = scale.forward({ x: tensor, by: 2 });
  const grads = { output: tensor };
  const found = [
    add.backward(sum.saved, grads, new Set(['b'])),
    add.backward(sum.saved, grads, new Set(['a'])),
    multiply.backward(times.saved, grads, new Set(['b'])),
    multiply.backward(times.saved, grads, new Set(['a'])),
    scale.backward(scaled.saved, grads, new Set()),
  ];
  expect(found.map((each) => Object.keys(each))).toEqual([['b'], ['a'], ['b'], ['a'], []]);
  for (const { output, saved } of [sum, times, scaled]) [output, saved].forEach(own);
  found.flatMap((each) => Object.values(each)).forEach(own);
});

test('the same bits whatever the number of threads', async () => {
  const before = cpuThreads();
  const [a, b] = [random([40_001], 'bfloat16', 1), random([40_001], 'bfloat16', 2)];
  const bits = [];
  for (const threads of [1, 2, 5]) {
    setCpuThreads(threads);
    bits.push(await bitsOf(own(functional.multiply({ a: a.tensor, b: b.tensor }))));
  }
  setCpuThreads(before);
  expect(new Set(bits).size).toBe(1);
});

describe('wrong calls', () => {
  const zeros = (shape: number[], dtype: 'float32' | 'bfloat16' | 'int32' = 'float32') =>
    own(fresh.zeros(shape, { dtype }));

  test.each([
    ['add', add, ['a', 'b']],
    ['multiply', multiply, ['a', 'b']],
  ] as const)('%s', (_, pair, names) => {
    const valid = { a: zeros([2, 3]), b: zeros([2, 3]) };
    const call = (options: object) => () => pair.forward({ ...valid, ...options });
    for (const argument of names) {
      for (const value of NO_TENSORS) expectError(call({ [argument]: value }), 'ERR_ARGUMENT', argument, 'a Tensor');
      expectError(call({ [argument]: own(disposed(valid.a)) }), 'ERR_DISPOSED', argument);
      expectError(call({ [argument]: zeros([2, 3], 'int32') }), 'ERR_DTYPE', argument, 'int32');
    }
    expectError(call({ b: zeros([2, 3], 'bfloat16') }), 'ERR_DTYPE', 'b', 'float32, as a has');
    for (const shape of [[2], [2, 1], [1, 3], [1, 2, 3], [3, 2]]) {
      expectError(call({ b: zeros(shape) }), 'ERR_SHAPE', 'b', 'as a has');
    }
    expectError(call({ b: own(elsewhere(valid.b)) }), 'ERR_DEVICE', 'b', 'where a is');
    expectError(call({ c: 1 }), 'ERR_ARGUMENT', 'options', "unknown option 'c'");
  });

  test('scale', () => {
    const x = zeros([2]);
    for (const by of [NaN, Infinity, 1e39, '2', undefined, null]) {
      expectError(() => scale.forward({ x, by: by as number }), 'ERR_ARGUMENT', 'by');
    }
    for (const value of NO_TENSORS) {
      expectError(() => scale.forward({ x: value as typeof x, by: 1 }), 'ERR_ARGUMENT', 'x', 'a Tensor');
    }
  });

  test('backward', () => {
    const x = zeros([2]);
    const [{ saved, output }, other] = [add.forward({ a: x, b: x }), scale.forward({ x, by: 1 })];
    [saved, output, other.saved, other.output].forEach(own);
    const wrong = other.saved as unknown as typeof saved;
    expectError(() => add.backward(wrong, { output: x }), 'ERR_ARGUMENT', 'saved', 'add.forward');
    const [longer, narrower] = [zeros([3]), zeros([2], 'bfloat16')];
    expectError(() => add.backward(saved, { output: longer }), 'ERR_SHAPE', 'grads.output');
    expectError(() => add.backward(saved, { output: narrower }), 'ERR_DTYPE', 'grads.output');
    saved.dispose();
    expectError(() => add.backward(saved, { output: x }), 'ERR_DISPOSED', 'saved');
  });
});
