import { type AttentionCase, checkDense } from '../../lib/check/fine.js';
import { blockSparseAttention, denseAttention, type Order, TileGrid, tidy } from '../../lib/index.js';
import { layoutOf, type OracleGrid } from '../../lib/oracle/index.js';
import { attentionCases, bitsOfAll, expectCase, holds, useGuardedMemory } from './support.js';
import { fresh } from '../under-test.js';

useGuardedMemory();

test('output, lse and gradients of any lengths and heads', async () => {
  await holds(15, attentionCases, (c) => expectCase(checkDense, c));
});

const BASE: Omit<AttentionCase, 'grid'> = {
  ...{ name: 'by hand', dtype: 'float32', order: 'grid', batch: 1, heads: 2, kvHeads: 1, headDim: 64, std: 1 },
};
const sequence = (length: number): OracleGrid => ({ tokens: [1, 1, length], tile: [1, 1, 64] });

test.each([
  [1, 1],
  [1, 130],
  [63, 64],
  [65, 1],
  [128, 65],
])('%i queries, %i keys', async (queries, keys) => {
  await expectCase(checkDense, { ...BASE, grid: sequence(queries), keyGrid: sequence(keys) });
});

test.each([
  ['float32', 4],
  ['float32', 16],
  ['bfloat16', 4],
  ['bfloat16', 16],
  ['float16', 16],
] as const)('large logits: %s, inputs x%i', async (dtype, std) => {
  await expectCase(checkDense, { ...BASE, dtype, std, grid: { tokens: [3, 5, 7], tile: [4, 4, 4] } });
});

test.each(['grid', 'tiled'] as const)(
  'is block-sparse attention over every tile, bit for bit, in %s order',
  async (order: Order) => {
    const options: OracleGrid = { tokens: [5, 3, 6], tile: [4, 4, 4], prefix: 3 };
    const grid = new TileGrid(options);
    const { tiles } = layoutOf(options);
    const dims = { batch: 2, heads: 2, queryTiles: tiles, keyTiles: tiles };
    const all = Array.from({ length: 4 * tiles }, () => Array.from({ length: tiles }, (_, tile) => tile));
    const results = tidy(() => {
      const random = (seed: number) => fresh.randn([2, grid.rows(order), 2, 96], { seed, dtype: 'bfloat16' });
      const [q, k, v, d] = [random(1), random(2), random(3), random(4)];
      const dense = denseAttention.forward({ q, k, v, grid, order });
      const grads = denseAttention.backward(dense.saved, { output: d });
      const found = [{ output: dense.output, lse: dense.saved.lse, ...grads }];
      for (const lists of [fresh.fullLists(dims), fresh.lists(all, dims)]) {
        const sparse = blockSparseAttention.forward({ q, k, v, grid, order, lists });
        const sparseGrads = blockSparseAttention.backward(sparse.saved, { output: d });
        found.push({ output: sparse.output, lse: sparse.saved.lse, ...sparseGrads });
      }
      return found;
    });
    const [dense, full, everything] = await Promise.all(results.map(bitsOfAll));
    expect(full).toEqual(dense);
    expect(everything).toEqual(dense);
    for (const result of results) for (const tensor of Object.values(result)) tensor.dispose();
  },
);
