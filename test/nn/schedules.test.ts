import { warmupConstant, warmupCosine } from '../../lib/nn/optim/index.js';
import { expectError } from '../attention/misuse.js';

const upTo = (steps: number) => Array.from({ length: steps }, (_, step) => step);

test('a linear warm-up reaches the peak at its end, and stays there', () => {
  const rate = warmupConstant({ peak: 8, warmup: 3 });
  expect(upTo(6).map(rate)).toEqual([2, 4, 6, 8, 8, 8]);
  expect(rate(1e9)).toBe(8);
  expect(upTo(3).map(warmupConstant({ peak: 8, warmup: 0 }))).toEqual([8, 8, 8]);
});

test('then half a cosine to the floor', () => {
  const rate = warmupCosine({ peak: 8, warmup: 3, steps: 11, floor: 2 });
  expect(upTo(4).map(rate)).toEqual([2, 4, 6, 8]);
  expect([rate(7), rate(11), rate(12), rate(1e9)]).toEqual([5, 2, 2, 2]); // the middle, the end, and after it
  expect(rate(5)).toBeCloseTo(5 + 3 * Math.SQRT1_2, 12); // a quarter of the way: cos(pi / 4)
  const falling = upTo(12).slice(3).map(rate);
  expect(falling).toEqual([...falling].sort((a, b) => b - a));
});

test('the floor is 0 unless given; all steps may be warm-up; no steps are none', () => {
  expect(warmupCosine({ peak: 1, warmup: 0, steps: 10 })(10)).toBe(0);
  expect(upTo(4).map(warmupCosine({ peak: 3, warmup: 2, steps: 2, floor: 0.5 }))).toEqual([1, 2, 0.5, 0.5]);
  expect(warmupCosine({ peak: 3, warmup: 0, steps: 0 })(0)).toBe(0);
  expect(upTo(3).map(warmupCosine({ peak: 3, warmup: 0, steps: 2, floor: 3 }))).toEqual([3, 3, 3]);
});

test('wrong calls', () => {
  const valid = { peak: 1, warmup: 2, steps: 5, floor: 0.5 };
  const call = (options: object) => () => warmupCosine({ ...valid, ...options });
  for (const peak of [-1, NaN, Infinity, '1', undefined]) expectError(call({ peak }), 'ERR_ARGUMENT', 'peak');
  for (const warmup of [-1, 0.5, '2', undefined]) expectError(call({ warmup }), 'ERR_ARGUMENT', 'warmup');
  for (const steps of [1, 5.5, undefined]) expectError(call({ steps }), 'ERR_ARGUMENT', 'steps', 'at least 2');
  for (const floor of [-1, 1.5, NaN]) expectError(call({ floor }), 'ERR_ARGUMENT', 'floor');
  expectError(call({ peek: 1 }), 'ERR_ARGUMENT', 'options', "'peek'");
  expectError(() => warmupConstant({ ...valid }), 'ERR_ARGUMENT', 'options', "'steps'");
  for (const rate of [warmupCosine(valid), warmupConstant({ peak: 1, warmup: 2 })]) {
    for (const step of [-1, 0.5, NaN, '0']) expectError(() => rate(step as number), 'ERR_ARGUMENT', 'step');
  }
});
