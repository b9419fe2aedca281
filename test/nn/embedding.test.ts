import { sinusoidalEmbedding } from '../../lib/nn/functional.js';
import { expectError, type Misuse } from '../attention/misuse.js';
import { useGuardedMemory } from '../attention/support.js';
import { here } from '../under-test.js';

useGuardedMemory();

test.each([
  [[0, 1, 500.5, -3], 8, undefined],
  [[999], 2, 100],
  [[0.25, 1e6], 256, undefined],
])('times %j in width %d', async (times, width, maxPeriod) => {
  const options = { width, device: here, ...(maxPeriod !== undefined && { maxPeriod }) };
  const embedding = sinusoidalEmbedding(times, options);
  const half = width / 2;
  const expected = times.flatMap((time) => {
    const angles = Array.from({ length: half }, (_, i) => time * Math.exp((-Math.log(maxPeriod ?? 10000) * i) / half));
    return [...angles.map(Math.cos), ...angles.map(Math.sin)];
  });
  expect([embedding.shape, embedding.dtype, embedding.device]).toEqual([[times.length, width], 'float32', here]);
  const got = await embedding.toFloat32();
  // exp(-log(p) i / half) and p^(-i / half) differ in their last bits, which large times magnify.
  expected.forEach((value, i) => expect(Math.abs(got[i]! - value)).toBeLessThan(1e-7 + 1e-15 * Math.max(...times)));
  embedding.dispose();
});

test('by hand: cosines first', async () => {
  const embedding = sinusoidalEmbedding([0, Math.PI / 2], { width: 2, device: here });
  const [c0, s0, c1, s1] = await embedding.toFloat32();
  expect([c0, s0, s1]).toEqual([1, 0, 1]);
  expect(c1).toBeCloseTo(0, 7);
  embedding.dispose();
});

test('no times', () => {
  const embedding = sinusoidalEmbedding([], { width: 4, device: here });
  expect(embedding.shape).toEqual([0, 4]);
  embedding.dispose();
});

test('bad input', () => {
  const wrong: Misuse[] = [
    ['no width', { width: undefined }, 'ERR_ARGUMENT', 'width'],
    ['an odd width', { width: 3 }, 'ERR_ARGUMENT', 'width', 'even'],
    ['a width of 0', { width: 0 }, 'ERR_ARGUMENT', 'width'],
    ['too wide', { width: 2 ** 21 }, 'ERR_ARGUMENT', 'width'],
    ['a negative period', { maxPeriod: -1 }, 'ERR_ARGUMENT', 'maxPeriod'],
    ['an endless period', { maxPeriod: Infinity }, 'ERR_ARGUMENT', 'maxPeriod'],
    ['a dtype', { dtype: 'bfloat16' }, 'ERR_ARGUMENT', 'options', "'dtype'"],
    ['an unknown device', { device: 'tpu' }, 'ERR_DEVICE', 'device'],
  ];
  for (const [, options, code, argument, says] of wrong) {
    const call = () => sinusoidalEmbedding([1], { width: 4, device: here, ...options });
    expectError(call, code, argument, says);
  }
  const call = (times: unknown) => () => sinusoidalEmbedding(times as never, { width: 4, device: here });
  for (const times of [undefined, 3, 'a', {}, new Float32Array(2)]) expectError(call(times), 'ERR_ARGUMENT', 'times');
  expectError(call([0, NaN]), 'ERR_ARGUMENT', 'times[1]', 'finite');
  expectError(call([null]), 'ERR_ARGUMENT', 'times[0]');
  expectError(() => sinusoidalEmbedding([1], undefined as never), 'ERR_ARGUMENT', 'options');
});
