import {
  type Comparison,
  attentionBackward,
  attentionForward,
  compare,
  compareLse,
  coordinatesOf,
  rounded,
  samePrecision,
} from '../../lib/oracle/index.js';
import { normal } from './helpers.js';

const reference = normal(1000, 1).map((x) => x / 8);
reference[500] = 0.75; // the largest, so that one bfloat16 step is 2^-8
const base: Comparison = {
  got: rounded(reference, 'bfloat16'),
  reference,
  samePrecision: rounded(reference, 'bfloat16'),
  format: 'bfloat16',
  shape: [10, 5, 20],
};

/** `got` with `change` added to element 123. */
function off(change: number, got: ArrayLike<number> = reference): Float64Array {
  const copy = Float64Array.from(got);
  copy[123]! += change;
  return copy;
}

test('rounded values pass, and the verdict says by how much', () => {
  const verdict = compare(base);
  expect(verdict.ok).toBe(true);
  expect(verdict.maxError).toBeGreaterThan(0);
  expect(verdict.maxError).toBeLessThanOrEqual(2 ** -9);
  expect(verdict.relativeL2).toBeGreaterThan(0);
  expect(verdict.limitL2).toBe(3e-3);
});

test('the limit is twice the error of the same-precision reference and one step', () => {
  const samePrecision = off(0.01);
  const limit = compare({ ...base, samePrecision }).limit;
  expect(limit).toBeCloseTo(0.02 + 2 ** -8, 15);
  expect(compare({ ...base, samePrecision, got: off(0.99 * limit) }).maxError).toBeLessThan(limit);
  const verdict = compare({ ...base, samePrecision, got: off(-1.01 * limit) });
  expect(verdict.ok).toBe(false);
  expect(verdict.worst).toEqual({
    index: 123,
    coordinates: [1, 1, 3],
    got: reference[123]! - 1.01 * limit,
    want: reference[123],
  });
});

test('an error within the largest one allowed fails if everything has it', () => {
  const got = reference.map((x) => x + 2 ** -9); // half a step everywhere
  const verdict = compare({ ...base, got });
  expect(verdict.maxError).toBeLessThan(verdict.limit);
  expect(verdict.relativeL2).toBeGreaterThan(3e-3);
  expect(verdict.ok).toBe(false);
  const own = (factor: number) => reference.map((x) => x + 2 ** -9 / factor);
  expect(compare({ ...base, got, samePrecision: own(1.2) }).ok).toBe(true);
  expect(compare({ ...base, got, samePrecision: own(1.3) }).ok).toBe(false);
});

test('code that rounds P and dS: within twice the reference, and within the one that rounds the scores as well', () => {
  const error = 2 ** -7; // above the floor
  const got = reference.map((x) => x + error);
  const off = (factor: number) => reference.map((x) => x + error * factor);
  const ok = (own: number, rounded: number) =>
    compare({ ...base, got, samePrecision: off(own), roundedScores: off(rounded) }).ok;
  expect(ok(0.6, 1.01)).toBe(true);
  expect(ok(0.6, 0.99)).toBe(false);
  expect(ok(0.49, 5)).toBe(false);
});

test('a relative error of 1 % everywhere fails', () => {
  expect(compare({ ...base, got: reference.map((x) => 1.01 * x) }).ok).toBe(false);
  expect(compare({ ...base, format: 'float16', got: reference.map((x) => 1.01 * x) }).ok).toBe(false);
});

test('float32 is held to float32', () => {
  const float32 = { ...base, got: rounded(reference, 'float32'), samePrecision: rounded(reference, 'float32') };
  const verdict = compare({ ...float32, format: 'float32' });
  expect(verdict).toMatchObject({ ok: true, limitL2: 1e-5 });
  expect(verdict.limit).toBeLessThan(10 * 2 ** -24);
  expect(compare({ ...float32, got: base.got, format: 'float32' }).ok).toBe(false); // bfloat16 values
  expect(compare({ ...float32, format: 'float32', got: off(1e-6) }).ok).toBe(false);
  const noisy = { ...float32, format: 'float32', samePrecision: reference.map((x) => x * (1 + 1e-4)) } as const;
  expect(compare({ ...noisy, got: reference.map((x) => x * (1 - 1.9e-4)) }).ok).toBe(true);
  expect(compare({ ...noisy, got: reference.map((x) => x * (1 - 2.1e-4)) }).ok).toBe(false);
  const rms = Math.sqrt(reference.reduce((sum, x) => sum + x ** 2, 0) / reference.length);
  const shifted = (factor: number) => compare({ ...noisy, got: reference.map((x) => x + factor * 1e-4 * rms) });
  expect(shifted(1.9).ok).toBe(true);
  expect(shifted(2.1).ok).toBe(false); // by its L2 error alone
  expect(shifted(2.1).maxError).toBeLessThan(shifted(2.1).limit);
});

test('NaN and infinities must stand where the reference has them', () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    const verdict = compare({ ...base, got: off(bad) });
    expect(verdict).toMatchObject({ ok: false, maxError: Infinity, worst: { index: 123 } });
    const wanted = Float64Array.from(reference);
    wanted[123] = bad;
    expect(compare({ ...base, reference: wanted })).toMatchObject({ ok: false, maxError: Infinity });
    const got = Float64Array.from(base.got);
    got[123] = bad;
    expect(compare({ ...base, reference: wanted, got, samePrecision: got }).ok).toBe(true);
    got[123] = bad === Infinity ? -Infinity : Infinity;
    if (!Number.isNaN(bad)) expect(compare({ ...base, reference: wanted, got }).ok).toBe(false);
  }
});

test('a NaN in the same-precision reference loosens nothing', () => {
  const broken = compare({ ...base, samePrecision: off(NaN, base.samePrecision) });
  expect(broken.ok).toBe(true);
  expect(broken.limit).toBeLessThanOrEqual(compare(base).limit);
});

test('a value that overflows the format must be infinite', () => {
  const [want, one] = [Float64Array.from([70000, 1]), Float64Array.from([Infinity, 1])];
  const overflow = { reference: want, samePrecision: one, format: 'float16', shape: [2] } as const;
  expect(compare({ ...overflow, got: one }).ok).toBe(true);
  expect(compare({ ...overflow, got: [65504, 1] }).ok).toBe(false);
  expect(compare({ ...overflow, got: [Infinity, 1.01] }).ok).toBe(false); // the step is that of 1, not of 70000
});

test('where all is zero, zero is wanted; with a magnitude, noise of that magnitude passes', () => {
  const zero = new Float64Array(4);
  const all = { reference: zero, samePrecision: zero, format: 'float32', shape: [4] } as const;
  expect(compare({ ...all, got: zero })).toMatchObject({ ok: true, relativeL2: 0 });
  expect(compare({ ...all, got: [0, 0, 1e-30, 0] }).ok).toBe(false);
  expect(compare({ ...all, got: [0, 0, 2 ** -149, 0] }).ok).toBe(false);
  expect(compare({ ...all, got: [0, 2e-7, 0, -2e-7], magnitude: 1 }).ok).toBe(true);
  expect(compare({ ...all, got: [0, 2e-6, 0, 0], magnitude: 1 }).ok).toBe(false);
});

test('lse: 1e-3, -inf exactly', () => {
  const lse = { reference: [-Infinity, 1, 700], shape: [1, 1, 3] };
  expect(compareLse({ ...lse, got: [-Infinity, 1.0009, 699.9995] }).ok).toBe(true);
  expect(compareLse({ ...lse, got: [-Infinity, 1.0011, 700] })).toMatchObject({
    ok: false,
    worst: { coordinates: [0, 0, 1] },
  });
  expect(compareLse({ ...lse, got: [-1e30, 1, 700] }).ok).toBe(false);
  expect(compareLse({ ...lse, got: [-Infinity, -Infinity, 700] }).ok).toBe(false);
  expect(compareLse({ ...lse, got: [-Infinity, NaN, 700] }).ok).toBe(false);
});

test('refuses to compare nothing, or arrays of different sizes', () => {
  const empty = { got: [], reference: [], samePrecision: [], format: 'float32', shape: [0] } as const;
  expect(() => compare(empty)).toThrow('shape: got 0');
  expect(() => compare({ ...base, got: [1] })).toThrow('got: got 1 elements, wanted [10, 5, 20]');
  expect(() => compare({ ...base, samePrecision: [1] })).toThrow('samePrecision: got 1 elements');
  expect(() => compareLse({ got: [1], reference: [1, 2], shape: [1] })).toThrow('reference: got 2 elements');
});

test('coordinates', () => {
  expect(coordinatesOf(0, [2, 3])).toEqual([0, 0]);
  expect(coordinatesOf(5, [2, 3])).toEqual([1, 2]);
  expect(coordinatesOf(23, [2, 3, 4])).toEqual([1, 2, 3]);
});

describe('on attention', () => {
  // What the rule is for: a careful bfloat16 implementation passes, also where its gradients are poor; bugs do not.
  const shape = { batch: 1, heads: 2, kvHeads: 1, headDim: 32, queries: 40, keys: 48 };
  const make = (factor: number) => {
    const draw = (n: number, seed: number, by = factor) =>
      rounded(
        normal(n, seed).map((x) => x * by),
        'bfloat16',
      );
    const inputs = { q: draw(2560, 1), k: draw(1536, 2), v: draw(1536, 3, 1), mask: null, shape, scale: 32 ** -0.5 };
    return { inputs, dOutput: draw(2560, 4, 1) };
  };
  const run = ({ inputs, dOutput }: ReturnType<typeof make>, changed: object) => {
    const forward = attentionForward({ ...inputs, ...changed });
    return { output: forward.output, ...attentionBackward({ ...inputs, ...changed }, forward, dOutput) };
  };
  const shapes = { output: [40, 2, 32], q: [40, 2, 32], k: [48, 1, 32], v: [48, 1, 32] };
  const names = ['output', 'q', 'k', 'v'] as const;

  test.each([1, 4, 16])('inputs times %d', (factor) => {
    const made = make(factor);
    const want = run(made, {});
    const own = run(made, { precision: samePrecision('bfloat16') });
    const float32Inside = run(made, { precision: { ...samePrecision('float32'), outputs: 'bfloat16' } });
    const wrongScale = run(made, { scale: 1.02 * made.inputs.scale, precision: samePrecision('bfloat16') });
    const mask = new Uint8Array(2 * 40 * 48).fill(1);
    for (let i = 0; i < 80; i++) mask[i * 48 + (i % 48)] = 0;
    const missesKey = run(made, { mask, precision: samePrecision('bfloat16') });
    const verdicts = (got: typeof want) =>
      names.map((name) =>
        compare({
          got: got[name],
          reference: want[name],
          samePrecision: own[name],
          format: 'bfloat16',
          shape: shapes[name],
        }),
      );
    expect(verdicts(own).every(({ ok }) => ok)).toBe(true);
    expect(verdicts(float32Inside).every(({ ok }) => ok)).toBe(true);
    expect(verdicts(wrongScale).map(({ ok }) => ok)).toContain(false);
    expect(verdicts(missesKey).map(({ ok }) => ok)).toContain(false);
  });
});
