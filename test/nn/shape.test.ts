import '../../lib/autograd/index.js';
import { valuesOf } from '../../lib/check/values.js';
import { type DType, type Tensor, tidy } from '../../lib/index.js';
import * as functional from '../../lib/nn/functional-arithmetic.js';
import { concat, slice } from '../../lib/nn/ops/shape.js';
import { product } from '../../lib/validate.js';
import { disposed, elsewhere, expectError, NO_TENSORS } from '../attention/misuse.js';
import { useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import { disposeWhatIsOwned, expectExact, expectSame, FORMATS, given, own, random } from './numbers.js';

disposeWhatIsOwned();
useGuardedMemory();

/** Elements whose index along a dim passes, one by one. */
function pick(values: Float64Array, shape: readonly number[], dim: number, passes: (index: number) => boolean) {
  const picked: number[] = [];
  const behind = product(shape.slice(dim + 1));
  for (let row = 0; row * behind < values.length; row++) {
    if (!passes(row % shape[dim]!)) continue;
    for (let i = 0; i < behind; i++) picked.push(values[row * behind + i]!);
  }
  return Float64Array.from(picked);
}

/** Shape, dim, start, end: middles, ends, all, nothing, one element wide, rows in pieces, rows together. */
const SLICES: readonly [number[], number, number, number][] = [
  [[17], 0, 3, 9],
  [[4, 5, 6], 0, 1, 3],
  [[4, 5, 6], 1, 0, 4],
  [[4, 5, 6], 2, 5, 6],
  [[4, 5, 6], -1, 0, 6],
  [[4, 5, 6], -3, 2, 2],
  [[3, 1, 17], 1, 0, 1],
  [[1, 2, 3, 1, 3], 2, 1, 3],
  [[2, 16_500], 1, 7, 16_499],
  [[200, 301], 1, 1, 300],
  [[3, 0, 2], 0, 1, 2],
  [[0], 0, 0, 0],
];

describe.each(FORMATS)('%s', (format) => {
  test.each(SLICES)('slice of %j along %i from %i to %i', async (shape, dim, start, end) => {
    const x = random(shape, format, 1);
    const at = dim < 0 ? dim + shape.length : dim;
    const inside = (index: number) => index >= start && index < end;
    const { output, saved } = slice.forward({ x: x.tensor, dim, start, end });
    const g = random(output.shape, format, 2);
    const grads = slice.backward(own(saved), { output: g.tensor });
    [output, grads.x!].forEach(own);
    expect(output.shape).toEqual(shape.map((extent, i) => (i === at ? end - start : extent)));
    expect([output.dtype, grads.x!.dtype, grads.x!.shape]).toEqual([format, format, shape]);
    await expectExact(output, pick(x.values, shape, at, inside));
    const dx = await valuesOf(grads.x!);
    expectSame(pick(dx, shape, at, inside), g.values);
    const outside = pick(dx, shape, at, (index) => !inside(index));
    expectSame(outside, new Float64Array(outside.length));
  });

  test.each([
    [[[3], [1], [17]], 0],
    [
      [
        [2, 3, 4],
        [2, 1, 4],
        [2, 0, 4],
      ],
      1,
    ],
    [
      [
        [2, 3, 1],
        [2, 3, 17],
      ],
      -1,
    ],
    [
      [
        [1, 3],
        [2, 3],
        [1, 3],
      ],
      -2,
    ],
    [
      [
        [2, 16_500],
        [2, 3],
      ],
      1,
    ],
    [[[5, 2]], 0],
    [[[0], [0]], 0],
  ])('concat of %j along %i', async (shapes, dim) => {
    const parts = shapes.map((shape, i) => random(shape, format, i + 1));
    const at = dim < 0 ? dim + shapes[0]!.length : dim;
    const { output, saved } = concat.forward({ tensors: parts.map(({ tensor }) => tensor), dim });
    const g = random(own(output).shape, format, 9);
    const { tensors } = concat.backward(own(saved), { output: g.tensor });
    const values = await valuesOf(output);
    let start = 0;
    for (const [i, part] of parts.entries()) {
      const [from, end] = [start, start + part.shape[at]!];
      const inside = (index: number) => index >= from && index < end;
      expectSame(pick(values, output.shape, at, inside), part.values);
      expect(own(tensors[i]!).shape).toEqual(part.shape);
      await expectExact(tensors[i], pick(g.values, output.shape, at, inside));
      start = end;
    }
    expect(output.shape[at]).toBe(start);
  });
});

test('a slice has a start of 0 and the end of the dim unless given', async () => {
  const { tensor: x } = given([1, 2, 3, 4], [4]);
  await expectExact(own(functional.slice({ x, dim: 0, start: 1 })), Float64Array.of(2, 3, 4));
  await expectExact(own(functional.slice({ x, dim: 0, end: 1 })), Float64Array.of(1));
});

test('every bit is copied: NaN, -0, whole numbers', async () => {
  const strange = given([NaN, -0, Infinity, 1e-45], [2, 2]);
  await expectExact(
    own(functional.slice({ x: strange.tensor, dim: 1, start: 1 })),
    Float64Array.of(-0, Math.fround(1e-45)),
  );
  const integers = own(fresh.from(Int32Array.of(2 ** 31 - 1, -7, 5, 6), [2, 2]));
  const both = own(
    functional.concat({ tensors: [integers, functional.slice({ x: integers, dim: 1, end: 1 })].map(own), dim: 1 }),
  );
  expect([...(await both.data())]).toEqual([2 ** 31 - 1, -7, 2 ** 31 - 1, 5, 6, 5]);
});

test('gradients come together: a tensor twice in one list, a slice, and one that wants none', async () => {
  const [a, b] = [given([1, 2], [1, 2]), given([5, 6], [1, 2])];
  a.tensor.requiresGrad = true;
  tidy(() => {
    const tensors = [a.tensor, b.tensor, a.tensor, functional.slice({ x: a.tensor, dim: 1, start: 1 })];
    const joined = functional.concat({ tensors: tensors.map((x) => x.reshape([-1])), dim: 0 });
    joined.backward(fresh.from([1, 10, 100, 1000, 1e4, 1e5, 1e6]));
  });
  await expectExact(a.tensor.grad, Float64Array.of(1 + 1e4, 10 + 1e5 + 1e6));
  expect(b.tensor.grad).toBeUndefined();
});

test('only what is wanted is computed', () => {
  const { tensor: x } = given([1, 2], [2]);
  const joined = concat.forward({ tensors: [x, x, x], dim: 0 });
  const { tensors } = concat.backward(own(joined.saved), { output: own(joined.output) }, new Set(['1']));
  expect(tensors.map((tensor) => (tensor === undefined ? undefined : own(tensor).shape))).toEqual([
    undefined,
    [2],
    undefined,
  ]);
  const part = slice.forward({ x, dim: 0 });
  expect(slice.backward(own(part.saved), { output: own(part.output) }, new Set())).toEqual({});
});

describe('wrong calls', () => {
  const zeros = (shape: number[], dtype: DType = 'float32') => own(fresh.zeros(shape, { dtype }));

  test('slice', () => {
    const valid = { x: zeros([2, 3]), dim: 1, start: 1, end: 2 };
    const call = (options: object) => () => slice.forward({ ...valid, ...options });
    const [gone, scalar] = [own(disposed(valid.x)), zeros([])];
    for (const value of NO_TENSORS) expectError(call({ x: value }), 'ERR_ARGUMENT', 'x', 'a Tensor');
    expectError(call({ x: gone }), 'ERR_DISPOSED', 'x');
    expectError(call({ x: scalar }), 'ERR_SHAPE', 'x', 'rank 1 or more');
    for (const dim of [2, -3, 0.5, NaN, '1', undefined]) expectError(call({ dim }), 'ERR_ARGUMENT', 'dim');
    for (const start of [-1, 4, 0.5, '1']) expectError(call({ start }), 'ERR_ARGUMENT', 'start', 'from 0 to 3');
    for (const end of [0, 4, 1.5, '2']) expectError(call({ end }), 'ERR_ARGUMENT', 'end', 'from 1 to 3');
    expectError(call({ step: 2 }), 'ERR_ARGUMENT', 'options');
    const { output, saved } = slice.forward(valid);
    [output, saved].forEach(own);
    expectError(() => slice.backward(saved, { output: valid.x }), 'ERR_SHAPE', 'grads.output');
  });

  test('concat', () => {
    const [a, b] = [zeros([2, 3]), zeros([2, 1])];
    const call = (tensors: unknown, dim: unknown = 1) => {
      return () => concat.forward({ tensors: tensors as Tensor[], dim: dim as number });
    };
    const [gone, half, scalar, there] = [own(disposed(a)), zeros([2, 3], 'float16'), zeros([]), own(elsewhere(b))];
    const [taller, flat] = [zeros([3, 3]), zeros([3])];
    for (const tensors of [undefined, null, [], a, 'ab', new Set([a])]) {
      expectError(call(tensors), 'ERR_ARGUMENT', 'tensors', 'at least one Tensor');
    }
    for (const value of NO_TENSORS) {
      expectError(call([value]), 'ERR_ARGUMENT', 'tensors[0]', 'a Tensor');
      expectError(call([a, value]), 'ERR_ARGUMENT', 'tensors[1]', 'a Tensor');
    }
    expectError(call([a, gone]), 'ERR_DISPOSED', 'tensors[1]');
    expectError(call([a, half]), 'ERR_DTYPE', 'tensors[1]', 'as tensors[0] has');
    expectError(call([a, taller]), 'ERR_SHAPE', 'tensors[1]', '[2, 3]');
    expectError(call([a, flat]), 'ERR_SHAPE', 'tensors[1]');
    expectError(call([a, b], 0), 'ERR_SHAPE', 'tensors[1]');
    expectError(call([scalar]), 'ERR_SHAPE', 'tensors[0]', 'rank 1 or more');
    expectError(call([a, there]), 'ERR_DEVICE', 'tensors[1]', 'where tensors[0] is');
    for (const dim of [2, -3, 0.5, '0']) expectError(call([a, b], dim), 'ERR_ARGUMENT', 'dim');
    const { output, saved } = call([a, b])();
    [output, saved].forEach(own);
    expectError(() => concat.backward(saved, { output: a }), 'ERR_SHAPE', 'grads.output', 'as output has');
  });
});
