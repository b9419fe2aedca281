import { memory, Tensor, tidy } from '../../lib/index.js';
import { useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import { add, leaf, multiply, numbers, scale, sum, watched } from './support.js';

useGuardedMemory();

test('a graph that nobody goes through is given back with its output', () => {
  const x = leaf([1, 2]);
  const before = memory();
  const loss = tidy(() => sum({ x: multiply({ a: x, b: scale({ x, by: 2 }) }) }));
  // Beside the loss: what multiply saved, in shares of memory of their own.
  expect(memory().numBytes).toBeGreaterThan(before.numBytes + 4);
  loss.dispose();
  expect(memory()).toEqual(before);
  x.dispose();
});

test('what a backward saved is given back while the output lives', () => {
  const x = leaf([1, 2]);
  const loss = tidy(() => sum({ x: multiply({ a: x, b: scale({ x, by: 2 }) }) }));
  loss.backward();
  // x, its gradient, the loss
  expect(memory()).toEqual({ numTensors: 3, numBytes: 20 });
  loss.dispose();
  x.dispose();
});

test('a leaf that is disposed before the backward', async () => {
  const [x, w] = [leaf([1, 2]), leaf([3, 4])];
  const loss = tidy(() => sum({ x: multiply({ a: x, b: w }) }));
  x.dispose();
  loss.backward();
  expect([await numbers(w.grad), x.grad]).toEqual([[1, 2], undefined]);
  loss.dispose();
  w.dispose();
});

test('outputs that are disposed before the backward, by hand', async () => {
  const x = leaf([2]);
  const square = multiply({ a: x, b: x });
  const loss = scale({ x: square, by: 5 });
  square.dispose();
  loss.backward();
  loss.dispose();
  expect(await numbers(x.grad)).toEqual([20]);
  x.dispose();
});

test('an exception in a backward changes no gradient and leaves nothing', async () => {
  const [x, w] = [leaf([1]), leaf([2])];
  tidy(() => multiply({ a: x, b: w }).backward());
  const before = memory();
  for (const retainGraph of [false, true]) {
    const loss = tidy(() => {
      const failing = watched(() => {
        throw new Error('inside a backward');
      })({ x });
      return add({ a: multiply({ a: w, b: w }), b: multiply({ a: failing, b: w }) });
    });
    expect(() => loss.backward(undefined, { retainGraph })).toThrow('inside a backward');
    loss.dispose();
    expect(memory()).toEqual(before);
  }
  expect([await numbers(x.grad), await numbers(w.grad)]).toEqual([[2], [1]]);
  for (const tensor of [x, w]) tensor.dispose();
});

test('gradients that are passed on as they are do not share memory', async () => {
  const [a, b, gradient] = [leaf([1, 2]), leaf([3, 4]), fresh.from([5, 6])];
  tidy(() => add({ a: a.clone(), b: b.reshape([1, 2]).reshape([2]) }).backward(gradient));
  gradient.copyFrom(Float32Array.of(0, 0));
  a.grad!.copyFrom(Float32Array.of(7, 7));
  expect([await numbers(a.grad), await numbers(b.grad)]).toEqual([
    [7, 7],
    [5, 6],
  ]);
  for (const tensor of [a, b, gradient]) tensor.dispose();
});

test('a pair that gives back one tensor for everything, or the gradient it got', async () => {
  const x = leaf([1, 2]);
  tidy(() => {
    const same = watched((gradient) => gradient)({ x });
    const other = watched((gradient) => gradient.clone())({ x });
    sum({ x: add({ a: same, b: other }) }).backward();
  });
  expect(await numbers(x.grad)).toEqual([2, 2]);
  x.dispose();
});

test('zeroGrad, disposal of a leaf, and a gradient taken along', async () => {
  const x = leaf([2]);
  tidy(() => multiply({ a: x, b: x }).backward());
  const taken = x.grad!.clone();
  x.zeroGrad();
  expect(memory().numTensors).toBe(2);
  tidy(() => multiply({ a: x, b: x }).backward());
  x.dispose();
  expect(await numbers(taken)).toEqual([4]);
  taken.dispose();
});

test('a leaf’s gradient outlives the tidy that its backward ran in', async () => {
  const x = leaf([2]);
  for (let step = 1; step <= 3; step++) {
    tidy(() => tidy(() => multiply({ a: x, b: x }).backward()));
    expect(await numbers(x.grad)).toEqual([4 * step]);
  }
  x.dispose();
});

test('a backward within the backward of a pair is one of its own', async () => {
  const [x, w] = [leaf([3]), leaf([2])];
  tidy(() => {
    const y = watched(() => {
      const inner = Tensor.from([5], [1], { device: x.device });
      inner.requiresGrad = true;
      inner.backward();
      expect(inner.grad!.item()).toBe(1);
    })({ x });
    multiply({ a: y, b: w }).backward();
  });
  expect([await numbers(x.grad), await numbers(w.grad)]).toEqual([[2], [3]]);
  for (const tensor of [x, w]) tensor.dispose();
});
