import '../../lib/autograd/index.js';
import { cpuThreads, setCpuThreads, type Tensor } from '../../lib/index.js';
import { gradientNorm } from '../../lib/nn/optim/index.js';
import { disposed, expectError, NO_TENSORS } from '../attention/misuse.js';
import { bitsOf, useGuardedMemory } from '../attention/support.js';
import { disposeWhatIsOwned, expectClose, expectExact, given, own, random } from './numbers.js';

disposeWhatIsOwned();
useGuardedMemory();

/** A parameter with this gradient. */
function withGrad(gradient: Tensor): Tensor {
  const { tensor } = given(new Float64Array(gradient.size), gradient.shape);
  tensor.requiresGrad = true;
  tensor.backward(gradient);
  return tensor;
}

async function normOf(gradients: number[][], maxNorm?: number): Promise<number[]> {
  const parameters = gradients.map((values) => withGrad(given(values, [values.length]).tensor));
  const norm = own(gradientNorm(parameters, maxNorm === undefined ? {} : { maxNorm }));
  return [...(await norm.data())];
}

test('of all gradients together, whatever their shapes', async () => {
  const gradients = [[3, 17], [], [16_384], [2, 16_390], [0], [1]].map((shape, i) => random(shape, 'float32', i + 1));
  const total = gradients.flatMap(({ values }) => [...values]).reduce((sum, value) => sum + value ** 2, 0);
  const parameters = gradients.map(({ tensor }) => withGrad(tensor));
  const [norm, named] = [
    gradientNorm(parameters, { maxNorm: 2 }),
    gradientNorm(new Map(parameters.map((tensor, i) => [`p${String(i)}`, tensor])), { maxNorm: 2 }),
  ].map(own);
  const wanted = Float64Array.of(Math.sqrt(total), 2 / (Math.sqrt(total) + 1e-6));
  await expectClose(norm, wanted, 'float32', { steps: 1, least: 0 });
  expect(await bitsOf(named!)).toBe(await bitsOf(norm!));
});

test('the factor scales down, and never up', async () => {
  const clipped = Math.fround(1 / (5 + 1e-6));
  expect(await normOf([[3], [4]], 1)).toEqual([5, clipped]);
  expect(await normOf([[3], [4]], 10)).toEqual([5, 1]);
  expect(await normOf([[3, 4]])).toEqual([5, 1]);
  expect(await normOf([[0, 0]], 1)).toEqual([0, 1]);
  // Squares that float32 has no room for.
  expect(await normOf([[3e30], [4e30]], 1)).toEqual([Math.fround(5e30), Math.fround(2e-31)]);
  expect((await normOf([[3e-30, 4e-30]], 1))[0]).toBeCloseTo(5e-30, 35);
});

test('NaN and infinity are seen, as torch.nn.utils.clip_grad_norm_ shows them', async () => {
  expect(await normOf([[1, NaN], [2]], 1)).toEqual([NaN, NaN]);
  expect(await normOf([[1], [-Infinity]], 1)).toEqual([Infinity, 0]);
  expect(await normOf([[Infinity], [NaN]], 1)).toEqual([NaN, NaN]);
  expect(await normOf([[NaN]])).toEqual([NaN, 1]);
  expect(await normOf([[Infinity]])).toEqual([Infinity, 1]);
});

test('parameters without gradients count as 0', async () => {
  const [a, b] = [withGrad(given([3, 4], [2]).tensor), given([100], [1]).tensor];
  await expectExact(own(gradientNorm([a, b])), Float64Array.of(5, 1));
  await expectExact(own(gradientNorm([b], { maxNorm: 1 })), Float64Array.of(0, 1));
});

test('the same bits whatever the number of threads', async () => {
  const before = cpuThreads();
  const parameters = [withGrad(random([40_001], 'float32', 1).tensor), withGrad(random([5], 'float32', 2).tensor)];
  const found = new Set<string>();
  for (const threads of [1, 2, 5]) {
    setCpuThreads(threads);
    found.add(await bitsOf(own(gradientNorm(parameters))));
  }
  setCpuThreads(before);
  expect(found.size).toBe(1);
});

test('wrong calls', () => {
  const a = withGrad(given([1], [1]).tensor);
  const call = (parameters: unknown, options?: object) => () => gradientNorm(parameters as Tensor[], options);
  const [gone, half] = [own(disposed(a)), given([1], [1], 'float16').tensor];
  for (const none of [undefined, null, 5, {}, 'a']) expectError(call(none), 'ERR_ARGUMENT', 'parameters', 'a Map');
  expectError(call([]), 'ERR_ARGUMENT', 'parameters', 'at least one');
  for (const value of NO_TENSORS) expectError(call([value]), 'ERR_ARGUMENT', 'parameters.0', 'a Tensor');
  expectError(call([gone]), 'ERR_DISPOSED', 'parameters.0');
  expectError(call([half]), 'ERR_DTYPE', 'parameters.0');
  expectError(call([a, a]), 'ERR_ARGUMENT', 'parameters.1', 'every parameter once');
  for (const maxNorm of [0, -1, NaN, '1', 1n])
    expectError(call([a], { maxNorm }), 'ERR_ARGUMENT', 'maxNorm', 'above 0');
  expectError(call([a], { norm: 1 }), 'ERR_ARGUMENT', 'options', "'norm'");
  expectError(call([a], 5 as never), 'ERR_ARGUMENT', 'options');
});
