import '../../lib/autograd/index.js';
import { cpuThreads, setCpuThreads, type Tensor, tidy } from '../../lib/index.js';
import * as functional from '../../lib/nn/functional-arithmetic.js';
import { mean, meanSquaredError, sum } from '../../lib/nn/ops/loss.js';
import { disposed, elsewhere, expectError, NO_TENSORS } from '../attention/misuse.js';
import { bitsOf, useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import { disposeWhatIsOwned, expectClose, finiteDifferences, FORMATS, given, own, random } from './numbers.js';

disposeWhatIsOwned();
useGuardedMemory();

const SHAPES = [[], [1], [3], [17, 3], [1, 1024], [5, 3277], [16_385]];
const total = (x: Float64Array) => x.reduce((s, value) => s + value, 0);
const squaredError = (p: Float64Array, t: Float64Array) => total(p.map((v, i) => (v - t[i]!) ** 2)) / p.length;

describe.each(FORMATS)('%s', (format) => {
  test.each(SHAPES)('sum and mean: %j', async (...shape) => {
    const x = random(shape, format, 1);
    const g = given([1.7], []);
    for (const [pair, factor] of [
      [sum, 1],
      [mean, 1 / x.values.length],
    ] as const) {
      const { output, saved } = pair.forward({ x: x.tensor });
      const grads = pair.backward(own(saved), { output: g.tensor });
      [output, grads.x!].forEach(own);
      expect([output.shape, grads.x!.shape]).toEqual([[], shape]);
      await expectClose(output, Float64Array.of(total(x.values) * factor), 'float32', { steps: 1, least: 1e-9 });
      await expectClose(
        grads.x,
        x.values.map(() => g.values[0]! * factor),
        format,
        { steps: 1, least: 0 },
      );
    }
  });

  test.each(SHAPES)('meanSquaredError: %j', async (...shape) => {
    const [p, t, g] = [random(shape, format, 2), random(shape, format, 3), given([-0.7], [])];
    const { output, saved } = meanSquaredError.forward({ prediction: p.tensor, target: t.tensor });
    const grads = meanSquaredError.backward(own(saved), { output: g.tensor });
    [output, grads.prediction!, grads.target!].forEach(own);
    const wanted = p.values.map((v, i) => (2 * (v - t.values[i]!) * g.values[0]!) / p.values.length);
    const least = format === 'float16' ? 2 ** -24 : 1e-12;
    await expectClose(output, Float64Array.of(squaredError(p.values, t.values)), 'float32', { steps: 1 });
    await expectClose(grads.prediction, wanted, format, { steps: 1, least });
    await expectClose(
      grads.target,
      wanted.map((v) => -v),
      format,
      { steps: 1, least },
    );
  });

  test('gradients are those of the finite differences', async () => {
    const [p, t] = [random([3, 5], format, 4), random([3, 5], format, 5)];
    const compute = (x: Float64Array, y: Float64Array) => squaredError(x, y) + total(x) * 0.5 + total(y) / y.length;
    for (const { tensor } of [p, t]) tensor.requiresGrad = true;
    tidy(() => {
      const [prediction, target] = [p.tensor, t.tensor];
      const half = functional.scale({ x: functional.sum({ x: prediction }), by: 0.5 });
      const means = functional.add({ a: half, b: functional.mean({ x: target }) });
      functional.add({ a: functional.meanSquaredError({ prediction, target }), b: means }).backward();
    });
    const room = { steps: 3, least: 1e-6 };
    const wantedP = finiteDifferences((x) => compute(x, t.values), p.values);
    await expectClose(p.tensor.grad, wantedP, format, room);
    const wantedT = finiteDifferences((y) => compute(p.values, y), t.values);
    await expectClose(t.tensor.grad, wantedT, format, room);
  });
});

test('small terms are not lost beside large ones', async () => {
  const values = Float64Array.from({ length: 18_000 }, (_, i) => [2 ** 30, 1, -(2 ** 30)][i % 3]!);
  const { output, saved } = sum.forward({ x: given(values, [18_000]).tensor });
  own(saved);
  await expectClose(own(output), Float64Array.of(6_000), 'float32', { steps: 0, least: 0 });
});

test('of no elements: a sum is 0, means are NaN, gradients are empty', async () => {
  const { tensor: x } = given([], [0, 3]);
  const { tensor: one } = given([1], []);
  const values: number[] = [];
  const forwards = [sum.forward({ x }), mean.forward({ x })];
  const error = meanSquaredError.forward({ prediction: x, target: x });
  for (const { output, saved } of [...forwards, error]) {
    own(saved);
    values.push((await own(output).data())[0]!);
  }
  expect(values).toEqual([0, NaN, NaN]);
  const grads = [
    sum.backward(forwards[0]!.saved, { output: one }),
    meanSquaredError.backward(error.saved, { output: one }),
  ];
  for (const tensor of grads.flatMap((each) => Object.values<Tensor>(each))) {
    expect(own(tensor).shape).toEqual([0, 3]);
    expect(await tensor.data()).toHaveLength(0);
  }
});

test('NaN and infinities reach the loss', () => {
  const cases = [
    [[1, NaN], [0, 0], NaN],
    [[1, Infinity], [0, 0], Infinity],
    [[Infinity, 0], [Infinity, 0], NaN],
    [[3e38, 0], [-3e38, 0], Infinity],
  ] as const;
  for (const [p, t, wanted] of cases) {
    const call = { prediction: given(p, [2]).tensor, target: given(t, [2]).tensor };
    expect(own(functional.meanSquaredError(call)).item()).toBe(wanted);
  }
});

test('only what is wanted is computed', () => {
  const { tensor: x } = random([3], 'float32', 1);
  const { output, saved } = meanSquaredError.forward({ prediction: x, target: x });
  [output, saved].forEach(own);
  const keys = [['prediction'], ['target'], []].map((wanted) => {
    const grads = meanSquaredError.backward(saved, { output }, new Set(wanted));
    Object.values(grads).forEach(own);
    return Object.keys(grads);
  });
  expect(keys).toEqual([['prediction'], ['target'], []]);
  const one = sum.forward({ x });
  [one.output, one.saved].forEach(own);
  expect(sum.backward(one.saved, { output: one.output }, new Set())).toEqual({});
});

test('the same bits whatever the number of threads', async () => {
  const before = cpuThreads();
  const [a, b] = [random([40_001], 'float32', 1), random([40_001], 'float32', 2)];
  const bits = [];
  for (const threads of [1, 2, 5]) {
    setCpuThreads(threads);
    const outputs = [
      functional.sum({ x: a.tensor }),
      functional.meanSquaredError({ prediction: a.tensor, target: b.tensor }),
    ];
    bits.push((await Promise.all(outputs.map((output) => bitsOf(own(output))))).join());
  }
  setCpuThreads(before);
  expect(new Set(bits).size).toBe(1);
});

describe('wrong calls', () => {
  const zeros = (shape: number[], dtype: 'float32' | 'bfloat16' | 'int32' = 'float32') =>
    own(fresh.zeros(shape, { dtype }));

  test.each([
    ['sum', sum],
    ['mean', mean],
  ] as const)('%s', (name, pair) => {
    const x = zeros([2]);
    const [gone, integers] = [own(disposed(x)), zeros([2], 'int32')];
    for (const value of NO_TENSORS) expectError(() => pair.forward({ x: value as Tensor }), 'ERR_ARGUMENT', 'x');
    expectError(() => pair.forward({ x: gone }), 'ERR_DISPOSED', 'x');
    expectError(() => pair.forward({ x: integers }), 'ERR_DTYPE', 'x', 'int32');
    expectError(() => pair.forward({ x, dim: 0 } as { x: Tensor }), 'ERR_ARGUMENT', 'options', "'dim'");
    const { output, saved } = pair.forward({ x });
    [output, saved].forEach(own);
    expectError(() => pair.backward(saved, { output: x }), 'ERR_SHAPE', 'grads.output');
    const other = meanSquaredError.forward({ prediction: x, target: x });
    [other.output, other.saved].forEach(own);
    expectError(() => pair.backward(other.saved as never, { output }), 'ERR_ARGUMENT', 'saved', `${name}.forward`);
  });

  test('meanSquaredError', () => {
    const valid = { prediction: zeros([2, 3]), target: zeros([2, 3]) };
    const call = (options: object) => () => meanSquaredError.forward({ ...valid, ...options });
    const [gone, integers, half] = [own(disposed(valid.target)), zeros([2, 3], 'int32'), zeros([2, 3], 'bfloat16')];
    const [shorter, there] = [zeros([3]), own(elsewhere(valid.target))];
    for (const argument of ['prediction', 'target']) {
      for (const value of NO_TENSORS) expectError(call({ [argument]: value }), 'ERR_ARGUMENT', argument);
      expectError(call({ [argument]: gone }), 'ERR_DISPOSED', argument);
      expectError(call({ [argument]: integers }), 'ERR_DTYPE', argument);
    }
    expectError(call({ target: half }), 'ERR_DTYPE', 'target', 'as prediction has');
    expectError(call({ target: shorter }), 'ERR_SHAPE', 'target', 'as prediction has');
    expectError(call({ target: there }), 'ERR_DEVICE', 'target');
    expectError(call({ reduction: 'sum' }), 'ERR_ARGUMENT', 'options');
  });
});
