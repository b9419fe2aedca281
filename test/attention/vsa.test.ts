import fc from 'fast-check';
import { valuesOf } from '../../lib/check/values.js';
import { checkVsa, type VsaCase } from '../../lib/check/vsa.js';
import {
  blockSparseAttention,
  coarseAttention,
  denseAttention,
  gatedCombination,
  type Order,
  type Tensor,
  TileGrid,
  tidy,
  tilePooling,
  tileSelection,
  videoSparseAttention,
} from '../../lib/index.js';
import { layoutOf } from '../../lib/oracle/index.js';
import { attentionCases, bitsOfAll, expectCase, holds, listsOf, tilesOf, useGuardedMemory } from './support.js';
import { fresh, here } from '../under-test.js';

useGuardedMemory();

const cases: fc.Arbitrary<VsaCase> = attentionCases.chain((c) => {
  const { queryTiles, keyTiles } = tilesOf(c);
  const N = layoutOf(c.keyGrid ?? c.grid).videoTiles;
  const rule = fc.record({
    topK: fc.integer({ min: 1, max: N }),
    prefix: fc.constantFrom('exempt' as const, 'compete' as const),
    includeSelf: c.keyGrid === undefined ? fc.boolean() : fc.constant(false),
  });
  const lists = fc.record({ lists: listsOf(c.batch * c.heads * queryTiles, keyTiles) });
  return fc.record({
    ...(Object.fromEntries(Object.entries(c).map(([name, value]) => [name, fc.constant(value)])) as {
      [K in keyof typeof c]: fc.Arbitrary<(typeof c)[K]>;
    }),
    choice: fc.oneof({ weight: 3, arbitrary: rule }, { weight: 1, arbitrary: lists }),
    coarse: fc.constantFrom('skip' as const, 'add' as const, 'gate' as const),
    fineGate: fc.boolean(),
  });
});

test('lists, output, lse and every gradient, with any options', async () => {
  await holds(30, cases, (c) => expectCase(checkVsa, c));
});

const BASE: VsaCase = {
  ...{ name: 'by hand', dtype: 'float32', order: 'grid', batch: 1, heads: 2, kvHeads: 1, headDim: 64, std: 1 },
  ...{ grid: { tokens: [5, 6, 7], tile: [4, 4, 4], prefix: 5 }, choice: { topK: 3 }, coarse: 'gate', fineGate: true },
};

test.each(
  (['float32', 'bfloat16', 'float16'] as const).flatMap((dtype) => [
    { dtype, std: 4, order: 'tiled' as const },
    { dtype, std: 16, order: 'grid' as const },
  ]),
)('large logits: $dtype, inputs x$std', async (variant) => {
  await expectCase(checkVsa, { ...BASE, ...variant });
});

describe('pooled tensors made earlier', () => {
  test.each([
    { name: 'gate, tiled order', order: 'tiled' as const },
    { name: 'added, lists given', coarse: 'add' as const, choice: { lists: 'pairs' as const } },
    { name: 'skipped', coarse: 'skip' as const },
  ])('against float64, coarse output $name', async (variant) => {
    await expectCase(checkVsa, { ...BASE, pooled: true, ...variant });
  });

  test('the means themselves give the same bits', async () => {
    const results = tidy(() => {
      const { q, k, v, coarseGate } = inputs('grid', 'bfloat16');
      const options = { q, k, v, grid: GRID, keyGrid: KEY_GRID, topK: 4, coarse: { gate: coarseGate } };
      const mean = (x: Tensor, grid: TileGrid) => tilePooling.forward({ x, grid }).output;
      const pooled = { q: mean(q, GRID), k: mean(k, KEY_GRID), v: mean(v, KEY_GRID) };
      const [a, b] = [videoSparseAttention.forward(options), videoSparseAttention.forward({ ...options, pooled })];
      return { a: a.output, b: b.output };
    });
    const { a, b } = await bitsOfAll(results);
    expect(a).toEqual(b);
    for (const tensor of Object.values(results)) tensor.dispose();
  });

  test('errors name the argument', () => {
    tidy(() => {
      const { q, k, v } = inputs('grid', 'float32');
      const options = { q, k, v, grid: GRID, keyGrid: KEY_GRID, topK: 4 };
      const tiles = (grid: TileGrid, heads: number) => fresh.randn([2, grid.totalTileCount, heads, 64], { seed: 7 });
      const pooled = { q: tiles(GRID, 4), k: tiles(KEY_GRID, 2) };
      const failing = (more: object, code: string, argument: string) =>
        expect(() => videoSparseAttention.forward({ ...options, ...more })).toThrow(
          expect.objectContaining({ code, argument }) as Error,
        );
      failing({ pooled: { ...pooled, q: pooled.k } }, 'ERR_SHAPE', 'pooled.q');
      failing({ pooled: { ...pooled, k: pooled.k.cast('bfloat16') } }, 'ERR_DTYPE', 'pooled.k');
      failing({ pooled, coarse: 'add' }, 'ERR_ARGUMENT', 'pooled.v');
      failing({ pooled: { ...pooled, x: pooled.q } }, 'ERR_ARGUMENT', 'pooled');
    });
  });
});

const GRID = new TileGrid({ tokens: [5, 6, 7], prefix: 66 });
const KEY_GRID = new TileGrid({ tokens: [3, 9, 9], tile: [2, 4, 8], prefix: 3 });

function inputs(order: Order, dtype: 'float32' | 'bfloat16') {
  const random = (rows: number, heads: number, seed: number) => fresh.randn([2, rows, heads, 64], { seed, dtype });
  const [rows, keyRows] = [GRID.rows(order), KEY_GRID.rows(order)];
  return {
    ...{ q: random(rows, 4, 1), k: random(keyRows, 2, 2), v: random(keyRows, 2, 3) },
    ...{ coarseGate: random(rows, 4, 4), fineGate: random(rows, 4, 5), dOutput: random(rows, 4, 6) },
  };
}

test.each([
  ['grid', 'exempt'],
  ['tiled', 'compete'],
] as const)('is its parts called one by one, %s order, prefix %s', async (order, prefix) => {
  const [grid, keyGrid] = [GRID, KEY_GRID];
  const common = { grid, keyGrid, order };
  const { whole, parts } = tidy(() => {
    const { q, k, v, coarseGate, fineGate, dOutput } = inputs(order, 'float32');
    const options = { ...common, q, k, v, topK: 4, prefix, scale: 0.11 };
    const all = videoSparseAttention.forward({ ...options, coarse: { gate: coarseGate }, fine: { gate: fineGate } });
    const grads = videoSparseAttention.backward(all.saved, { output: dOutput });

    const pool = (x: Tensor, on: TileGrid) => tilePooling.forward({ x, grid: on, order });
    const pooled = { q: pool(q, grid), k: pool(k, keyGrid), v: pool(v, keyGrid) };
    const [qc, kc, vc] = [pooled.q.output, pooled.k.output, pooled.v.output];
    const { lists } = tileSelection.forward({ q: qc, k: kc, grid, keyGrid, topK: 4, prefix, scale: 0.11 });
    const coarse = coarseAttention.forward({ q: qc, k: kc, v: vc, scale: 0.11 });
    const fine = blockSparseAttention.forward({ ...common, q, k, v, lists, scale: 0.11 });
    const gates = { coarseGate, fineGate };
    const sum = gatedCombination.forward({ fine: fine.output, coarse: coarse.output, ...gates, grid, order });

    const dSum = gatedCombination.backward(sum.saved, { output: dOutput });
    const dFine = blockSparseAttention.backward(fine.saved, { output: dSum.fine });
    const dCoarse = coarseAttention.backward(coarse.saved, { output: dSum.coarse! });
    const through = {
      q: tilePooling.backward(pooled.q.saved, { output: dCoarse.q }).x,
      k: tilePooling.backward(pooled.k.saved, { output: dCoarse.k }).x,
      v: tilePooling.backward(pooled.v.saved, { output: dCoarse.v }).x,
    };
    return {
      whole: { output: all.output, lse: all.saved.lse, lists: all.saved.lists, fine: all.saved.fineOutput, grads },
      parts: { output: sum.output, lse: fine.saved.lse, lists, fine: fine.output, dSum, dFine, through },
    };
  });
  const bits = ({ output, lse, fine }: Record<'output' | 'lse' | 'fine', Tensor>) => bitsOfAll({ output, lse, fine });
  expect(await bits(whole)).toEqual(await bits(parts));
  expect(await whole.lists.toArrays()).toEqual(await parts.lists.toArrays());
  const gates = ({ coarseGate, fineGate }: { coarseGate?: Tensor; fineGate?: Tensor }) =>
    bitsOfAll({ coarseGate, fineGate });
  expect(await gates(whole.grads)).toEqual(await gates(parts.dSum));
  // The sum of the two branches is rounded once in the whole, so it need not be equal to the bit; and a GPU has two
  // orders of summing delta.
  const bound = here.type === 'cuda' ? 2 ** -21 : 2 ** -23;
  for (const name of ['q', 'k', 'v'] as const) {
    const [got, fine, pooled] = [whole.grads[name], parts.dFine[name], parts.through[name]];
    const [sum, a, b] = [await valuesOf(got), await valuesOf(fine), await valuesOf(pooled)];
    const largest = sum.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const error = sum.reduce((most, value, i) => Math.max(most, Math.abs(value - a[i]! - b[i]!)), 0);
    expect(error).toBeLessThanOrEqual(bound * largest);
  }
  const { grads, lists, ...rest } = whole;
  const { dSum, dFine, through, lists: partLists, ...partRest } = parts;
  for (const group of [grads, rest, dSum, dFine, through, partRest]) {
    for (const tensor of Object.values(group) as Tensor[]) tensor.dispose();
  }
  lists.dispose();
  partLists.dispose();
});

describe('the output is that of its parts to the bit, whichever kernel combines', () => {
  // Partial tiles and prefixes, as many as make a GPU take each of its ways: lists in parts, pairs and triples of tiles.
  const GRIDS = {
    few: { grid: GRID, keyGrid: KEY_GRID },
    many: {
      grid: new TileGrid({ tokens: [42, 7, 8], prefix: 5 }),
      keyGrid: new TileGrid({ tokens: [9, 6, 7], prefix: 3 }),
    },
  };
  const cases = (['few', 'many'] as const).flatMap((size) =>
    (['grid', 'tiled'] as const).flatMap((order) =>
      (['bfloat16', 'float16', 'float32'] as const).flatMap((dtype) =>
        ([64, 128] as const)
          .map((D) => ({ size, order, dtype, D }))
          .filter(() => size === 'few' || dtype === 'bfloat16'),
      ),
    ),
  );

  test.each(cases)('$size tiles, $order order, $dtype, D=$D', async ({ size, order, dtype, D }) => {
    const { grid, keyGrid } = GRIDS[size];
    const random = (rows: number, heads: number, seed: number) =>
      fresh.randn([2, rows, heads, D], { seed, dtype, std: 0.5 });
    const [rows, keyRows] = [grid.rows(order), keyGrid.rows(order)];
    const common = { grid, keyGrid, order };
    const found = tidy(() => {
      const [q, k, v] = [random(rows, 4, 1), random(keyRows, 2, 2), random(keyRows, 2, 3)];
      const [coarseGate, fineGate] = [random(rows, 4, 4), random(rows, 4, 5)];
      const pool = (x: Tensor, on: TileGrid) => tilePooling.forward({ x, grid: on, order }).output;
      const pooled = { q: pool(q, grid), k: pool(k, keyGrid), v: pool(v, keyGrid) };
      const coarse = coarseAttention.forward(pooled).output;
      const { lists } = tileSelection.forward({ q: pooled.q, k: pooled.k, grid, keyGrid, topK: 3 });
      const fine = blockSparseAttention.forward({ ...common, q, k, v, lists });
      const results: Record<string, Tensor> = {};
      for (const kind of ['skip', 'add', 'gate'] as const) {
        for (const gated of [false, true]) {
          const options = {
            coarse: kind === 'gate' ? { gate: coarseGate } : kind,
            ...(gated && { fine: { gate: fineGate } }),
          };
          const all = videoSparseAttention.forward({ ...common, q, k, v, lists, ...options });
          const parts = gatedCombination.forward({
            ...{ fine: fine.output, grid, order },
            ...(kind !== 'skip' && { coarse }),
            ...(kind === 'gate' && { coarseGate }),
            ...(gated && { fineGate }),
          });
          const name = `${kind}${gated ? ', fine gate' : ''}`;
          results[`${name}: output`] = all.output;
          results[`${name}: parts`] = parts.output;
          results[`${name}: fine`] = all.saved.fineOutput;
          results[`${name}: lse`] = all.saved.lse;
        }
      }
      return { ...results, fine: fine.output, lse: fine.saved.lse };
    });
    const bits = await bitsOfAll(found);
    for (const name of Object.keys(bits).filter((one) => one.endsWith('output'))) {
      const kind = name.slice(0, name.indexOf(':'));
      const [output, fine, lse] = [bits[name], bits[`${kind}: fine`], bits[`${kind}: lse`]];
      expect({ kind, output, fine, lse }).toEqual({
        ...{ kind, output: bits[`${kind}: parts`], fine: bits['fine'], lse: bits['lse'] },
      });
    }
    for (const tensor of Object.values(found)) tensor.dispose();
  });
});

test("coarse 'skip', the default, and no fine gate: block-sparse attention alone, forward and backward", async () => {
  const results = tidy(() => {
    const { q, k, v, dOutput } = inputs('grid', 'bfloat16');
    const common = { q, k, v, grid: GRID, keyGrid: KEY_GRID };
    const all = [{}, { coarse: 'skip' as const }].map((coarse) => {
      const { output, saved } = videoSparseAttention.forward({ ...common, ...coarse, topK: 5 });
      return { output, saved, grads: videoSparseAttention.backward(saved, { output: dOutput }) };
    });
    const fine = blockSparseAttention.forward({ ...common, lists: all[0]!.saved.lists });
    const found = [...all, { ...fine, grads: blockSparseAttention.backward(fine.saved, { output: dOutput }) }];
    return found.map(({ output, saved, grads }) => ({ output, lse: saved.lse, q: grads.q, k: grads.k, v: grads.v }));
  });
  const [byDefault, skip, fine] = await Promise.all(results.map(bitsOfAll));
  expect(byDefault).toEqual(fine);
  expect(skip).toEqual(fine);
  for (const result of results) for (const tensor of Object.values(result)) tensor.dispose();
});

test("a coarse gate of 1 is 'add'; a fine gate of 1 is none; K = N is dense attention", async () => {
  const close = async (a: Tensor, b: Tensor, tolerance: number) => {
    const [x, y] = [await valuesOf(a), await valuesOf(b)];
    expect(x.reduce((most, value, i) => Math.max(most, Math.abs(value - y[i]!)), 0)).toBeLessThanOrEqual(tolerance);
  };
  const { add, gated, all, dense } = tidy(() => {
    const { q, k, v } = inputs('grid', 'float32');
    const common = { q, k, v, grid: GRID, keyGrid: KEY_GRID };
    const gate = fresh.full(q.shape, 1);
    const forward = (options: object) => videoSparseAttention.forward({ ...common, topK: 2, ...options }).output;
    return {
      add: forward({ coarse: 'add' }),
      gated: forward({ coarse: { gate }, fine: { gate } }),
      all: forward({ topK: KEY_GRID.tileCount }),
      dense: denseAttention.forward({ q, k, v }).output,
    };
  });
  await close(add, gated, 0);
  await close(all, dense, 1e-6);
  for (const tensor of [add, gated, all, dense]) tensor.dispose();
});

test('own tiles forced: every video query tile attends to itself', async () => {
  const lists = tidy(() => {
    const random = (seed: number) => fresh.randn([1, GRID.length, 2, 64], { seed });
    const options = { q: random(1), k: random(2), v: random(3), grid: GRID, topK: 1, includeSelf: true };
    return videoSparseAttention.forward(options).saved.lists;
  });
  const arrays = await lists.toArrays();
  arrays.forEach((list, row) => {
    const i = row % GRID.totalTileCount;
    // Two prefix tiles: their queries attend to all, and all attend to them.
    expect(list).toEqual(i < 2 ? Array.from({ length: 10 }, (_, tile) => tile) : [0, 1, i]);
  });
  lists.dispose();
});
