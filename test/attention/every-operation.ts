/** Every operation, forward and backward, on the same inputs: for what must hold of all of them. */
import {
  blockSparseAttention,
  coarseAttention,
  denseAttention,
  type Device,
  type DType,
  gatedCombination,
  type Order,
  Tensor,
  TileGrid,
  TileLists,
  tidy,
  tile,
  tilePooling,
  tileSelection,
  untile,
  videoSparseAttention,
} from '../../lib/index.js';
import type { CheckBackend } from '../../lib/check/index.js';
import { here } from '../under-test.js';

export const GRID = new TileGrid({ tokens: [5, 6, 9], prefix: 67 });
export const KEY_GRID = new TileGrid({ tokens: [3, 9, 9], tile: [2, 4, 8], prefix: 3 });
const [BATCH, HEADS, KEY_HEADS, D] = [2, 2, 1, 64];
const [TILES, KEY_TILES] = [GRID.totalTileCount, KEY_GRID.totalTileCount];

/** Query tile i of head h: every key tile j where 3 i + 5 h + 7 j is divisible by 4, none for tile 1. */
const LISTS = Array.from({ length: BATCH * HEADS * TILES }, (_, row) => {
  const [h, i] = [Math.floor(row / TILES), row % TILES];
  return Array.from({ length: KEY_TILES }, (__, j) => j).filter((j) => i !== 1 && (3 * i + 5 * h + 7 * j) % 4 === 0);
});

/** Inputs, tokens in grid order. */
export type Inputs = Readonly<
  Record<'q' | 'k' | 'v' | 'gate' | 'otherGate' | 'dOutput' | 'qc' | 'kc' | 'vc' | 'dCoarse', Tensor>
>;

export function makeInputs(dtype: DType, device: Device = here): Inputs {
  const tokens = (grid: TileGrid, heads: number, seed: number) =>
    Tensor.randn([BATCH, grid.length, heads, D], { seed, dtype, device });
  const pooled = (tiles: number, heads: number, seed: number) =>
    Tensor.randn([BATCH, tiles, heads, D], { seed, device });
  return {
    q: tokens(GRID, HEADS, 1),
    k: tokens(KEY_GRID, KEY_HEADS, 2),
    v: tokens(KEY_GRID, KEY_HEADS, 3),
    gate: tokens(GRID, HEADS, 4),
    otherGate: tokens(GRID, HEADS, 5),
    dOutput: tokens(GRID, HEADS, 6),
    qc: pooled(TILES, HEADS, 7),
    kc: pooled(KEY_TILES, KEY_HEADS, 8),
    vc: pooled(KEY_TILES, KEY_HEADS, 9),
    dCoarse: pooled(TILES, HEADS, 10),
  };
}

/** The inputs in an order; those on key tiles are none of it. */
export function inOrder(inputs: Inputs, order: Order): Inputs {
  if (order === 'grid') return inputs;
  const tiled = (x: Tensor, grid: TileGrid) => tile.forward({ x, grid }).output;
  const { q, k, v, gate, otherGate, dOutput } = inputs;
  return {
    ...inputs,
    ...{ q: tiled(q, GRID), k: tiled(k, KEY_GRID), v: tiled(v, KEY_GRID) },
    ...{ gate: tiled(gate, GRID), otherGate: tiled(otherGate, GRID), dOutput: tiled(dOutput, GRID) },
  };
}

interface Saved {
  dispose(): void;
}

/** One operation: what its forward gives, and its gradients, by name. */
export interface Operation {
  readonly name: string;
  /** As it is exported, for wrong calls. */
  readonly pair: { readonly backward: (saved: never, grads: never) => unknown };
  /** Token outputs are in the order of the inputs, with their grid here; others are as they are. */
  readonly grids: Readonly<Record<string, TileGrid>>;
  /** `backend`: of fine attention, as `vsa check` has it; others run on what there is. Default 'auto'. */
  forward(inputs: Inputs, order: Order, backend?: CheckBackend): { outputs: Record<string, Tensor>; saved: Saved };
  backward(saved: Saved, inputs: Inputs): Record<string, Tensor>;
}

/** An operation from its pair: what differs is how it is called. */
function operation<S extends Saved, O extends object>(
  name: string,
  pair: {
    readonly forward: (options: O) => { output: Tensor; saved: S };
    readonly backward: (saved: S, grads: { output: Tensor }) => object;
  },
  options: (inputs: Inputs, order: Order, backend: CheckBackend) => O,
  gradient: (inputs: Inputs) => Tensor,
  grids: Readonly<Record<string, TileGrid>>,
): Operation {
  return {
    name,
    pair,
    grids,
    forward(inputs, order, backend = 'auto') {
      const { output, saved } = pair.forward(options(inputs, order, backend));
      const { lse, lists } = saved as { lse?: Tensor; lists?: TileLists };
      const found: Record<string, Tensor> = { output };
      if (lse !== undefined) found['lse'] = lse;
      if (lists?.indices !== undefined) found['lists'] = lists.indices;
      return { outputs: found, saved };
    },
    backward(saved, inputs) {
      const grads = pair.backward(saved as S, { output: gradient(inputs) }) as Record<string, Tensor>;
      return Object.fromEntries(Object.entries(grads).map(([of, tensor]) => [`d${of}`, tensor]));
    },
  };
}

const QUERIES = { output: GRID, lse: GRID, dq: GRID, dk: KEY_GRID, dv: KEY_GRID };
const MIXED = { output: GRID, dfine: GRID, dcoarseGate: GRID, dfineGate: GRID };

const on = (order: Order) => ({ grid: GRID, keyGrid: KEY_GRID, order });
const lists = (like: Tensor) =>
  TileLists.from(
    LISTS,
    { batch: BATCH, heads: HEADS, queryTiles: TILES, keyTiles: KEY_TILES },
    { device: like.device },
  );

/** All of them that have gradients. */
export const OPERATIONS: readonly Operation[] = [
  operation(
    'tilePooling',
    tilePooling,
    ({ q }, order) => ({ x: q, grid: GRID, order }),
    (x) => x.dCoarse,
    { dx: GRID },
  ),
  operation(
    'coarseAttention',
    coarseAttention,
    ({ qc, kc, vc }) => ({ q: qc, k: kc, v: vc }),
    (x) => x.dCoarse,
    {},
  ),
  operation(
    'blockSparseAttention',
    blockSparseAttention,
    ({ q, k, v }, order, backend) => ({ q, k, v, lists: lists(q), ...on(order), backend }),
    (x) => x.dOutput,
    QUERIES,
  ),
  operation(
    'denseAttention',
    denseAttention,
    ({ q, k, v }, order, backend) => ({ q, k, v, ...on(order), backend }),
    (x) => x.dOutput,
    QUERIES,
  ),
  operation(
    'gatedCombination',
    gatedCombination,
    ({ q, dCoarse, gate, otherGate }, order) => ({
      ...{ fine: q, coarse: dCoarse, coarseGate: gate, fineGate: otherGate, grid: GRID, order },
    }),
    (x) => x.dOutput,
    MIXED,
  ),
  operation(
    'videoSparseAttention',
    videoSparseAttention,
    ({ q, k, v, gate, otherGate }, order, backend) => ({
      ...{ q, k, v, topK: 5, prefix: 'compete' as const, ...on(order), backend },
      ...{ coarse: { gate }, fine: { gate: otherGate } },
    }),
    (x) => x.dOutput,
    { ...QUERIES, ...MIXED },
  ),
];

/** Selection has no gradient, and its lists no order. */
export function select({ qc, kc }: Inputs): Record<string, Tensor> {
  const rule = { grid: GRID, keyGrid: KEY_GRID, topK: 5, prefix: 'exempt' as const, returnScores: true };
  const { lists: selected, scores } = tileSelection.forward({ q: qc, k: kc, ...rule });
  return { scores: scores!, offsets: selected.offsets!, indices: selected.indices! };
}

/** A result in grid order, if it is of tokens. lse [B, H, rows] has its rows last. */
export function toGridOrder(name: string, tensor: Tensor, grid: TileGrid | undefined, order: Order): Tensor {
  if (order === 'grid' || grid === undefined) return tensor;
  if (name !== 'lse') return untile.forward({ x: tensor, grid }).output;
  const flat = tensor.reshape([BATCH * HEADS, grid.slots]);
  return untile.forward({ x: flat, grid }).output.reshape([BATCH, HEADS, grid.length]);
}

/** Everything that every operation computes, by operation and name, tokens in grid order. */
export function everything(inputs: Inputs, order: Order, backend?: CheckBackend): Record<string, Tensor> {
  return tidy(() => {
    const found: Record<string, Tensor> = {};
    const ordered = inOrder(inputs, order);
    for (const one of OPERATIONS) {
      const { outputs, saved } = one.forward(ordered, order, backend);
      for (const [name, tensor] of Object.entries({ ...outputs, ...one.backward(saved, ordered) })) {
        found[`${one.name}.${name}`] = toGridOrder(name, tensor, one.grids[name], order);
      }
    }
    for (const [name, tensor] of Object.entries(select(inputs))) found[`tileSelection.${name}`] = tensor;
    return found;
  });
}
