/** The whole operator: pool, select, attend to tiles and to tokens, combine. */

import { show, VsaTypeError } from '../errors.js';
import { allOrNothing, tidy } from '../tensor/scope.js';
import { outputTensor, share, type Tensor } from '../tensor/tensor.js';
import { checkOptions } from '../validate.js';
import { type BackendOption, chooseBackend, kernelsOf } from './backends.js';
import {
  checkAlike,
  checkDims,
  checkGradient,
  checkGrid,
  checkOrder,
  checkQkv,
  checkSaved,
  checkScale,
  checkTensor,
} from './checks.js';
import { attendToTiles, coarseAttention, type CoarseCall, type CoarseSaved, keptScoreStride } from './coarse.js';
import { checkGate, combineBackward, type CombinationGates } from './combination.js';
import { checkLists, type FineCall, fineBackward, fineForward, TOKENS } from './fine.js';
import type { Order, TileGrid } from './grid.js';
import type { TileLists } from './lists.js';
import { poolTogether } from './pooling.js';
import { Saved } from './saved.js';
import { checkRule, type SelectionRule, selectTiles } from './selection.js';
import { together } from './together.js';

export interface VideoSparseAttentionOptions extends Partial<SelectionRule>, BackendOption {
  /** `[B, rows, H, D]` float32, bfloat16 or float16; rows = `grid.rows(order)`. Padding rows may hold any bits. */
  q: Tensor;
  /** `[B, key rows, Hkv, D]`; Hkv divides H. */
  k: Tensor;
  /** `[B, key rows, Hkv, D]` */
  v: Tensor;
  /** Grid of the queries. */
  grid: TileGrid;
  /** Grid of the keys (cross attention). Default: `grid`. */
  keyGrid?: TileGrid;
  /** How the tokens of every tensor lie. Default 'grid'. */
  order?: Order;
  /** Your own lists, instead of `topK` and the other options of the selection. */
  lists?: TileLists;
  /**
   * The coarse output: `'skip'` (default) leaves it out, `'add'` adds it as it is, `{ gate }` adds it times a gate
   * per token and channel, of q's shape and dtype.
   */
  coarse?: 'skip' | 'add' | { gate: Tensor };
  /** A gate of the fine output, of q's shape and dtype. Default: none. */
  fine?: { gate: Tensor };
  /** Of both stages. Default `1 / sqrt(D)`. */
  scale?: number;
  /**
   * Means of the tiles that an earlier kernel has made: they take the place of those of q, k and v, whose pooling is
   * left out. The backward returns their gradients, and those of q, k and v have no part through the coarse stage.
   */
  pooled?: PooledTensors;
}

/** Tensors of tiles, prefix tiles first. */
export interface PooledTensors {
  /** float32 `[B, tiles, H, D]` */
  q: Tensor;
  /** float32 `[B, key tiles, Hkv, D]` */
  k: Tensor;
  /** float32 `[B, key tiles, Hkv, D]`; needed for a coarse output. */
  v?: Tensor;
}

export interface VideoSparseAttentionGradients {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  /** Where coarse has a gate. */
  coarseGate?: Tensor;
  /** Where fine has a gate. */
  fineGate?: Tensor;
  /** Where `pooled` was given and there is a coarse output: nothing else has a gradient for them. */
  pooledQ?: Tensor;
  pooledK?: Tensor;
  pooledV?: Tensor;
}

/** What the coarse branch keeps: that of the coarse attention alone, pooling needs none. */
interface CoarseBranch {
  coarse: CoarseSaved;
  gate: Tensor | undefined;
  /** Whether its inputs were given, and want gradients of their own. */
  given: boolean;
}

class VideoSparseAttentionSaved extends Saved {
  /** @internal */
  constructor(
    readonly q: Tensor,
    readonly k: Tensor,
    readonly v: Tensor,
    /** Output of the fine stage, before any gate. */
    readonly fineOutput: Tensor,
    /** Of the fine stage: float32 `[B, H, rows]`, natural log; -inf for empty lists and padding. */
    readonly lse: Tensor,
    /** The key tiles that every query tile attended to. */
    readonly lists: TileLists,
    /** @internal */
    readonly fineGate: Tensor | undefined,
    /** @internal */
    readonly branch: CoarseBranch | undefined,
    /** @internal */
    readonly call: FineCall,
  ) {
    super([q, k, v, fineOutput, lse, lists, fineGate, branch?.coarse, branch?.gate]);
  }
}

const OPTIONS = [
  ...['q', 'k', 'v', 'grid', 'keyGrid', 'order', 'topK', 'lists', 'coarse', 'fine', 'scale', 'prefix'],
  ...['includeSelf', 'pooled', 'backend'],
];

/** `undefined` for 'skip', a gate or none for the coarse output. */
function checkCoarse(value: unknown, q: Tensor): { gate: Tensor | undefined } | undefined {
  if (value === undefined || value === 'skip') return undefined;
  if (value === 'add') return { gate: undefined };
  if (typeof value !== 'object' || value === null) {
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: 'coarse',
      got: show(value),
      wanted: "'skip', 'add' or { gate: Tensor }",
    });
  }
  checkOptions('coarse', value, ['gate']);
  return { gate: checkGate('coarse.gate', (value as { gate?: unknown }).gate, q) };
}

function checkFine(value: unknown, q: Tensor): Tensor | undefined {
  if (value === undefined) return undefined;
  checkOptions('fine', value, ['gate']);
  return checkGate('fine.gate', (value as { gate?: unknown }).gate, q);
}

const TILES = { q: '[B, tiles, H, D]', kv: '[B, key tiles, Hkv, D]' } as const;

function checkPooled(value: unknown, call: FineCall, wantV: boolean, used: boolean): PooledTensors | undefined {
  if (value === undefined) return undefined;
  checkOptions('pooled', value, ['q', 'k', 'v']);
  if (!used) {
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: 'pooled',
      got: "pooled tensors beside lists and coarse 'skip'",
      wanted: 'none: there is neither a selection nor a coarse output to make of them',
    });
  }
  const { B, H, Hkv, D } = call.dims;
  const given = value as Record<keyof PooledTensors, unknown>;
  const one = (name: keyof PooledTensors, layout: string, tiles: number, heads: number) => {
    const tensor = checkTensor(`pooled.${name}`, given[name], layout, ['float32']);
    checkDims(`pooled.${name}`, tensor, [B, tiles, heads, D], layout);
    return tensor;
  };
  const keyTiles = call.keyGrid.totalTileCount;
  return {
    q: one('q', TILES.q, call.grid.totalTileCount, H),
    k: one('k', TILES.kv, keyTiles, Hkv),
    ...((wantV || given.v !== undefined) && { v: one('v', TILES.kv, keyTiles, Hkv) }),
  };
}

/** Either lists or a rule to make them by, never both. */
function checkChoiceOfTiles(options: VideoSparseAttentionOptions, call: FineCall, q: Tensor) {
  if (options.lists === undefined) return { rule: checkRule(options, call.grid, call.keyGrid), lists: undefined };
  for (const name of ['topK', 'prefix', 'includeSelf'] as const) {
    if (options[name] === undefined) continue;
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: name,
      got: `${show(options[name])} beside lists`,
      wanted: 'one or the other: lists leave nothing to select',
    });
  }
  return { rule: undefined, lists: checkLists(options.lists, call, q) };
}

/**
 * Video sparse attention. A coarse stage pools tiles of 64 tokens and attends over tiles; each query tile keeps its
 * top K key tiles; a fine stage attends to the tokens of those; gates combine the two. Everything but the choice of
 * indices is differentiable. Source: VSA (arXiv 2505.13389).
 *
 * @example
 * const { output, saved } = videoSparseAttention.forward({ q, k, v, grid, topK: topK(grid, { sparsity: 0.9 }) });
 * const grads = videoSparseAttention.backward(saved, { output: dOutput });
 */
export const videoSparseAttention = {
  /**
   * @returns output: of q's shape and dtype; saved.lse, saved.lists, saved.fineOutput.
   * @throws VsaRangeError ERR_SHAPE, ERR_HEAD_DIM, ERR_TOP_K, ERR_LISTS, ERR_GRID; VsaTypeError ERR_ARGUMENT,
   *   ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED; VsaError ERR_BACKEND; OutOfMemoryError.
   */
  forward(options: VideoSparseAttentionOptions): { output: Tensor; saved: VideoSparseAttentionSaved } {
    checkOptions('options', options, OPTIONS);
    const grid = checkGrid('grid', options.grid);
    const keyGrid = checkGrid('keyGrid', options.keyGrid ?? grid);
    const order = checkOrder(options.order);
    const { q, k, v, dims, device } = checkQkv(options, { q: grid.rows(order), kv: keyGrid.rows(order) }, TOKENS);
    const scale = checkScale(options.scale, dims.D);
    const call: FineCall = { dims, grid, keyGrid, order, scale, kernels: kernelsOf(options.backend) };
    const { rule, lists: given } = checkChoiceOfTiles(options, call, q);
    const coarse = checkCoarse(options.coarse, q);
    const fineGate = checkFine(options.fine, q);
    checkAlike({ q, 'coarse.gate': coarse?.gate, 'fine.gate': fineGate }, true);
    const needsPooled = rule !== undefined || coarse !== undefined;
    const ready = checkPooled(options.pooled, call, coarse !== undefined, needsPooled);
    checkAlike({ q, 'pooled.q': ready?.q, 'pooled.k': ready?.k, 'pooled.v': ready?.v }, false);
    chooseBackend(device, options.backend, 'videoSparseAttention', { dtype: q.dtype, D: dims.D, scale });

    const run = () => {
      const tokens = coarse === undefined ? { q, k } : { q, k, v };
      const pooled = ready ?? (needsPooled ? poolTogether(tokens, call) : undefined);
      const tiles: CoarseCall = { dims, Nq: grid.totalTileCount, Nk: keyGrid.totalTileCount, scale };
      const stride = coarse === undefined ? undefined : keptScoreStride(tiles, device);
      const { lists, scores } =
        rule === undefined || pooled === undefined
          ? { lists: given!.share() }
          : selectTiles({ q: pooled.q, k: pooled.k, grid, keyGrid, rule, scale }, stride);

      let branch: CoarseBranch | undefined;
      if (coarse !== undefined && pooled !== undefined) {
        const own = ready === undefined ? (tensor: Tensor) => tensor : share;
        branch = {
          coarse: attendToTiles({ q: own(pooled.q), k: own(pooled.k), v: own(pooled.v!), scores }, tiles),
          gate: coarse.gate === undefined ? undefined : share(coarse.gate),
          given: ready !== undefined,
        };
      }
      const heldGate = fineGate === undefined ? undefined : share(fineGate);
      const fine = fineForward({ q, k, v, lists }, call, gatesOf(branch, heldGate));
      const output = fine.combined ?? share(fine.output);
      // What no backward needs.
      if (scores !== branch?.coarse.scores) scores?.dispose();
      if (branch === undefined && ready === undefined) {
        pooled?.q.dispose();
        pooled?.k.dispose();
      }
      const saved = new VideoSparseAttentionSaved(
        share(q),
        share(k),
        share(v),
        fine.output,
        fine.lse,
        lists,
        heldGate,
        branch,
        call,
      );
      return { output, saved };
    };
    return allOrNothing(() => together(device, 'videoSparseAttention', run));
  },

  /**
   * @param grads.output Of output's shape and dtype; padding rows may hold any bits.
   * @returns Gradients of q, k, v, of the gates that were given, and of pooled tensors that were given and reached the
   *   output. Those of k and v are summed over the head group.
   */
  backward(saved: VideoSparseAttentionSaved, grads: { output: Tensor }): VideoSparseAttentionGradients {
    const { q, k, v, fineOutput, branch, fineGate, call } = checkSaved(
      'videoSparseAttention',
      saved,
      VideoSparseAttentionSaved,
    );
    const doutput = checkGradient(grads, q);
    const run = () => {
      const { lse, lists } = saved;
      const combined = gatesOf(branch, fineGate);
      const delta = combined === undefined ? undefined : outputTensor(lse.shape, 'float32', q.device);
      // Where no gate touches the fine output, its gradient is that of the output itself.
      const gates: ReturnType<typeof combineBackward> =
        combined === undefined
          ? {}
          : combineBackward({ fine: fineOutput, ...combined }, doutput, call, fineGate !== undefined, delta);
      const pooled =
        branch === undefined || gates.coarse === undefined
          ? undefined
          : coarseAttention.backward(branch.coarse, { output: gates.coarse });
      const given = branch?.given === true;
      const through = given ? undefined : pooled;
      // Of q's shape as its gradient is, which takes its place.
      const dFine = gates.fine;
      const inputs = { q, k, v, output: fineOutput, lse, lists };
      const fine = fineBackward(inputs, dFine ?? doutput, call, through, delta, dFine);
      const made: VideoSparseAttentionGradients = fine;
      if (given && pooled !== undefined) {
        made.pooledQ = pooled.q;
        made.pooledK = pooled.k;
        made.pooledV = pooled.v;
      }
      if (gates.coarseGate !== undefined) made.coarseGate = gates.coarseGate;
      if (gates.fineGate !== undefined) made.fineGate = gates.fineGate;
      return made;
    };
    return tidy(() => together(q.device, 'videoSparseAttention', run));
  },
};

/** What the fine output is combined with, if anything. */
function gatesOf(branch: CoarseBranch | undefined, fineGate: Tensor | undefined): CombinationGates | undefined {
  if (branch === undefined && fineGate === undefined) return undefined;
  return { coarse: branch?.coarse.output, coarseGate: branch?.gate, fineGate };
}
