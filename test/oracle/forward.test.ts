import {
  type AttentionShape,
  attentionForward,
  coarseForward,
  combineForward,
  expandMask,
  fullLists,
  gatherRows,
  layoutOf,
  poolForward,
  selectTiles,
  vsaForward,
} from '../../lib/oracle/index.js';
import { CASES, attend, inputsOf, normal, plainVsa } from './helpers.js';

/** A NaN or infinity in a difference is a failure too. */
function expectClose(got: Float64Array, want: ArrayLike<number>, tolerance = 1e-12): void {
  expect(got.length).toBe(want.length);
  let worst = 0;
  for (let i = 0; i < got.length; i++) {
    if (Object.is(got[i], want[i])) continue;
    const error = Math.abs(got[i]! - want[i]!);
    worst = Number.isNaN(error) ? Infinity : Math.max(worst, error);
  }
  expect(worst).toBeLessThanOrEqual(tolerance);
}

describe.each(CASES)('$name', (sizes) => {
  test('is what the definition says, vector by vector', () => {
    const inputs = inputsOf(sizes, 11);
    const forward = vsaForward(inputs);
    const plain = plainVsa(inputs);
    expect(forward.lists).toEqual(plain.lists);
    expectClose(forward.output, plain.output);
    expectClose(forward.lse, plain.lse);
  });

  test('with every tile selected the fine stage is dense attention', () => {
    const { choice: _, ...inputs } = inputsOf(sizes, 12);
    const { batch, heads, kvHeads = heads, headDim, grid, keyGrid = grid, q, k, v } = inputs;
    const scale = inputs.scale ?? 1 / Math.sqrt(headDim);
    const [Lq, Lk] = [layoutOf(grid).length, layoutOf(keyGrid).length];
    const rows = batch * heads * layoutOf(grid).tiles;
    const forward = vsaForward({ ...inputs, choice: { lists: fullLists(rows, layoutOf(keyGrid).tiles) } });
    const topK = vsaForward({ ...inputs, choice: { topK: layoutOf(keyGrid).videoTiles } });
    const want = new Float64Array(q.length);
    for (let b = 0; b < batch; b++) {
      for (let h = 0; h < heads; h++) {
        const row = (x: Float64Array, L: number, H: number, n: number, head: number) =>
          Array.from({ length: headDim }, (_, d) => x[((b * L + n) * H + head) * headDim + d]!);
        const g = Math.floor(h / (heads / kvHeads));
        const keys = Array.from({ length: Lk }, (_, n) => row(k, Lk, kvHeads, n, g));
        const values = Array.from({ length: Lk }, (_, n) => row(v, Lk, kvHeads, n, g));
        for (let n = 0; n < Lq; n++) {
          want.set(attend(row(q, Lq, heads, n, h), keys, values, scale).output, ((b * Lq + n) * heads + h) * headDim);
        }
      }
    }
    expectClose(forward.fine, want);
    expectClose(topK.fine, want);
    expect(topK.lists).toEqual(fullLists(rows, layoutOf(keyGrid).tiles));
  });
});

describe('attention by hand', () => {
  const shape: AttentionShape = { batch: 1, heads: 1, kvHeads: 1, headDim: 2, queries: 2, keys: 3 };
  const v = Float64Array.from([1, 10, 2, 20, 6, 60]);
  const inputs = { q: normal(4, 1), k: normal(6, 2), v, mask: null, shape, scale: 1 };

  test('one key: its value, and its score as lse', () => {
    const { q, k } = inputs;
    const mask = Uint8Array.from([0, 1, 0, 0, 0, 1]);
    const { output, lse } = attentionForward({ ...inputs, mask });
    expectClose(output, [2, 20, 6, 60]);
    expectClose(lse, [q[0]! * k[2]! + q[1]! * k[3]!, q[2]! * k[4]! + q[3]! * k[5]!]);
  });

  test('equal scores: the mean of the allowed values, lse the log of their number', () => {
    const mask = Uint8Array.from([1, 1, 1, 1, 0, 1]);
    const { output, lse } = attentionForward({ ...inputs, q: new Float64Array(4), mask });
    expectClose(output, [3, 30, 3.5, 35]);
    expectClose(lse, [Math.log(3), Math.log(2)]);
  });

  test('weights 1 : 3 at scores 0 and log 3; the scale multiplies', () => {
    const k = Float64Array.from([0, 0, Math.log(3) / 2, 0, 0, 0]);
    const mask = Uint8Array.from([1, 1, 0, 1, 1, 0]);
    const { output, lse } = attentionForward({ ...inputs, q: Float64Array.from([1, 5, 1, 7]), k, mask, scale: 2 });
    expectClose(output, [1.75, 17.5, 1.75, 17.5]);
    expectClose(lse, [Math.log(4), Math.log(4)]);
  });

  test('no key: 0 and -inf', () => {
    const { output, lse } = attentionForward({ ...inputs, mask: new Uint8Array(6) });
    expect([...output]).toEqual([0, 0, 0, 0]);
    expect([...lse]).toEqual([-Infinity, -Infinity]);
  });

  test('scores of 1000 and of -1000 neither overflow nor vanish', () => {
    const k = Float64Array.from([1000, 0, 999, 0, -1000, 0]);
    const one = attentionForward({ ...inputs, q: Float64Array.from([1, 0, -1, 0]), k });
    const e = Math.exp(-1);
    expectClose(one.output, [(1 + 2 * e) / (1 + e), (10 + 20 * e) / (1 + e), 6, 60]);
    expectClose(one.lse, [1000 + Math.log1p(e), 1000]);
    const low = attentionForward({
      ...inputs,
      q: Float64Array.from([-1, 0, -1, 0]),
      k,
      mask: Uint8Array.from([1, 1, 0, 1, 0, 0]),
    });
    expectClose(low.lse, [-999 + Math.log1p(e), -1000]);
  });

  test('scores that are all -inf weigh nothing', () => {
    const q = Float64Array.from([-Infinity, 1, 1, 1]);
    const { output, lse } = attentionForward({ ...inputs, q, k: Float64Array.from([1, 0, 2, 0, 3, 0]) });
    expect([...output.subarray(0, 2)]).toEqual([0, 0]);
    expect(lse[0]).toBe(-Infinity);
    expect(Number.isFinite(lse[1])).toBe(true);
  });

  test('NaN reaches exactly the queries that attend to it; masked NaN reaches nothing', () => {
    const mask = Uint8Array.from([1, 1, 0, 1, 1, 1]);
    const k = inputs.k.slice();
    k[5] = NaN;
    const inKey = attentionForward({ ...inputs, k, mask });
    expect([...inKey.output].map(Number.isNaN)).toEqual([false, false, true, true]);
    expect([...inKey.lse].map(Number.isNaN)).toEqual([false, true]);
    const inValue = attentionForward({ ...inputs, v: Float64Array.from([1, 10, 2, 20, NaN, 60]), mask });
    expect([...inValue.output].map(Number.isNaN)).toEqual([false, false, true, false]);
    const inQuery = attentionForward({ ...inputs, q: Float64Array.from([1, NaN, 1, 1]), mask });
    expect([...inQuery.output].map(Number.isNaN)).toEqual([true, true, false, false]);
    const allNaN = attentionForward({ ...inputs, k: k.fill(NaN), mask });
    expect([...allNaN.output, ...allNaN.lse].every(Number.isNaN)).toBe(true);
  });

  test('a sample of queries gives the rows of the whole', () => {
    const sizes = CASES[2]!;
    const whole = inputsOf(sizes, 13);
    const { batch, heads, kvHeads = heads, headDim, grid } = whole;
    const { fine, lists } = vsaForward(whole);
    const L = layoutOf(grid).length;
    const queryTokens = [3, 17, 4];
    const rowShape = { outer: batch, rowSize: heads * headDim };
    const sample = attentionForward({
      q: gatherRows(whole.q, L, queryTokens, rowShape),
      k: whole.k,
      v: whole.v,
      mask: expandMask(lists, { batch, heads, grid, queryTokens }),
      shape: { batch, heads, kvHeads, headDim, queries: queryTokens.length, keys: L },
      scale: 0.5,
    });
    expectClose(sample.output, gatherRows(fine, L, queryTokens, rowShape));
  });
});

test('pooling: the mean of the valid tokens of a tile', () => {
  const grid = { tokens: [1, 2, 3], tile: [1, 2, 2], prefix: 1 } as const; // tiles of tokens 0 | 1 2 4 5 | 3 6
  const x = Float64Array.from([9, 1, 2, 30, 3, 4, 50], (value) => value);
  expectClose(poolForward(x, grid, { batch: 1, heads: 1, headDim: 1 }), [9, 2.5, 40]);
  const two = Float64Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]); // B 2, L 3, H 1, D 2
  const pooled = poolForward(two, { tokens: [1, 1, 3], tile: [1, 1, 2] }, { batch: 2, heads: 1, headDim: 2 });
  expectClose(pooled, [2, 3, 5, 6, 8, 9, 11, 12]);
});

describe('coarse attention by hand', () => {
  const shape = { batch: 1, heads: 2, kvHeads: 1, headDim: 1, queryTiles: 1, keyTiles: 2 };

  test('scores, weights, output, lse', () => {
    const forward = coarseForward(
      Float64Array.from([1, 0]),
      Float64Array.from([0, Math.log(3)]),
      Float64Array.from([4, 8]),
      shape,
      1,
    );
    expectClose(forward.scores, [0, Math.log(3), 0, 0]);
    expectClose(forward.probabilities, [0.25, 0.75, 0.5, 0.5]);
    expectClose(forward.output, [7, 6]);
    expectClose(forward.lse, [Math.log(4), Math.log(2)]);
  });

  test('a NaN key makes the output of every query tile of its heads NaN', () => {
    const wide = { ...shape, kvHeads: 2, queryTiles: 2 };
    const k = Float64Array.from([1, 2, NaN, 3]); // tile 1, head 0
    const forward = coarseForward(normal(4, 1), k, normal(4, 2), wide, 1);
    expect([...forward.output].map(Number.isNaN)).toEqual([true, false, true, false]);
    expect([...forward.lse].map(Number.isNaN)).toEqual([true, true, false, false]);
  });

  test('scores that are all -inf weigh nothing', () => {
    const one = { ...shape, heads: 1 };
    const q = Float64Array.from([-Infinity]);
    const forward = coarseForward(q, Float64Array.from([1, 2]), Float64Array.from([4, 8]), one, 1);
    expect([...forward.output, ...forward.lse]).toEqual([0, -Infinity]);
  });

  test('large scores do not overflow', () => {
    const one = { ...shape, heads: 1 };
    const forward = coarseForward(
      Float64Array.from([1]),
      Float64Array.from([2000, 1999]),
      Float64Array.from([1, 2]),
      one,
      1,
    );
    const e = Math.exp(-1);
    expectClose(forward.output, [(1 + 2 * e) / (1 + e)]);
    expectClose(forward.lse, [2000 + Math.log1p(e)]);
  });
});

test('combination: every mode by hand', () => {
  const common = { grid: { tokens: [1, 1, 3], tile: [1, 1, 2] }, shape: { batch: 1, heads: 1, headDim: 1 } } as const;
  const fine = Float64Array.from([1, 2, 3]);
  const coarse = Float64Array.from([10, 20]);
  const coarseGate = Float64Array.from([2, 3, 4]);
  const fineGate = Float64Array.from([-1, 0, 1]);
  expect([...combineForward({ ...common, fine })]).toEqual([1, 2, 3]);
  expect([...combineForward({ ...common, fine, coarse })]).toEqual([11, 12, 23]);
  expect([...combineForward({ ...common, fine, coarse, coarseGate })]).toEqual([21, 32, 83]);
  expect([...combineForward({ ...common, fine, coarse, coarseGate, fineGate })]).toEqual([19, 30, 83]);
  expect([...combineForward({ ...common, fine, fineGate })]).toEqual([-1, 0, 3]);
  expect(() => combineForward({ ...common, fine, coarseGate })).toThrow('coarseGate');
});

describe('NaN in the whole operator', () => {
  const sizes = { ...CASES[1]!, coarse: 'skip' } as const;
  const key = 0; // token 0 lies in tile 0

  test('a key with NaN ranks lowest: nobody selects its tile, and the fine output is clean', () => {
    const inputs = inputsOf(sizes, 14);
    const { heads, headDim } = inputs;
    for (let e = 0; e < heads * headDim; e++) inputs.k[key * heads * headDim + e] = NaN;
    const forward = vsaForward(inputs);
    expect(forward.lists.some((list) => list.includes(0))).toBe(false);
    expect(forward.output.some(Number.isNaN)).toBe(false);
    expect(vsaForward({ ...inputs, coarse: 'add' }).output.every(Number.isNaN)).toBe(true);
  });

  test('it is selected when K is N, and then it spreads', () => {
    const inputs = inputsOf({ ...sizes, choice: { topK: 12 } }, 14);
    inputs.k[key] = NaN; // of head 0
    const { output } = vsaForward(inputs);
    const { heads, headDim } = inputs;
    output.forEach((value, e) => expect(Number.isNaN(value)).toBe(Math.floor(e / headDim) % heads === 0));
  });
});

test('the scores to rank can be handed in', () => {
  const inputs = inputsOf({ ...CASES[0]!, choice: { topK: 1 } }, 15);
  const own = vsaForward(inputs);
  const rankedScores = own.scores.map((score) => -score);
  const { batch, heads, grid } = inputs;
  const other = vsaForward({ ...inputs, choice: { topK: 1, rankedScores } });
  expect(other.lists).toEqual(selectTiles(rankedScores, { batch, heads, grid, topK: 1 }));
  expect(other.lists).not.toEqual(own.lists);
  expect(other.scores).toEqual(own.scores);
});

test('refuses arrays and heads that do not fit', () => {
  const inputs = inputsOf(CASES[2]!, 16);
  expect(() => vsaForward({ ...inputs, q: inputs.k })).toThrow('q: got');
  expect(() => vsaForward({ ...inputs, v: new Float64Array(3) })).toThrow('v: got 3 elements, wanted [2, 24, 2, 4]');
  expect(() => vsaForward({ ...inputs, kvHeads: 3 })).toThrow('heads: got 4, wanted a multiple of kvHeads = 3');
  expect(() => vsaForward({ ...inputs, fine: { gate: new Float64Array(1) } })).toThrow('fineGate: got 1');
  expect(() => vsaForward({ ...inputs, choice: { lists: [] } })).toThrow('lists: got 0 rows');
});
