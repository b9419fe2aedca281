/** The same-precision references: they round where they say, by about as much as the format costs, and nowhere else. */
import {
  type FloatFormat,
  type Precision,
  EXACT,
  FLOAT32,
  attentionBackward,
  attentionForward,
  coarseBackward,
  coarseForward,
  combineBackward,
  combineForward,
  poolBackward,
  poolForward,
  rounded,
  samePrecision,
  vsaBackward,
  vsaForward,
} from '../../lib/oracle/index.js';
import { inputsOf, normal, same } from './helpers.js';

const FORMATS: readonly FloatFormat[] = ['bfloat16', 'float16', 'float32'];
/** Half the relative distance of neighbours. */
const UNIT: Readonly<Record<FloatFormat, number>> = { bfloat16: 2 ** -9, float16: 2 ** -12, float32: 2 ** -25 };

function relativeError(got: Float64Array, want: Float64Array): number {
  const norm = (x: Float64Array) => Math.sqrt(x.reduce((sum, value) => sum + value ** 2, 0));
  return norm(got.map((value, i) => value - want[i]!)) / norm(want);
}

describe.each(FORMATS)('%s', (format) => {
  const sizes = {
    name: '',
    batch: 1,
    heads: 2,
    headDim: 16,
    grid: { tokens: [2, 8, 8], tile: [2, 2, 2], prefix: 5 },
    scale: 0.3, // no power of two: scaling rounds
    choice: { topK: 6 },
    coarse: 'gate',
    fineGate: true,
  } as const;
  const raw = inputsOf(sizes, 41);
  const round = (x: Float64Array) => rounded(x, format);
  const exactInputs = { ...raw, q: round(raw.q), k: round(raw.k), v: round(raw.v) };
  const exact = vsaForward(exactInputs);
  const dOutput = round(normal(exact.output.length, 42));
  const exactGradients = vsaBackward(exactInputs, exact, dOutput);

  test.each([false, true])('the whole operator, scores rounded: %p', (scores) => {
    const inputs = { ...exactInputs, choice: { lists: exact.lists }, precision: samePrecision(format, { scores }) };
    const forward = vsaForward(inputs);
    const gradients = vsaBackward(inputs, forward, dOutput);
    const pairs = {
      output: [forward.output, exact.output],
      fine: [forward.fine, exact.fine],
      q: [gradients.q, exactGradients.q],
      k: [gradients.k, exactGradients.k],
      v: [gradients.v, exactGradients.v],
      coarseGate: [gradients.coarseGate!, exactGradients.coarseGate!],
      fineGate: [gradients.fineGate!, exactGradients.fineGate!],
    } as const;
    for (const [name, [got, want]] of Object.entries(pairs)) {
      expect([name, same(got, round(got))]).toEqual([name, true]); // values of the format
      const error = relativeError(got, want);
      expect(error).toBeGreaterThan(0.2 * UNIT[format]);
      expect(error).toBeLessThan(20 * UNIT[format]);
    }
    // The coarse stage, the sums and lse are float32 in any format.
    const float32 = [
      [forward.scores, exact.scores],
      [forward.pooled.v, exact.pooled.v],
      [forward.coarse.output, exact.coarse.output],
      [gradients.pooled!.k, exactGradients.pooled!.k],
      [gradients.combination.coarse!, exactGradients.combination.coarse!],
      ...(scores ? [] : [[forward.lse, exact.lse] as const]),
    ] as const;
    for (const [got, want] of float32) {
      expect(same(got, rounded(got, 'float32'))).toBe(true);
      const error = relativeError(got, want);
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(2e-6);
    }
    expect(same(gradients.fine.q, rounded(gradients.fine.q, 'float32'))).toBe(true);
    expect(same(gradients.fine.q, round(gradients.fine.q))).toBe(format === 'float32');
    // The two parts of a gradient are added before it is rounded to the format.
    const spread = poolBackward(gradients.pooled!.q, sizes.grid, { batch: 1, heads: 2, headDim: 16 }, FLOAT32);
    expect(same(gradients.q, round(gradients.fine.q.map((value, e) => value + spread[e]!)))).toBe(true);
  });
});

describe('where attention rounds', () => {
  // Two keys at scores 0 and log 3 + a bit: no weight is a bfloat16.
  const shape = { batch: 1, heads: 1, kvHeads: 1, headDim: 1, queries: 1, keys: 2 };
  const [q, k, v] = [Float64Array.from([1.1]), Float64Array.from([0.3, 1.3]), Float64Array.from([1, 3])];
  const inputs = { q, k, v, mask: null, shape, scale: 1 };
  const bf16 = (x: number) => rounded([x], 'bfloat16')[0]!;
  const only = (changed: Partial<Precision>): Precision => ({ ...EXACT, ...changed });
  const [s0, s1] = [1.1 * 0.3, 1.1 * 1.3];

  test('P before P V, not in the sum', () => {
    const p = Math.exp(s0 - s1);
    const { output } = attentionForward({ ...inputs, precision: only({ operands: 'bfloat16' }) });
    expect(output[0]).toBeCloseTo((bf16(p) + 3) / (p + 1), 14);
  });

  test('the scores', () => {
    const { output, lse } = attentionForward({ ...inputs, precision: only({ scores: 'bfloat16' }) });
    const p = Math.exp(bf16(s0) - bf16(s1));
    expect(output[0]).toBeCloseTo((p + 3) / (p + 1), 14);
    expect(lse[0]).toBeCloseTo(bf16(s1) + Math.log1p(p), 14);
  });

  test('the output', () => {
    const { output } = attentionForward(inputs);
    const { output: less } = attentionForward({ ...inputs, precision: only({ outputs: 'bfloat16' }) });
    expect(less[0]).toBe(bf16(output[0]!));
  });

  test('P before P^T dO, dS before dS K and dS^T Q; delta takes the output it is given', () => {
    const forward = attentionForward(inputs);
    const given = { ...forward, output: Float64Array.from([2.25]) };
    const dO = 0.7;
    const gradients = attentionBackward(
      { ...inputs, precision: only({ operands: 'bfloat16' }) },
      given,
      Float64Array.from([dO]),
    );
    const P = [Math.exp(s0 - forward.lse[0]!), Math.exp(s1 - forward.lse[0]!)] as const;
    const dS = [bf16(P[0] * (dO * 1 - dO * 2.25)), bf16(P[1] * (dO * 3 - dO * 2.25))] as const;
    expect(gradients.v[0]).toBeCloseTo(bf16(P[0]) * dO, 14);
    expect(gradients.v[1]).toBeCloseTo(bf16(P[1]) * dO, 14);
    expect(gradients.q[0]).toBeCloseTo(dS[0] * 0.3 + dS[1] * 1.3, 14);
    expect(gradients.k[0]).toBeCloseTo(dS[0] * 1.1, 14);
    expect(gradients.k[1]).toBeCloseTo(dS[1] * 1.1, 14);
  });

  test('the gradients', () => {
    const forward = attentionForward(inputs);
    const dO = Float64Array.from([0.7]);
    const exact = attentionBackward(inputs, forward, dO);
    const less = attentionBackward({ ...inputs, precision: only({ outputs: 'bfloat16' }) }, forward, dO);
    for (const name of ['q', 'k', 'v'] as const) expect(same(less[name], rounded(exact[name], 'bfloat16'))).toBe(true);
  });

  test('dP', () => {
    const forward = attentionForward(inputs);
    const gradients = attentionBackward(
      { ...inputs, precision: only({ scores: 'bfloat16' }) },
      forward,
      Float64Array.from([0.7]),
    );
    const P = [Math.exp(bf16(s0) - forward.lse[0]!), Math.exp(bf16(s1) - forward.lse[0]!)] as const;
    const delta = 0.7 * forward.output[0]!;
    expect(gradients.k[1]).toBeCloseTo(P[1] * (bf16(0.7 * 3) - delta) * 1.1, 14);
    expect(gradients.k[0]).toBeCloseTo(P[0] * (bf16(0.7) - delta) * 1.1, 14);
  });
});

test('the roundings of a same-precision reference', () => {
  const wanted = { accumulate: 'float32', scores: 'float32', operands: 'bfloat16', outputs: 'bfloat16' };
  expect(samePrecision('bfloat16')).toEqual(wanted);
  expect(samePrecision('bfloat16', { scores: true })).toEqual({ ...wanted, scores: 'bfloat16' });
  expect(samePrecision('float32')).toEqual(FLOAT32);
});

test('float32 sums round after every term', () => {
  const tiny = 0.75 * 2 ** -24; // 1 + tiny is 1 in float32, 1 + 2 * tiny is not
  const shape = { batch: 1, heads: 1, headDim: 1 };
  const grid = { tokens: [1, 1, 4], tile: [1, 1, 4] } as const;
  const x = Float64Array.from([1, tiny, tiny, tiny]);
  expect(poolForward(x, grid, shape)[0]).toBe((1 + 3 * tiny) / 4);
  expect(poolForward(x, grid, shape, FLOAT32)[0]).toBe(1 / 4);
  expect(poolForward(x, grid, shape, samePrecision('bfloat16'))[0]).toBe(1 / 4);

  const ones = new Float64Array(5).fill(1);
  const k = Float64Array.from([1, tiny, tiny, tiny, tiny]);
  const one = { batch: 1, heads: 1, kvHeads: 1, headDim: 5, queries: 1, keys: 1 };
  const dots = { q: ones, k, v: ones, mask: null, scale: 1, shape: one };
  expect(attentionForward(dots).lse[0]).toBe(1 + 4 * tiny);
  expect(attentionForward({ ...dots, precision: FLOAT32 }).lse[0]).toBe(1);
  const tiles = { batch: 1, heads: 1, kvHeads: 1, headDim: 5, queryTiles: 1, keyTiles: 1 };
  expect(coarseForward(ones, k, ones, tiles, 1).scores[0]).toBe(1 + 4 * tiny);
  expect(coarseForward(ones, k, ones, tiles, 1, FLOAT32).scores[0]).toBe(1);

  // Rows go through the loops four at a time: one round, one and a row left over, two.
  for (const keys of [4, 5, 8]) {
    const some = { batch: 1, heads: 1, kvHeads: 1, headDim: 1, queries: 1, keys };
    const values = Float64Array.from({ length: keys }, (_, j) => (j === 0 ? 1 : tiny));
    const sums = { q: new Float64Array(1), k: values, v: values, mask: null, scale: 1, shape: some };
    expect(attentionForward({ ...sums, precision: FLOAT32 }).output[0]).toBe(Math.fround(1 / keys));
    expect(attentionForward(sums).output[0]).not.toBe(1 / keys);
    const weights = { ...sums, q: ones.slice(0, 1), k: values.map(Math.log) };
    expect(attentionForward({ ...weights, precision: FLOAT32 }).lse[0]).toBe(0);
    expect(attentionForward(weights).lse[0]).toBeGreaterThan(2 * tiny);

    // dV sums P * dO over queries: each of the later ones adds less than half a step, whatever P; three add more.
    const small = 0.4 * 2 ** -24;
    const queries = { ...sums, q: new Float64Array(4), shape: { ...some, queries: 4 } };
    const dV = (dO: readonly number[], precision: Precision) => {
      const whole = { ...queries, precision };
      return attentionBackward(whole, attentionForward(whole), Float64Array.from(dO)).v;
    };
    expect(same(dV([1, small, small, small], FLOAT32), dV([1, 0, 0, 0], FLOAT32))).toBe(true);
    expect(same(dV([1, small, small, small], EXACT), dV([1, 0, 0, 0], EXACT))).toBe(false);
  }
});

test('the coarse backward rounds dS', () => {
  const tiles = { batch: 1, heads: 1, kvHeads: 1, headDim: 1, queryTiles: 1, keyTiles: 2 };
  const fround = Math.fround;
  let differs = 0; // from gradients with an unrounded dS
  for (let trial = 0; trial < 20; trial++) {
    const [q, k, v, dO] = [
      normal(1, trial),
      normal(2, trial + 100),
      normal(2, trial + 200),
      normal(1, trial + 300),
    ].map((x) => rounded(x, 'float32')) as [Float64Array, Float64Array, Float64Array, Float64Array];
    const forward = coarseForward(q, k, v, tiles, 0.3, FLOAT32);
    const [A0, A1] = [forward.probabilities[0]!, forward.probabilities[1]!];
    const [dA0, dA1] = [fround(dO[0]! * v[0]!), fround(dO[0]! * v[1]!)];
    const rowSum = fround(fround(A0 * dA0) + A1 * dA1);
    const [dS0, dS1] = [A0 * (dA0 - rowSum) * 0.3, A1 * (dA1 - rowSum) * 0.3];
    const want = fround(fround(fround(dS0) * k[0]!) + fround(dS1) * k[1]!);
    expect(coarseBackward(q, k, v, forward, dO, tiles, 0.3, FLOAT32).q[0]).toBe(want);
    if (want !== fround(fround(dS0 * k[0]!) + dS1 * k[1]!)) differs++;
  }
  expect(differs).toBeGreaterThan(0);
});

test('pooling and combination round their results', () => {
  const shape = { batch: 1, heads: 1, headDim: 1 };
  const grid = { tokens: [1, 1, 3], tile: [1, 1, 3] } as const;
  const third = 1 / 3;
  const precision = samePrecision('bfloat16');
  expect(poolBackward(Float64Array.from([1]), grid, shape, precision)[0]).toBe(rounded([third], 'bfloat16')[0]);
  const fine = Float64Array.from([third, third, third]);
  const inputs = { fine, coarse: fine.slice(0, 1), coarseGate: fine, fineGate: fine, grid, shape, precision };
  expect(combineForward(inputs)[0]).toBe(rounded([third * third + third * third], 'bfloat16')[0]);
  const { coarse, ...others } = combineBackward(inputs, fine);
  for (const gradient of Object.values(others)) expect(gradient).toEqual(rounded(gradient, 'bfloat16'));
  expect(coarse).toEqual(rounded(coarse!, 'float32'));
  expect(coarse).not.toEqual(rounded(coarse!, 'bfloat16'));
});

test('rounding the scores too only ever adds error: the sharp reference stays sharp at large logits', () => {
  const shape = { batch: 1, heads: 1, kvHeads: 1, headDim: 32, queries: 32, keys: 64 };
  const [q, k] = [normal(32 * 32, 51), normal(64 * 32, 52)].map((x) =>
    rounded(
      x.map((e) => 16 * e),
      'bfloat16',
    ),
  );
  const inputs = { q: q!, k: k!, v: rounded(normal(64 * 32, 53), 'bfloat16'), mask: null, shape, scale: 32 ** -0.5 };
  const { output } = attentionForward(inputs);
  const error = (precision: Precision) => relativeError(attentionForward({ ...inputs, precision }).output, output);
  expect(error(samePrecision('bfloat16'))).toBeLessThan(5e-3);
  expect(error(samePrecision('bfloat16', { scores: true }))).toBeGreaterThan(1e-2);
});
