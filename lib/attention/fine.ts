/** Fine attention: token-level attention over the tiles of lists, and over all tokens. */

import { native } from '../binding.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { dtypeCode } from '../tensor/dtype.js';
import { tidy } from '../tensor/scope.js';
import { handleOf, optionalHandle, outputTensor, share, type Tensor } from '../tensor/tensor.js';
import { checkOptions } from '../validate.js';
import { type BackendOption, chooseBackend, kernelsOf } from './backends.js';
import {
  type AttentionDims,
  checkGradient,
  checkGrid,
  checkOrder,
  checkQkv,
  checkSaved,
  checkScale,
  orderCode,
} from './checks.js';
import type { CombinationGates } from './combination.js';
import { type Order, TileGrid } from './grid.js';
import { TileLists } from './lists.js';
import { Saved } from './saved.js';
import { together } from './together.js';

export const TOKENS = { q: '[B, Lq, H, D]', kv: '[B, Lk, Hkv, D]' } as const;

/** Checked arguments of one fine attention. */
export interface FineCall {
  dims: AttentionDims;
  grid: TileGrid;
  keyGrid: TileGrid;
  order: Order;
  scale: number;
  /** @internal Which of a GPU's kernels: kernelsOf. */
  kernels: number;
}

export interface DenseOptions extends BackendOption {
  /** `[B, rows, H, D]` float32, bfloat16 or float16. Padding rows (tiled order) may hold any bits. */
  q: Tensor;
  /** `[B, key rows, Hkv, D]`; Hkv divides H. */
  k: Tensor;
  /** `[B, key rows, Hkv, D]` */
  v: Tensor;
  /** Grid of the queries. Needed for tiled order only: attention over everything does not depend on tiles. */
  grid?: TileGrid;
  /** Grid of the keys. Default: `grid`. */
  keyGrid?: TileGrid;
  /** Default 'grid'. */
  order?: Order;
  /** Default `1 / sqrt(D)`. */
  scale?: number;
}

export interface BlockSparseOptions extends Omit<DenseOptions, 'grid'> {
  grid: TileGrid;
  /** For every (batch, query head, query tile) the key tiles to attend to. */
  lists: TileLists;
}

class FineSaved extends Saved {
  /** @internal */
  constructor(
    readonly q: Tensor,
    readonly k: Tensor,
    readonly v: Tensor,
    readonly output: Tensor,
    /** float32 `[B, H, rows]`: natural log of the sum of exponentials; -inf for empty lists and padding. */
    readonly lse: Tensor,
    readonly lists: TileLists,
    /** @internal */
    readonly call: FineCall,
  ) {
    super([q, k, v, output, lse, lists]);
  }
}
export type { FineSaved };

/** @internal Lists for these grids and heads, living, on the tensors' device. */
export function checkLists(value: unknown, call: FineCall, q: Tensor): TileLists {
  if (!(value instanceof TileLists)) {
    throw new VsaTypeError({ code: 'ERR_LISTS', argument: 'lists', got: show(value), wanted: 'TileLists' });
  }
  value.live('lists');
  const got = [value.batch, value.heads, value.queryTiles, value.keyTiles];
  const wanted = [call.dims.B, call.dims.H, call.grid.totalTileCount, call.keyGrid.totalTileCount];
  if (got.some((dim, i) => dim !== wanted[i])) {
    throw new VsaRangeError({
      code: 'ERR_LISTS',
      argument: 'lists',
      got: `lists of ${show(got)}`,
      wanted: `${show(wanted)} (B, H, query tiles, key tiles)`,
    });
  }
  if (value.device !== q.device) {
    throw new VsaTypeError({
      code: 'ERR_DEVICE',
      argument: 'lists',
      got: `lists on ${value.device.toString()}`,
      wanted: `${q.device.toString()}, where q is`,
    });
  }
  return value;
}

/**
 * @internal Launches the forward; what it needs for a backward goes into saved.
 * @param gates What the output is combined with, if anything: `combined`, beside the output itself.
 */
export function fineForward(
  { q, k, v, lists }: { q: Tensor; k: Tensor; v: Tensor; lists: TileLists },
  call: FineCall,
  gates?: CombinationGates,
): { output: Tensor; lse: Tensor; combined: Tensor | undefined } {
  const { dims, grid, keyGrid, order, scale, kernels } = call;
  const output = outputTensor(q.shape, q.dtype, q.device);
  const combined = gates === undefined ? undefined : outputTensor(q.shape, q.dtype, q.device);
  const lse = outputTensor([dims.B, dims.H, grid.rows(order)], 'float32', q.device);
  native().fineForward({
    B: dims.B,
    H: dims.H,
    Hkv: dims.Hkv,
    D: dims.D,
    dtype: dtypeCode(q.dtype),
    order: orderCode(order),
    scale,
    qGrid: grid.native(),
    kvGrid: keyGrid.native(),
    lists: lists.native('lists'),
    q: handleOf(q, 'q'),
    k: handleOf(k, 'k'),
    v: handleOf(v, 'v'),
    output: handleOf(output, 'output'),
    lse: handleOf(lse, 'lse'),
    kernels,
    combined: optionalHandle(combined, 'output'),
    coarse: optionalHandle(gates?.coarse, 'coarse'),
    coarseGate: optionalHandle(gates?.coarseGate, 'coarseGate'),
    fineGate: optionalHandle(gates?.fineGate, 'fineGate'),
  });
  return { output, lse, combined };
}

/**
 * @internal Launches the backward, adding the gradients of pooled tensors where given.
 * @param ready delta = rowsum(doutput * output), where it has been made.
 * @param into Where the gradient of q goes: doutput itself, if nobody wants that any more.
 */
export function fineBackward(
  saved: { q: Tensor; k: Tensor; v: Tensor; output: Tensor; lse: Tensor; lists: TileLists },
  doutput: Tensor,
  call: FineCall,
  pooled?: { q: Tensor; k: Tensor; v: Tensor },
  ready?: Tensor,
  into?: Tensor,
): { q: Tensor; k: Tensor; v: Tensor } {
  const { q, k, v, output, lse, lists } = saved;
  const { dims, grid, keyGrid, order, scale, kernels } = call;
  const transposed = lists.transpose();
  const delta = ready ?? outputTensor(lse.shape, 'float32', q.device);
  const grads = {
    q: into ?? outputTensor(q.shape, q.dtype, q.device),
    k: outputTensor(k.shape, k.dtype, q.device),
    v: outputTensor(v.shape, v.dtype, q.device),
  };
  native().fineBackward({
    B: dims.B,
    H: dims.H,
    Hkv: dims.Hkv,
    D: dims.D,
    dtype: dtypeCode(q.dtype),
    order: orderCode(order),
    scale,
    qGrid: grid.native(),
    kvGrid: keyGrid.native(),
    lists: lists.native('saved'),
    transposed: transposed.native('saved'),
    q: handleOf(q, 'saved'),
    k: handleOf(k, 'saved'),
    v: handleOf(v, 'saved'),
    output: handleOf(output, 'saved'),
    lse: handleOf(lse, 'saved'),
    doutput: handleOf(doutput, 'grads.output'),
    dqPooled: optionalHandle(pooled?.q, 'q'),
    dkPooled: optionalHandle(pooled?.k, 'k'),
    dvPooled: optionalHandle(pooled?.v, 'v'),
    delta: handleOf(delta, 'delta'),
    deltaReady: ready !== undefined,
    kernels,
    dq: handleOf(grads.q, 'q'),
    dk: handleOf(grads.k, 'k'),
    dv: handleOf(grads.v, 'v'),
  });
  return grads;
}

function run(
  inputs: { q: Tensor; k: Tensor; v: Tensor; lists: TileLists },
  call: FineCall,
): { output: Tensor; saved: FineSaved } {
  return tidy(() => {
    const { output, lse } = fineForward(inputs, call);
    const { q, k, v, lists } = inputs;
    const saved = new FineSaved(share(q), share(k), share(v), share(output), lse, lists.share(), call);
    return { output, saved };
  });
}

function backward(
  operation: 'blockSparseAttention' | 'denseAttention',
  saved: FineSaved,
  grads: { output: Tensor },
): { q: Tensor; k: Tensor; v: Tensor } {
  checkSaved(operation, saved, FineSaved);
  const doutput = checkGradient(grads, saved.output);
  // The transpose of the lists, and the gradients.
  const run = () => fineBackward(saved, doutput, saved.call);
  return tidy(() => together(saved.q.device, operation, run));
}

/**
 * Every valid token of query tile i attends to exactly the valid tokens of the key tiles in its list, the softmax
 * normalised over those alone. An empty list gives output 0, lse -inf and zero gradients. The padding of outputs and
 * gradients is 0. Source: VSA (arXiv 2505.13389), the fine stage.
 */
export const blockSparseAttention = {
  /**
   * @returns output: of q's shape and dtype; saved.lse float32 `[B, H, rows]`.
   * @throws VsaRangeError ERR_SHAPE, ERR_HEAD_DIM, ERR_LISTS; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED,
   *   ERR_GRID; OutOfMemoryError.
   */
  forward(options: BlockSparseOptions): { output: Tensor; saved: FineSaved } {
    checkOptions('options', options, ['q', 'k', 'v', 'grid', 'keyGrid', 'lists', 'order', 'scale', 'backend']);
    const grid = checkGrid('grid', options.grid);
    const keyGrid = checkGrid('keyGrid', options.keyGrid ?? grid);
    const order = checkOrder(options.order);
    const { q, k, v, dims, device } = checkQkv(options, { q: grid.rows(order), kv: keyGrid.rows(order) }, TOKENS);
    const scale = checkScale(options.scale, dims.D);
    const call = { dims, grid, keyGrid, order, scale, kernels: kernelsOf(options.backend) };
    const lists = checkLists(options.lists, call, q);
    chooseBackend(device, options.backend, 'blockSparseAttention', { dtype: q.dtype, D: dims.D, scale });
    return run({ q, k, v, lists }, call);
  },

  /**
   * @param grads.output Of output's shape and dtype; padding rows may hold any bits.
   * @returns Gradients of q, k, v; those of k and v summed over the head group.
   */
  backward: (saved: FineSaved, grads: { output: Tensor }): { q: Tensor; k: Tensor; v: Tensor } =>
    backward('blockSparseAttention', saved, grads),
};

/** Every query token attends to every key token. */
export const denseAttention = {
  /**
   * @returns output: of q's shape and dtype; saved.lse float32 `[B, H, rows]`.
   * @throws As `blockSparseAttention.forward`; ERR_GRID for tiled order without a grid.
   */
  forward(options: DenseOptions): { output: Tensor; saved: FineSaved } {
    checkOptions('options', options, ['q', 'k', 'v', 'grid', 'keyGrid', 'order', 'scale', 'backend']);
    const order = checkOrder(options.order);
    if (order === 'tiled' && options.grid === undefined) {
      throw new VsaTypeError({
        code: 'ERR_GRID',
        argument: 'grid',
        got: 'undefined',
        wanted: 'a TileGrid with tiled order: it says which slots are padding',
      });
    }
    const given = options.grid === undefined ? undefined : checkGrid('grid', options.grid);
    const givenKey = options.keyGrid === undefined ? given : checkGrid('keyGrid', options.keyGrid);
    const rows = { q: given?.rows(order) ?? null, kv: givenKey?.rows(order) ?? null };
    const { q, k, v, dims, device } = checkQkv(options, rows, TOKENS);
    if (q.shape[1] === 0 || k.shape[1] === 0) {
      const [argument, tensor] = q.shape[1] === 0 ? ['q', q] : ['k', k];
      throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: show(tensor.shape), wanted: 'at least one token' });
    }
    const grid = given ?? TileGrid.sequence(q.shape[1]!);
    const keyGrid = givenKey ?? TileGrid.sequence(k.shape[1]!);
    const scale = checkScale(options.scale, dims.D);
    const call = { dims, grid, keyGrid, order, scale, kernels: kernelsOf(options.backend) };
    chooseBackend(device, options.backend, 'denseAttention', { dtype: q.dtype, D: dims.D, scale });
    const lists = TileLists.full(
      { batch: dims.B, heads: dims.H, queryTiles: grid.totalTileCount, keyTiles: keyGrid.totalTileCount },
      { device },
    );
    return run({ q, k, v, lists }, call);
  },

  /** @returns Gradients of q, k, v; those of k and v summed over the head group. */
  backward: (saved: FineSaved, grads: { output: Tensor }): { q: Tensor; k: Tensor; v: Tensor } =>
    backward('denseAttention', saved, grads),
};
