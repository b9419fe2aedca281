/** The most memory that a forward and backward of the whole operator have in use. */

import {
  denseAttention,
  memory,
  type Order,
  type Tensor,
  TileGrid,
  tidy,
  topK,
  videoSparseAttention,
} from '../../lib/index.js';
import { leaveNothingBehind } from '../tensor/support.js';
import { fresh, here } from '../under-test.js';

leaveNothingBehind();

/** Blocks of a GPU's memory are multiples of this. */
const GRANULE = 512;
const MOST_BLOCKS = 100;
/** fp32 sums of the parts of long lists, on a GPU: 2 x 64 x D of them, at most 4 parts for each of so many SMs. */
const MOST_SMS = 160;

interface Case {
  tokens: readonly [number, number, number];
  H: number;
  D: number;
  sparsity: number;
  order: Order;
  gates: boolean;
}

/** What goes with tiles, not with tokens: pooled tensors and their gradients, scores, lists, tables, parts. */
function tileBytes(grid: TileGrid, K: number, { H, D, order }: Case): number {
  const N = grid.totalTileCount;
  const pooled = 9 * N * H * D * 4;
  const scores = 3 * H * N * (N + 4) * 4;
  const lists = 8 * H * N * (K + 16) * 4;
  const bits = 2 * H * N * Math.ceil(N / 32) * 4;
  const parts = here.type === 'cuda' ? 4 * MOST_SMS * 2 * 64 * D * 4 : 0;
  // In tiled order a GPU works on copies of V's partial tiles, whose padding may hold anything.
  const partial = N - grid.tokens.reduce((whole, tokens) => whole * Math.floor(tokens / 4), 1);
  const copies = here.type === 'cuda' && order === 'tiled' ? partial * 64 * H * D * 2 : 0;
  return pooled + scores + lists + bits + parts + copies + GRANULE * MOST_BLOCKS;
}

const LARGE = { tokens: [21, 30, 52], H: 12, D: 128, sparsity: 0.9 } as const;
const SMALL = { tokens: [9, 14, 18], H: 4, D: 64, sparsity: 0.75 } as const;
const SHAPE = here.type === 'cuda' ? LARGE : SMALL;

test.each<Case>([
  { ...SHAPE, order: 'grid', gates: true },
  { ...SHAPE, order: 'grid', gates: false },
  { ...SHAPE, order: 'tiled', gates: true },
])('inputs, outputs, gradients, the fine output, and lse and delta of rows: $order order, gates $gates', async (c) => {
  const grid = new TileGrid({ tokens: c.tokens });
  const shape = [1, grid.rows(c.order), c.H, c.D];
  const make = (seed: number) => fresh.randn(shape, { dtype: 'bfloat16', seed });
  const [q, k, v, dOutput] = [make(1), make(2), make(3), make(4)];
  const gates = c.gates ? { coarse: { gate: make(5) }, fine: { gate: make(6) } } : {};
  const K = topK(grid, { sparsity: c.sparsity });
  const run = () => {
    const { output, saved } = videoSparseAttention.forward({ q, k, v, grid, order: c.order, topK: K, ...gates });
    return { output, saved, grads: videoSparseAttention.backward(saved, { output: dOutput }) };
  };
  const measured = async () => {
    await here.synchronize();
    here.resetPeakMemory();
    const { usedBytes } = here.memory();
    const { output, saved, grads } = run();
    await here.synchronize();
    const { peakBytes } = here.memory();
    for (const one of [output, saved, ...(Object.values(grads) as Tensor[])]) one.dispose();
    return peakBytes - usedBytes;
  };
  tidy(() => void run()); // what is made once: tables of constants, a page of zeros
  const peak = await measured();
  const tensor = q.byteLength;
  const gateCount = c.gates ? 2 : 0;
  // The output, the fine output where that is another tensor, dq, dk, dv, and gradients of the gates.
  const tensors = (1 + (c.gates ? 1 : 0) + 3 + gateCount) * tensor;
  // In grid order a GPU makes copies of both that lie by tiles.
  const rows = (c.order === 'tiled' ? 8 : 16) * c.H * grid.totalTileCount * 64;
  expect(peak).toBeGreaterThanOrEqual(tensors);
  expect(peak).toBeLessThanOrEqual(tensors + rows + tileBytes(grid, K, c));
  // On the CPU it depends on how far the queue has come when memory is asked for.
  if (here.type === 'cuda') expect(await measured()).toBe(peak);
  for (const one of [q, k, v, dOutput, gates.coarse?.gate, gates.fine?.gate]) one?.dispose();
  await here.synchronize();
  expect(memory().numTensors).toBe(0);
});

// No lists, and too few tiles for parts: what is left beside the gradients is delta and tables of a few bytes a tile.
test.each([8, 24])('a fine backward has 4 bytes a row in tiled order: delta (%i heads)', async (H) => {
  const grid = new TileGrid({ tokens: [11, 16, 12] });
  const make = (seed: number) => fresh.randn([1, grid.slots, H, 64], { dtype: 'bfloat16', seed });
  const [q, k, v, dOutput] = [make(1), make(2), make(3), make(4)];
  const { output, saved } = denseAttention.forward({ q, k, v, grid, order: 'tiled' });
  const backward = () => denseAttention.backward(saved, { output: dOutput });
  tidy(() => void backward());
  await here.synchronize();
  here.resetPeakMemory();
  const { usedBytes } = here.memory();
  const grads = backward();
  await here.synchronize();
  const more = here.memory().peakBytes - usedBytes - 3 * q.byteLength;
  const delta = 4 * H * grid.slots;
  expect(more).toBeGreaterThanOrEqual(delta);
  expect(more).toBeLessThanOrEqual(1.5 * delta + 32 * GRANULE);
  for (const one of [q, k, v, dOutput, output, saved, ...Object.values(grads)]) one.dispose();
});
