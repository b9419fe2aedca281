/** Tile selection: the K key tiles of the largest scores for every query tile, exactly. */

import { native } from '../binding.js';
import { show, VsaRangeError } from '../errors.js';
import { tidy } from '../tensor/scope.js';
import { handleOf, optionalHandle, outputTensor, type Tensor } from '../tensor/tensor.js';
import { checkBoolean, checkChoice, checkOptions } from '../validate.js';
import { type BackendOption, chooseBackend } from './backends.js';
import { checkAlike, checkDims, checkGrid, checkHeadDim, checkHeads, checkScale, checkTensor } from './checks.js';
import type { TileGrid } from './grid.js';
import { TileLists } from './lists.js';

/**
 * What prefix key tiles are to the selection: `'exempt'`, always kept beside the K video tiles; `'compete'`, ranked
 * with them, and K + the number of prefix tiles kept.
 */
export type PrefixMode = 'exempt' | 'compete';

export interface SelectionRule {
  /** K: video key tiles kept for every video query tile, 1 to N of the key grid. */
  topK: number;
  /** Default 'exempt'. Prefix query tiles attend to everything in both modes. */
  prefix?: PrefixMode;
  /** A tile's own index is always kept; it counts in K. Needs equal grids. Default false. */
  includeSelf?: boolean;
}

export interface SelectionOptions extends SelectionRule, BackendOption {
  /** Pooled queries, float32 `[B, Nq, H, D]`. */
  q: Tensor;
  /** Pooled keys, float32 `[B, Nk, Hkv, D]`. */
  k: Tensor;
  /** Grid of the queries. */
  grid: TileGrid;
  /** Grid of the keys. Default: `grid`. */
  keyGrid?: TileGrid;
  /** Default `1 / sqrt(D)`. */
  scale?: number;
  /** Also return the scores that were ranked. They take B * H * Nq * Nk floats. Default false. */
  returnScores?: boolean;
}

/** @internal The rule of a selection, checked against its grids. */
export function checkRule(
  rule: { topK?: unknown; prefix?: unknown; includeSelf?: unknown },
  grid: TileGrid,
  keyGrid: TileGrid,
): Required<SelectionRule> {
  const { topK } = rule;
  const N = keyGrid.tileCount;
  if (typeof topK !== 'number' || !Number.isInteger(topK) || topK < 1 || topK > N) {
    throw new VsaRangeError({
      code: 'ERR_TOP_K',
      argument: 'topK',
      got: show(topK),
      wanted: `a whole number from 1 to ${String(N)}, the video tiles of key grid ${keyGrid.toString()}`,
    });
  }
  const prefix = checkChoice('prefix', rule.prefix ?? 'exempt', ['exempt', 'compete']);
  const includeSelf = checkBoolean('includeSelf', rule.includeSelf ?? false);
  if (includeSelf && !grid.equals(keyGrid)) {
    throw new VsaRangeError({
      code: 'ERR_GRID',
      argument: 'includeSelf',
      got: `true with query grid ${grid.toString()} and key grid ${keyGrid.toString()}`,
      wanted: 'equal grids: a query tile has no own key tile otherwise',
    });
  }
  return { topK, prefix, includeSelf };
}

const OPTIONS = ['q', 'k', 'grid', 'keyGrid', 'topK', 'prefix', 'includeSelf', 'scale', 'returnScores', 'backend'];

/** @internal Arguments of a selection, checked. */
export interface CheckedSelection {
  q: Tensor;
  k: Tensor;
  grid: TileGrid;
  keyGrid: TileGrid;
  rule: Required<SelectionRule>;
  scale: number;
}

/**
 * @internal Launches a selection; the caller disposes what was made if it throws.
 * @param scoreStride If the scores are wanted: their row length, Nk or Nk rounded up to a multiple of 4.
 */
export function selectTiles(
  { q, k, grid, keyGrid, rule, scale }: CheckedSelection,
  scoreStride?: number,
): { lists: TileLists; scores?: Tensor } {
  const [B, Nq, H, D] = q.shape as [number, number, number, number];
  const [Nk, Hkv] = k.shape.slice(1) as [number, number];
  const [prefixQ, prefixK] = [grid.prefixTileCount, keyGrid.prefixTileCount];
  const entries = B * H * (prefixQ * Nk + grid.tileCount * (rule.topK + prefixK));
  if (entries >= 2 ** 31 || B * H * Nq >= 2 ** 31 - 1) {
    throw new VsaRangeError({
      code: 'ERR_TOP_K',
      argument: 'topK',
      got: `${String(rule.topK)}: lists of ${String(entries)} entries in all`,
      wanted: 'fewer than 2^31: a smaller K, or fewer batches at once',
    });
  }
  const { device } = q;
  const offsets = outputTensor([B * H * Nq + 1], 'int32', device);
  const indices = outputTensor([entries], 'int32', device);
  const scores = scoreStride === undefined ? undefined : outputTensor([B, H, Nq, scoreStride], 'float32', device);
  native().selection({
    B,
    H,
    Hkv,
    D,
    Nq,
    Nk,
    prefixQ,
    prefixK,
    scale,
    topK: rule.topK,
    prefixMode: rule.prefix === 'exempt' ? 0 : 1,
    includeSelf: rule.includeSelf,
    q: handleOf(q, 'q'),
    k: handleOf(k, 'k'),
    scoreStride: scoreStride ?? Nk,
    scores: optionalHandle(scores, 'scores'),
    offsets: handleOf(offsets, 'offsets'),
    indices: handleOf(indices, 'indices'),
  });
  const lists = new TileLists({ batch: B, heads: H, queryTiles: Nq, keyTiles: Nk }, { offsets, indices }, device);
  return scores === undefined ? { lists } : { lists, scores };
}

/**
 * Ranks `scale * dot(q_i, k_j)` in float32. Ties go to the lowest index, -0 equals +0, NaN ranks below -inf. The
 * lists are ascending. Indices are constants: there is no gradient. Source: VSA (arXiv 2505.13389), tile selection.
 */
export const tileSelection = {
  /**
   * @returns lists; scores: float32 `[B, H, Nq, Nk]` if asked for.
   * @throws VsaRangeError ERR_TOP_K, ERR_SHAPE, ERR_GRID; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED.
   */
  forward(options: SelectionOptions): { lists: TileLists; scores?: Tensor } {
    checkOptions('options', options, OPTIONS);
    const grid = checkGrid('grid', options.grid);
    const keyGrid = checkGrid('keyGrid', options.keyGrid ?? grid);
    const q = checkTensor('q', options.q, '[B, Nq, H, D]', ['float32']);
    const k = checkTensor('k', options.k, '[B, Nk, Hkv, D]', ['float32']);
    const device = checkAlike({ q, k }, true);
    const [B, , H, D] = q.shape as [number, number, number, number];
    const [Nq, Nk] = [grid.totalTileCount, keyGrid.totalTileCount];
    checkHeadDim('q', D);
    checkDims('q', q, [B, Nq, H, D], '[B, Nq, H, D]');
    checkDims('k', k, [B, Nk, null, D], '[B, Nk, Hkv, D]');
    const Hkv = k.shape[2]!;
    checkHeads(H, Hkv);
    const rule = checkRule(options, grid, keyGrid);
    const returnScores = checkBoolean('returnScores', options.returnScores ?? false);
    const scale = checkScale(options.scale, D);
    chooseBackend(device, options.backend, 'tileSelection');
    return tidy(() => selectTiles({ q, k, grid, keyGrid, rule, scale }, returnScores ? Nk : undefined));
  },
};
