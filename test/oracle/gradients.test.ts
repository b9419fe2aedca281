import {
  type VsaInputs,
  attentionBackward,
  attentionForward,
  coarseBackward,
  coarseForward,
  combineBackward,
  combineForward,
  poolBackward,
  poolForward,
  vsaBackward,
  vsaForward,
} from '../../lib/oracle/index.js';
import { CASES, expectGradient, inner, inputsOf, normal, same, uniform } from './helpers.js';

describe.each(CASES)('$name', (sizes) => {
  // The choice of tiles is not differentiated: the lists of the unperturbed inputs are kept.
  const free = inputsOf(sizes, 21);
  const { lists } = vsaForward(free);
  const inputs: VsaInputs = { ...free, choice: { lists } };
  const forward = vsaForward(inputs);
  const dOutput = normal(forward.output.length, 31);
  const gradients = vsaBackward(inputs, forward, dOutput);
  const loss = (changed: Partial<VsaInputs>) => inner(dOutput, vsaForward({ ...inputs, ...changed }).output);

  test.each(['q', 'k', 'v'] as const)('gradient of %s', (name) => {
    expectGradient((x) => loss({ [name]: x }), inputs[name], gradients[name]);
    expect(gradients[name].some((value) => Math.abs(value) > 1e-3)).toBe(true);
  });

  test('gradients of the gates, where there are gates', () => {
    const { coarse, fine } = inputs;
    expect(gradients.coarseGate !== undefined).toBe(sizes.coarse === 'gate');
    expect(gradients.fineGate !== undefined).toBe(sizes.fineGate === true);
    expect(gradients.pooled !== undefined).toBe(sizes.coarse === 'gate' || sizes.coarse === 'add');
    if (typeof coarse === 'object') {
      expectGradient((gate) => loss({ coarse: { gate } }), coarse.gate, gradients.coarseGate!);
    }
    if (fine !== undefined) expectGradient((gate) => loss({ fine: { gate } }), fine.gate, gradients.fineGate!);
  });

  test('the same whether the lists were selected or given', () => {
    const selected = vsaBackward(free, vsaForward(free), dOutput);
    for (const name of ['q', 'k', 'v'] as const) expect(same(selected[name], gradients[name])).toBe(true);
  });
});

describe('attention', () => {
  const shape = { batch: 2, heads: 4, kvHeads: 2, headDim: 5, queries: 6, keys: 9 };
  const next = uniform(5);
  const mask = Uint8Array.from({ length: 2 * 4 * 6 * 9 }, () => (next() < 0.4 ? 1 : 0));
  mask.fill(0, 9, 18); // query 1 of the first head attends to nothing
  for (let i = 0; i < mask.length; i += 9) mask[i + 4] = 0; // nobody attends to key 4
  const inputs = { q: normal(2 * 6 * 4 * 5, 1), k: normal(2 * 9 * 2 * 5, 2), v: normal(2 * 9 * 2 * 5, 3), shape };
  const dOutput = normal(2 * 6 * 4 * 5, 4);

  test.each([
    ['masked', mask, 0.4],
    ['dense', null, 1.3],
  ] as const)('%s', (_, mask, scale) => {
    const whole = { ...inputs, mask, scale };
    const gradients = attentionBackward(whole, attentionForward(whole), dOutput);
    for (const name of ['q', 'k', 'v'] as const) {
      const loss = (x: Float64Array) => inner(dOutput, attentionForward({ ...whole, [name]: x }).output);
      expectGradient(loss, inputs[name], gradients[name], { elements: 20 });
    }
  });

  test('a query without keys and a key without queries have zero gradients, whatever they hold', () => {
    const q = inputs.q.slice().fill(NaN, 4 * 5, 4 * 5 + 5); // query 1 of head 0
    const k = inputs.k.slice().fill(NaN, 4 * 2 * 5, 5 * 2 * 5); // key 4
    const v = inputs.v.slice().fill(NaN, 4 * 2 * 5, 5 * 2 * 5);
    const whole = { q, k, v, mask, scale: 1, shape };
    const gradients = attentionBackward(whole, attentionForward(whole), dOutput);
    for (const gradient of Object.values(gradients)) expect(gradient.some(Number.isNaN)).toBe(false);
    expect(gradients.q.subarray(4 * 5, 4 * 5 + 5)).toEqual(new Float64Array(5));
    expect(gradients.k.subarray(4 * 2 * 5, 5 * 2 * 5)).toEqual(new Float64Array(10));
    expect(gradients.v.subarray(4 * 2 * 5, 5 * 2 * 5)).toEqual(new Float64Array(10));
  });

  test('scores that are all -inf give zero gradients', () => {
    const one = { batch: 1, heads: 1, kvHeads: 1, headDim: 1, queries: 1, keys: 2 };
    const q = Float64Array.from([-1e300]);
    const [k, v] = [Float64Array.from([1e300, 2e300]), Float64Array.from([1, 2])];
    const whole = { q, k, v, mask: null, scale: 1, shape: one };
    const forward = attentionForward(whole);
    expect(forward.lse[0]).toBe(-Infinity);
    const gradients = attentionBackward(whole, forward, Float64Array.from([3]));
    for (const gradient of Object.values(gradients)) expect(gradient.every((value) => value === 0)).toBe(true);
  });

  test('gradients on a sample: queries with a zero row of dOutput add nothing', () => {
    const sparse = dOutput.slice().fill(0, 0, 3 * 4 * 5);
    const whole = { ...inputs, mask, scale: 0.4 };
    const some = attentionBackward(whole, attentionForward(whole), sparse);
    const noKeys = mask.slice();
    for (let bh = 0; bh < 4; bh++) noKeys.fill(0, bh * 54, bh * 54 + 27); // batch 0, queries 0 to 2
    const without = { ...whole, mask: noKeys };
    expect(some.k).toEqual(attentionBackward(without, attentionForward(without), sparse).k);
  });
});

test('coarse attention', () => {
  const shape = { batch: 2, heads: 4, kvHeads: 2, headDim: 3, queryTiles: 4, keyTiles: 5 };
  const inputs = { q: normal(2 * 4 * 4 * 3, 1), k: normal(2 * 5 * 2 * 3, 2), v: normal(2 * 5 * 2 * 3, 3) };
  const dOutput = normal(2 * 4 * 4 * 3, 4);
  const run = ({ q, k, v }: typeof inputs) => coarseForward(q, k, v, shape, 0.8);
  const gradients = coarseBackward(inputs.q, inputs.k, inputs.v, run(inputs), dOutput, shape, 0.8);
  for (const name of ['q', 'k', 'v'] as const) {
    const loss = (x: Float64Array) => inner(dOutput, run({ ...inputs, [name]: x }).output);
    expectGradient(loss, inputs[name], gradients[name], { elements: 20 });
  }
});

test('pooling', () => {
  const grid = { tokens: [3, 3, 2], tile: [2, 2, 2], prefix: 11 } as const;
  const shape = { batch: 2, heads: 2, headDim: 3 };
  const x = normal(2 * 29 * 6, 1);
  const dPooled = normal(2 * 6 * 6, 2);
  const gradient = poolBackward(dPooled, grid, shape);
  expectGradient((changed) => inner(dPooled, poolForward(changed, grid, shape)), x, gradient, { elements: 40 });
});

test('combination', () => {
  const grid = { tokens: [1, 3, 3], tile: [1, 2, 2], prefix: 5 } as const;
  const shape = { batch: 2, heads: 2, headDim: 2 };
  const [L, tiles] = [14, 6];
  const full = {
    fine: normal(2 * L * 4, 1),
    coarse: normal(2 * tiles * 4, 2),
    coarseGate: normal(2 * L * 4, 3),
    fineGate: normal(2 * L * 4, 4),
  };
  const dOutput = normal(2 * L * 4, 5);
  type Name = keyof typeof full;
  const kept: Name[][] = [
    ['fine'],
    ['fine', 'fineGate'],
    ['fine', 'coarse'],
    ['fine', 'coarse', 'coarseGate'],
    ['fine', 'coarse', 'fineGate'],
    ['fine', 'coarse', 'coarseGate', 'fineGate'],
  ];
  for (const names of kept) {
    const inputs = { fine: full.fine, ...Object.fromEntries(names.map((name) => [name, full[name]])), grid, shape };
    const gradients = combineBackward(inputs, dOutput);
    expect(Object.keys(gradients).sort()).toEqual([...names].sort());
    for (const name of names) {
      const loss = (x: Float64Array) => inner(dOutput, combineForward({ ...inputs, [name]: x }));
      expectGradient(loss, full[name], gradients[name]!, { elements: 10 });
    }
  }
});

test('the coarse branch teaches the selector: without it q has the fine gradient alone', () => {
  const inputs = inputsOf(CASES[1]!, 22);
  const skipped: VsaInputs = { ...inputs, coarse: 'skip' };
  const dOutput = normal(inputs.q.length, 32);
  const both = vsaBackward(inputs, vsaForward(inputs), dOutput);
  const fine = vsaBackward(skipped, vsaForward(skipped), dOutput);
  expect(fine.q).toEqual(both.fine.q);
  expect(fine.q).toEqual(fine.fine.q);
  expect(both.q).not.toEqual(both.fine.q);
});

test('empty lists everywhere: all fine gradients are zero', () => {
  const inputs: VsaInputs = { ...inputsOf(CASES[0]!, 23), choice: { lists: Array.from({ length: 16 }, () => []) } };
  const forward = vsaForward(inputs);
  expect(forward.output.every((value) => value === 0)).toBe(true);
  expect(forward.lse.every((value) => value === -Infinity)).toBe(true);
  const { q, k, v } = vsaBackward(inputs, forward, normal(inputs.q.length, 33));
  for (const gradient of [q, k, v]) expect(gradient.every((value) => value === 0)).toBe(true);
});
