import fc from 'fast-check';
import { checkSelection, type SelectionCase } from '../../lib/check/selection.js';
import { philoxIntegers } from '../../lib/check/philox.js';
import { valuesOf } from '../../lib/check/values.js';
import { type PrefixMode, TileGrid, tidy, tileSelection } from '../../lib/index.js';
import { type OracleGrid, selectTiles } from '../../lib/oracle/index.js';
import { expectCase, grids, heads, holds, useGuardedMemory } from './support.js';
import { fresh } from '../under-test.js';

useGuardedMemory();

const cases: fc.Arbitrary<SelectionCase> = fc
  .record({
    counts: heads,
    headDim: fc.constantFrom(64, 96, 128),
    grid: grids(120),
    keyGrid: fc.option(grids(120), { nil: undefined }),
    share: fc.double({ min: 0, max: 1, noNaN: true }),
    prefix: fc.constantFrom(undefined, 'exempt' as const, 'compete' as const),
    includeSelf: fc.boolean(),
    scale: fc.option(fc.constantFrom(0.3, 0, -1), { nil: undefined }),
    ties: fc.boolean(),
  })
  .map(({ counts, headDim, grid, keyGrid, share, prefix, includeSelf, scale, ties }) => {
    const { tokens, tile } = keyGrid ?? grid;
    const N = tokens.reduce((count, extent, dim) => count * Math.ceil(extent / tile[dim]!), 1);
    return {
      ...{ name: 'random', ...counts, headDim, grid, std: 1, ties, topK: Math.max(1, Math.round(share * N)) },
      ...(keyGrid === undefined ? { includeSelf } : { keyGrid }),
      ...(prefix !== undefined && { prefix }),
      ...(scale !== undefined && { scale }),
    };
  });

test('the K largest scores of any grids, heads and K', async () => {
  await holds(60, cases, (c) => expectCase(checkSelection, c));
});

test.each([4, 16])('scores of inputs x%i', async (std) => {
  const grid: OracleGrid = { tokens: [12, 13, 33], tile: [4, 4, 4], prefix: 65 };
  await expectCase(checkSelection, {
    name: 'large',
    batch: 1,
    heads: 4,
    kvHeads: 2,
    headDim: 128,
    grid,
    topK: 20,
    std,
  });
});

/** Powers of two, so that scores come out to the bit. Negative, so that products of +0 give -0. */
const SCALE = -(2 ** -30);
const SUBNORMAL = 2 ** -149;
/** Scores that are hard to rank: NaN, infinities, zeros of both signs, subnormals, neighbours. */
const HARD = [
  NaN,
  Infinity,
  -Infinity,
  0,
  -0,
  SUBNORMAL,
  -SUBNORMAL,
  2 ** -127,
  1,
  1 + 2 ** -23,
  1 - 2 ** -24,
  -1,
  3e38,
];

/** The one channel of a key that makes a score of exactly `score` against a query of 1 in that channel, 0 elsewhere. */
function keyFor(score: number): number {
  if (score === 0) return Object.is(score, -0) ? SUBNORMAL : -SUBNORMAL; // underflows, and keeps the sign
  return Math.abs(score) > 1e30 ? score * -(2 ** 30) : score / SCALE;
}

interface Ranking {
  /** Of every query tile against these key tiles, prefix tiles first. */
  readonly scores: readonly number[];
  readonly prefixTiles: number;
  readonly topK: number;
  readonly prefix: PrefixMode;
  readonly includeSelf: boolean;
}

/** Selects among the scores on a 1-D grid, and compares with a plain sort. */
async function expectRanking({ scores, prefixTiles, topK, prefix, includeSelf }: Ranking): Promise<void> {
  const grid: OracleGrid = { tokens: [1, 1, scores.length - prefixTiles], tile: [64, 1, 1], prefix: 64 * prefixTiles };
  const tiles = scores.length;
  const { lists, ranked } = tidy(() => {
    const q = new Float32Array(tiles * 64).map((_, i) => (i % 64 === 0 ? 1 : 0));
    const k = new Float32Array(tiles * 64);
    scores.forEach((score, j) => (k[j * 64] = keyFor(score)));
    const result = tileSelection.forward({
      ...{ q: fresh.from(q, [1, tiles, 1, 64]), k: fresh.from(k, [1, tiles, 1, 64]), grid: new TileGrid(grid) },
      ...{ topK, prefix, includeSelf, scale: SCALE, returnScores: true },
    });
    return { lists: result.lists, ranked: result.scores! };
  });
  const got = await valuesOf(ranked);
  // The scores are those asked for, to the bit and the sign of zero (3e38 times 2^30 is infinite).
  const wanted = scores.map((score) => (Math.abs(score) === 3e38 ? Infinity : Math.fround(score)));
  for (let i = 0; i < tiles; i++) expect([...got.subarray(i * tiles, (i + 1) * tiles)]).toEqual(wanted);
  const options = { batch: 1, heads: 1, grid, topK, prefix, includeSelf };
  expect(await lists.toArrays()).toEqual(selectTiles(got, options));
  lists.dispose();
  ranked.dispose();
}

const rankings: fc.Arbitrary<Ranking> = fc
  .record({
    scores: fc.oneof(
      fc.array(fc.constantFrom(...HARD), { minLength: 1, maxLength: 40 }),
      fc.array(fc.constantFrom(0, -0), { minLength: 1, maxLength: 70 }),
      fc.array(fc.constantFrom(NaN, -Infinity), { minLength: 1, maxLength: 20 }),
      fc.array(fc.float({ noDefaultInfinity: true, noNaN: true, min: -1000, max: 1000 }), {
        minLength: 1,
        maxLength: 40,
      }),
    ),
    prefixShare: fc.constantFrom(0, 0, 0.3, 0.9),
    topShare: fc.double({ min: 0, max: 1, noNaN: true }),
    prefix: fc.constantFrom('exempt' as const, 'compete' as const),
    includeSelf: fc.boolean(),
  })
  .map(({ scores, prefixShare, topShare, prefix, includeSelf }) => {
    const prefixTiles = Math.min(Math.floor(prefixShare * scores.length), scores.length - 1);
    const topK = Math.max(1, Math.round(topShare * (scores.length - prefixTiles)));
    return { scores, prefixTiles, topK, prefix, includeSelf };
  });

test('adversarial ties: as a plain sort has it', async () => {
  await holds(150, rankings, expectRanking);
});

/** A ranking without prefix and forced tiles, and the first list of it. */
async function first(scores: readonly number[], topK: number): Promise<number[]> {
  await expectRanking({ scores, prefixTiles: 0, topK, prefix: 'exempt', includeSelf: false });
  const tiles = scores.length;
  const lists = tidy(() => {
    const q = fresh.from(
      new Float32Array(tiles * 64).map((_, i) => (i % 64 === 0 ? 1 : 0)),
      [1, tiles, 1, 64],
    );
    const k = new Float32Array(tiles * 64);
    scores.forEach((score, j) => (k[j * 64] = keyFor(score)));
    const grid = new TileGrid({ tokens: [1, 1, tiles], tile: [64, 1, 1] });
    return tileSelection.forward({ q, k: fresh.from(k, [1, tiles, 1, 64]), grid, topK, scale: SCALE }).lists;
  });
  const [list] = await lists.toArrays();
  lists.dispose();
  return list!;
}

test('by hand: ties to the lowest index, zeros equal, NaN below -inf', async () => {
  expect(await first([5, 5, 5, 5, 5], 3)).toEqual([0, 1, 2]);
  expect(await first([0, -0, 0, -0], 2)).toEqual([0, 1]);
  expect(await first([-0, 0, -0, 0], 2)).toEqual([0, 1]);
  expect(await first([NaN, -Infinity, NaN, -Infinity], 2)).toEqual([1, 3]);
  expect(await first([NaN, -Infinity, NaN, -Infinity], 3)).toEqual([0, 1, 3]);
  expect(await first([NaN, NaN, NaN], 2)).toEqual([0, 1]);
  expect(await first([-SUBNORMAL, -0, SUBNORMAL, 0], 1)).toEqual([2]);
  expect(await first([-SUBNORMAL, -0, SUBNORMAL, 0], 3)).toEqual([1, 2, 3]);
  expect(await first([1, 1 + 2 ** -23, 1 - 2 ** -24, 1], 2)).toEqual([0, 1]);
  expect(await first([2, 1, 2, 1, 2, 1], 4)).toEqual([0, 1, 2, 4]);
  expect(await first([-3, -1, -2], 1)).toEqual([1]);
});

/** Scores of one kind for so many key tiles; drawn(n): whole numbers from 0 to below n. */
const KINDS: Readonly<Record<string, (tiles: number, drawn: (n: number) => number) => number[]>> = {
  'all equal': (tiles) => Array.from({ length: tiles }, () => 2.5),
  'two values': (tiles, drawn) => Array.from({ length: tiles }, () => (drawn(3) === 0 ? 1 + 2 ** -23 : 1)),
  'few values, and NaN, infinities, zeros and subnormals among them': (tiles, drawn) =>
    Array.from({ length: tiles }, () => (drawn(8) === 0 ? HARD[drawn(HARD.length)]! : (drawn(60) - 30) / 4)),
  'NaN but for three': (tiles, drawn) => {
    const places = [drawn(tiles), tiles >> 1, tiles - 1];
    return Array.from({ length: tiles }, (_, j) => (places.includes(j) ? -Infinity : NaN));
  },
  'mostly different ones': (tiles, drawn) =>
    Array.from({ length: tiles }, () => Math.fround(drawn(2 ** 20) / 2 ** 10 - 300)),
};

/** Key tiles from the best to the worst: ties to the lowest, zeros equal, NaN below -inf. */
function ranked(scores: Float32Array): number[] {
  const above = (a: number, b: number) => a > b || (b !== b && a === a);
  return Array.from(scores, (_, j) => j).sort((i, j) => {
    const [a, b] = [scores[i]!, scores[j]!];
    return above(a, b) ? -1 : above(b, a) ? 1 : i - j;
  });
}

/** Whether an array is a row again and again. (Which NaN it is, is nobody's promise.) */
function repeats(got: ArrayLike<number>, row: ArrayLike<number>): boolean {
  const { is } = Object; // by name: a look-up of a global in every step of a loop is slow in Jest's sandbox
  for (let i = 0; i < got.length; i++) if (!is(got[i], row[i % row.length])) return false;
  return true;
}

// GPUs select by other kernels above 640, 1,536, 4,096 and (a row that shared memory cannot hold) 58,112 key tiles.
describe.each([640, 700, 1536, 1600, 4096, 4200, 60_001])('%i key tiles', (tiles) => {
  test.each(Object.keys(KINDS))('%s: as a sort of the scores has it', async (kind) => {
    const scores = KINDS[kind]!(tiles, philoxIntegers(BigInt(tiles)));
    // 3e38 times 2^30 is infinite.
    const row = Float32Array.from(scores, (score) => (score === 3e38 ? Infinity : score));
    const order = ranked(row);
    const k = new Float32Array(tiles * 64);
    scores.forEach((score, j) => (k[j * 64] = keyFor(score)));
    const queries = 3;
    using q = fresh.from(
      Float32Array.from({ length: queries * 64 }, (_, i) => (i % 64 === 0 ? 1 : 0)),
      [1, queries, 1, 64],
    );
    using keys = fresh.from(k, [1, tiles, 1, 64]);
    const grid = new TileGrid({ tokens: [1, 1, queries], tile: [64, 1, 1] });
    // Prefix tiles are in every list; behind them, candidates begin in the middle of a vector of scores.
    for (const prefix of [0, 5]) {
      const videos = tiles - prefix;
      const keyGrid = new TileGrid({ tokens: [1, 1, videos], tile: [64, 1, 1], prefix: 64 * prefix });
      const best = order.filter((j) => j >= prefix);
      for (const topK of [1, 100, videos >> 1, videos - 1]) {
        const { lists, scores: made } = tidy(() =>
          tileSelection.forward({ q, k: keys, grid, keyGrid, topK, scale: SCALE, returnScores: true }),
        );
        expect(made!.shape).toEqual([1, 1, queries, tiles]);
        expect(repeats(await made!.data(), row)).toBe(true);
        const wanted = Int32Array.from([...Array(prefix).keys(), ...best.slice(0, topK)]).sort();
        expect([...(await lists.offsets!.data())]).toEqual([0, 1, 2, 3].map((i) => i * wanted.length));
        expect(lists.indices!.size).toBe(queries * wanted.length);
        expect(repeats(await lists.indices!.data(), wanted)).toBe(true);
        lists.dispose();
        made!.dispose();
      }
    }
  });
});

test('NaN in a pooled key or query', async () => {
  const grid = new TileGrid({ tokens: [4, 8, 16] }); // eight tiles
  const random = (seed: number) => tidy(() => fresh.randn([1, 8, 1, 64], { seed }));
  const [q, k] = [random(1), random(2)];
  const values = { q: (await q.data()) as Float32Array, k: (await k.data()) as Float32Array };
  values.q[5 * 64 + 3] = NaN;
  values.k[2 * 64 + 63] = NaN;
  q.copyFrom(values.q);
  k.copyFrom(values.k);
  const { lists } = tidy(() => tileSelection.forward({ q, k, grid, topK: 7 }));
  const arrays = await lists.toArrays();
  arrays.forEach((list, i) => {
    // Key tile 2 is last everywhere; query tile 5 has nothing but NaN, all equal.
    expect(list).toEqual(i === 5 ? [0, 1, 2, 3, 4, 5, 6] : [0, 1, 3, 4, 5, 6, 7]);
  });
  for (const resource of [lists, q, k]) resource.dispose();
});
