import { type Tensor, tidy } from '../../lib/index.js';
import { useGuardedMemory } from '../attention/support.js';
import { fresh, here } from '../under-test.js';
import { leaf, multiply, numbers, scale, sum } from './support.js';

useGuardedMemory();

/** The gradient of sum(method(x) * weights): the weights, whatever the method does to shape and place. */
test.each<[string, (x: Tensor) => Tensor]>([
  ['reshape', (x) => x.reshape([3, 2])],
  ['reshape to another rank', (x) => x.reshape([1, -1, 1])],
  ['cast to its own dtype', (x) => x.cast('float32')],
  ['clone', (x) => x.clone()],
  ['to the device it is on', (x) => x.to(here)],
  ['all of them', (x) => x.clone().reshape([6]).to(here).cast('float32').reshape([2, 1, 3])],
])('%s', async (_, method) => {
  const x = leaf([1, 2, 3, 4, 5, 6], [2, 3]);
  tidy(() => {
    const y = method(x);
    expect(y.requiresGrad).toBe(true);
    const weights = fresh.from([6, 5, 4, 3, 2, 1], y.shape);
    sum({ x: multiply({ a: y, b: weights }) }).backward();
  });
  expect([x.grad!.shape, await numbers(x.grad)]).toEqual([
    [2, 3],
    [6, 5, 4, 3, 2, 1],
  ]);
  x.dispose();
});

test('a cast to 16 bits and back: the gradient is rounded where it went through', async () => {
  const x = leaf([1, 2]);
  const gradient = fresh.from([1 + 2 ** -10, 3]);
  tidy(() => x.cast('bfloat16').cast('float32').backward(gradient));
  expect([x.grad!.dtype, await numbers(x.grad)]).toEqual(['float32', [1, 3]]);
  const half = tidy(() => x.cast('bfloat16'));
  const other = fresh.from([2, 0.5], [2], { dtype: 'bfloat16' });
  half.backward(other);
  expect(await numbers(x.grad)).toEqual([3, 3.5]);
  for (const tensor of [x, gradient, half, other]) tensor.dispose();
});

test('whole numbers have no history', () => {
  const x = leaf([1.5]);
  const whole = x.cast('int32');
  expect(whole.requiresGrad).toBe(false);
  const copy = whole.clone();
  expect(copy.requiresGrad).toBe(false);
  for (const tensor of [x, whole, copy]) tensor.dispose();
});

test('detach: the same memory, no history', async () => {
  const x = leaf([2, 3]);
  const y = scale({ x, by: 2 });
  const cut = y.detach();
  expect([cut.requiresGrad, await numbers(cut)]).toEqual([false, [4, 6]]);
  tidy(() => sum({ x: multiply({ a: y, b: cut }) }).backward());
  expect(await numbers(x.grad)).toEqual([8, 12]);
  cut.copyFrom(Float32Array.of(1, 1));
  expect(await numbers(y)).toEqual([1, 1]);
  for (const tensor of [x, y, cut]) tensor.dispose();
});
