import fc from 'fast-check';
import { type BlockSparseCase, checkBlockSparse } from '../../lib/check/fine.js';
import { tensorOf, valuesOf } from '../../lib/check/values.js';
import { blockSparseAttention, type Tensor, TileGrid, tidy } from '../../lib/index.js';
import { layoutOf, type OracleGrid } from '../../lib/oracle/index.js';
import { attentionCases, expectCase, holds, listsOf, tilesOf, useGuardedMemory } from './support.js';
import { fresh, here } from '../under-test.js';

useGuardedMemory();

const cases: fc.Arbitrary<BlockSparseCase> = attentionCases.chain((c) => {
  const { queryTiles, keyTiles } = tilesOf(c);
  return listsOf(c.batch * c.heads * queryTiles, keyTiles).map((lists) => ({ ...c, lists }));
});

test('output, lse and gradients for any grids, heads and lists', async () => {
  await holds(30, cases, (c) => expectCase(checkBlockSparse, c));
});

const BASE: BlockSparseCase = {
  ...{ name: 'by hand', dtype: 'float32', order: 'grid', batch: 1, heads: 2, kvHeads: 1, headDim: 64, std: 1 },
  ...{ grid: { tokens: [5, 6, 7], tile: [4, 4, 4] }, lists: 'unequal' },
};

test.each(['single', 'pairs', 'shared', 'disjoint', 'empty', 'full'] as const)('lists: %s', async (lists) => {
  await expectCase(checkBlockSparse, { ...BASE, lists, order: 'tiled', dtype: 'float16' });
});

test.each(
  (['float32', 'bfloat16', 'float16'] as const).flatMap((dtype) => [
    { dtype, std: 4, headDim: 128 },
    { dtype, std: 16, headDim: 64 },
  ]),
)('large logits: $dtype, inputs x$std, D $headDim', async (variant) => {
  await expectCase(checkBlockSparse, { ...BASE, ...variant });
});

test('more tiles than a word of 64 has bits', async () => {
  const grid: OracleGrid = { tokens: [70, 2, 1], tile: [1, 8, 8] };
  await expectCase(checkBlockSparse, { ...BASE, heads: 1, grid });
});

/** Random q, k, v and dO of two batches and four heads on two key heads, float32, in host memory. */
const GRID: OracleGrid = { tokens: [5, 4, 6], tile: [4, 4, 4] };
const { length, tiles, tileOfToken } = layoutOf(GRID);
const DIMS = { batch: 2, heads: 4, queryTiles: tiles, keyTiles: tiles };
const SHAPES = { q: [2, length, 4, 64], k: [2, length, 2, 64], v: [2, length, 2, 64], d: [2, length, 4, 64] } as const;
type Name = keyof typeof SHAPES;
/** Query tile i of head h: tiles i and (i + h) mod 4; query tile 3 of head 3 none. */
const LISTS = Array.from({ length: 2 * 4 * tiles }, (_, row) => {
  const [h, i] = [Math.floor(row / tiles) % 4, row % tiles];
  return h === 3 && i === 3 ? [] : [...new Set([i, (i + h) % tiles])].sort((a, b) => a - b);
});

async function run(change: (values: Record<Name, Float64Array>) => void): Promise<Record<string, Float64Array>> {
  const values = {} as Record<Name, Float64Array>;
  for (const [seed, name] of (Object.keys(SHAPES) as Name[]).entries()) {
    using random = fresh.randn(SHAPES[name], { seed });
    values[name] = await valuesOf(random);
  }
  change(values);
  const results = tidy(() => {
    const { q, k, v, d } = Object.fromEntries(
      Object.entries(values).map(([name, array]) => [name, tensorOf(array, SHAPES[name as Name], 'float32', here)]),
    ) as Record<Name, Tensor>;
    const lists = fresh.lists(LISTS, DIMS);
    const { output, saved } = blockSparseAttention.forward({ q, k, v, lists, grid: new TileGrid(GRID) });
    const grads = blockSparseAttention.backward(saved, { output: d });
    return { output, lse: saved.lse, dq: grads.q, dk: grads.k, dv: grads.v };
  });
  const arrays: Record<string, Float64Array> = {};
  for (const [name, tensor] of Object.entries(results)) {
    arrays[name] = await valuesOf(tensor);
    tensor.dispose();
  }
  return arrays;
}

/** Whether query (b, n, h) attends to key token m of key head g. */
function attends(h: number, n: number, g: number, m: number): boolean {
  return Math.floor(h / 2) === g && LISTS[h * tiles + tileOfToken[n]!]!.includes(tileOfToken[m]!);
}

/** The elements of [2, length, 4, 64] that are NaN must be those of a rule, and all others as they were. */
function expectNaN(
  got: Float64Array,
  before: Float64Array,
  rule: (b: number, n: number, h: number, d: number) => boolean,
): void {
  const wrong: number[][] = [];
  let bad = 0;
  for (let i = 0; i < got.length; i++) {
    const place = [
      Math.floor(i / (length * 256)),
      Math.floor(i / 256) % length,
      Math.floor(i / 64) % 4,
      i % 64,
    ] as const;
    const nan = rule(...place);
    if (nan) bad++;
    if (nan ? !Number.isNaN(got[i]) : !Object.is(got[i], before[i])) wrong.push([...place]);
  }
  expect(wrong).toEqual([]);
  expect(bad).toBeGreaterThan(0);
}

describe('NaN reaches exactly the rows that read it', () => {
  const [b, token] = [1, 37];
  const at = (name: Name, head: number) => ((b * length + token) * SHAPES[name][2] + head) * 64 + 5;

  test('in q: its row', async () => {
    const [before, after] = [await run(() => undefined), await run(({ q }) => (q[at('q', 2)] = NaN))];
    expectNaN(after['output']!, before['output']!, (...[b1, n, h]) => b1 === b && n === token && h === 2);
    const row = (b * 4 + 2) * length + token;
    expect([...after['lse']!.keys()].filter((i) => Number.isNaN(after['lse']![i]))).toEqual([row]);
    expectNaN(after['dq']!, before['dq']!, (...[b1, n, h]) => b1 === b && n === token && h === 2);
  });

  test('in q with an empty list: nothing', async () => {
    const empty = tileOfToken.indexOf(3);
    const [before, after] = [
      await run(() => undefined),
      await run(({ q }) => q.fill(NaN, (empty * 4 + 3) * 64, (empty * 4 + 4) * 64)),
    ];
    expect(after).toEqual(before);
  });

  test('in k: the rows of all heads of the group whose lists have its tile', async () => {
    const [before, after] = [await run(() => undefined), await run(({ k }) => (k[at('k', 1)] = NaN))];
    expectNaN(after['output']!, before['output']!, (...[b1, n, h]) => b1 === b && attends(h, n, 1, token));
    expectNaN(after['dq']!, before['dq']!, (...[b1, n, h]) => b1 === b && attends(h, n, 1, token));
  });

  test('in v: one channel of the same rows', async () => {
    const [before, after] = [await run(() => undefined), await run(({ v }) => (v[at('v', 0)] = NaN))];
    expectNaN(
      after['output']!,
      before['output']!,
      (...[b1, n, h, d]) => b1 === b && attends(h, n, 0, token) && d === 5,
    );
    expect(after['lse']).toEqual(before['lse']);
  });
});

test('an empty list: 0, lse -inf and no gradient; keys that nobody selected have none', async () => {
  const lists = LISTS.map((_, row) => (row % tiles === 2 ? [] : [0]));
  const { output, lse, dq, dk, dv } = tidy(() => {
    const [q, k, v, d] = (Object.keys(SHAPES) as Name[]).map((name, seed) => fresh.randn(SHAPES[name], { seed }));
    const forward = blockSparseAttention.forward({
      ...{ q: q!, k: k!, v: v!, grid: new TileGrid(GRID), lists: fresh.lists(lists, DIMS) },
    });
    const grads = blockSparseAttention.backward(forward.saved, { output: d! });
    return { output: forward.output, lse: forward.saved.lse, dq: grads.q, dk: grads.k, dv: grads.v };
  });
  const zeroRows = async (tensor: Tensor, wanted: (tile: number) => boolean) => {
    const values = await valuesOf(tensor);
    const size = values.length / 2 / length;
    tileOfToken.forEach((tile, n) => {
      for (const batch of [0, 1]) {
        const row = values.subarray((batch * length + n) * size, (batch * length + n + 1) * size);
        expect(row.every((value) => value === 0)).toBe(wanted(tile));
      }
    });
  };
  await zeroRows(output, (tile) => tile === 2);
  await zeroRows(dq, (tile) => tile === 2);
  await zeroRows(dk, (tile) => tile !== 0);
  await zeroRows(dv, (tile) => tile !== 0);
  (await valuesOf(lse)).forEach((value, i) => {
    expect(value === -Infinity).toBe(tileOfToken[i % length] === 2);
  });
  for (const resource of [output, lse, dq, dk, dv]) resource.dispose();
});
