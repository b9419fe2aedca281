/**
 * The whole operator (Video Sparse Attention, arXiv 2505.13389) with all its intermediate values, and its gradients:
 * pool, score, select, coarse attention, masked token attention, gated mix. Indices are constants in the backward.
 *
 * All arrays are in grid order; `toTiled` and `fromTiled` (grid.ts) convert.
 */
import {
  type AttentionInputs,
  type AttentionOutputs,
  type AttentionShape,
  attentionBackward,
  attentionForward,
} from './attention.js';
import { requireHeads, requireLength } from './checks.js';
import { type CoarseForward, type CoarseShape, coarseBackward, coarseForward } from './coarse.js';
import { type CombineGradients, type CombineInputs, combineBackward, combineForward } from './combine.js';
import { type GridLayout, type OracleGrid, layoutOf } from './grid.js';
import { poolBackward, poolForward } from './pooling.js';
import { EXACT, FLOAT32, type Precision } from './precision.js';
import { roundArray } from './rounding.js';
import { type Lists, expandMask, selectTiles } from './selection.js';

/** Which tiles are attended to: the K best by score, or lists of the caller's. */
export type Choice =
  | {
      readonly topK: number;
      readonly prefix?: 'exempt' | 'compete';
      readonly includeSelf?: boolean;
      /** [B, H, Nq, Nk] scores to rank instead of the oracle's own, e.g. the float32 ones of the code under test. */
      readonly rankedScores?: ArrayLike<number>;
    }
  | { readonly lists: Lists };

export interface VsaInputs {
  readonly batch: number;
  readonly heads: number;
  /** Hkv; `heads` unless given. */
  readonly kvHeads?: number;
  readonly headDim: number;
  readonly grid: OracleGrid;
  /** The keys' grid; the queries' unless given. */
  readonly keyGrid?: OracleGrid;
  /** [B, L, H, D] */
  readonly q: Float64Array;
  /** [B, Lk, Hkv, D] */
  readonly k: Float64Array;
  /** [B, Lk, Hkv, D] */
  readonly v: Float64Array;
  readonly choice: Choice;
  /** Means of tiles that take the place of those of q [B, Nq, H, D], k and v [B, Nk, Hkv, D]. */
  readonly pooled?: VsaForward['pooled'];
  /** Whether the coarse output is added, and through which gate [B, L, H, D]; 'skip' unless given. */
  readonly coarse?: 'skip' | 'add' | { readonly gate: Float64Array };
  /** Gate of the fine output [B, L, H, D]. */
  readonly fine?: { readonly gate: Float64Array };
  /** 1 / sqrt(D) unless given. */
  readonly scale?: number;
  /**
   * `EXACT` unless given. The coarse stage runs in float32 under any other precision. A same-precision reference must
   * be given the lists of the float64 one: two selections may differ in near ties.
   */
  readonly precision?: Precision;
}

export interface VsaForward {
  /** Means of q [B, Nq, H, D], k and v [B, Nk, Hkv, D]. */
  readonly pooled: { readonly q: Float64Array; readonly k: Float64Array; readonly v: Float64Array };
  /** [B, H, Nq, Nk] */
  readonly scores: Float64Array;
  readonly lists: Lists;
  /** Oc and its lse, computed also where it is not added. */
  readonly coarse: CoarseForward;
  /** Of [B, L, H, D] */
  readonly fine: Float64Array;
  /** Natural log-sum-exp of the fine stage [B, H, L]. */
  readonly lse: Float64Array;
  /** O [B, L, H, D] */
  readonly output: Float64Array;
}

/** Gradients of everything along the way. */
export interface VsaGradients {
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
  readonly coarseGate?: Float64Array;
  readonly fineGate?: Float64Array;
  /** Of the mix's inputs: dOf, dOc and the gates. */
  readonly combination: CombineGradients;
  /** Of q, k, v through the fine stage alone, not rounded to the tensors' format. */
  readonly fine: { readonly q: Float64Array; readonly k: Float64Array; readonly v: Float64Array };
  /** Of the pooled q, k, v; absent where the coarse output is not added. */
  readonly pooled?: { readonly q: Float64Array; readonly k: Float64Array; readonly v: Float64Array };
}

/** Everything that both directions derive from the inputs. */
interface Plan {
  readonly kvHeads: number;
  readonly keyGrid: OracleGrid;
  readonly queries: GridLayout;
  readonly keys: GridLayout;
  readonly scale: number;
  readonly precision: Precision;
  readonly coarsePrecision: Precision;
  readonly coarseShape: CoarseShape;
  readonly fineShape: AttentionShape;
}

function planOf(inputs: VsaInputs): Plan {
  const { batch, heads, kvHeads = heads, headDim, grid, keyGrid = grid, precision = EXACT } = inputs;
  requireHeads(heads, kvHeads);
  const queries = layoutOf(grid);
  const keys = layoutOf(keyGrid);
  requireLength('q', inputs.q, [batch, queries.length, heads, headDim]);
  requireLength('k', inputs.k, [batch, keys.length, kvHeads, headDim]);
  requireLength('v', inputs.v, [batch, keys.length, kvHeads, headDim]);
  return {
    kvHeads,
    keyGrid,
    queries,
    keys,
    scale: inputs.scale ?? 1 / Math.sqrt(headDim),
    precision,
    coarsePrecision: precision.accumulate === 'float32' ? FLOAT32 : EXACT,
    coarseShape: { batch, heads, kvHeads, headDim, queryTiles: queries.tiles, keyTiles: keys.tiles },
    fineShape: { batch, heads, kvHeads, headDim, queries: queries.length, keys: keys.length },
  };
}

function fineInputs(inputs: VsaInputs, lists: Lists, plan: Plan, precision: Precision): AttentionInputs {
  const { batch, heads, grid, q, k, v } = inputs;
  const mask = expandMask(lists, { batch, heads, grid, keyGrid: plan.keyGrid });
  return { q, k, v, mask, shape: plan.fineShape, scale: plan.scale, precision };
}

function combineInputs(inputs: VsaInputs, fine: Float64Array, coarse: Float64Array, plan: Plan): CombineInputs {
  const { batch, heads, headDim, grid, coarse: mode = 'skip' } = inputs;
  return {
    fine,
    ...(mode === 'skip' ? {} : { coarse }),
    ...(typeof mode === 'object' ? { coarseGate: mode.gate } : {}),
    ...(inputs.fine === undefined ? {} : { fineGate: inputs.fine.gate }),
    grid,
    shape: { batch, heads, headDim },
    precision: plan.precision,
  };
}

/** Runs the operator and returns every intermediate value. */
export function vsaForward(inputs: VsaInputs): VsaForward {
  const { batch, heads, headDim, grid, choice } = inputs;
  const plan = planOf(inputs);
  const { kvHeads, keyGrid, scale, precision, coarsePrecision, coarseShape } = plan;
  const pooled = inputs.pooled ?? {
    q: poolForward(inputs.q, grid, { batch, heads, headDim }, coarsePrecision),
    k: poolForward(inputs.k, keyGrid, { batch, heads: kvHeads, headDim }, coarsePrecision),
    v: poolForward(inputs.v, keyGrid, { batch, heads: kvHeads, headDim }, coarsePrecision),
  };
  const coarse = coarseForward(pooled.q, pooled.k, pooled.v, coarseShape, scale, coarsePrecision);
  const lists =
    'lists' in choice
      ? choice.lists
      : selectTiles(choice.rankedScores ?? coarse.scores, { batch, heads, grid, keyGrid, ...choice });
  const { output: fine, lse } = attentionForward(fineInputs(inputs, lists, plan, precision));
  const output = combineForward(combineInputs(inputs, fine, coarse.output, plan));
  return { pooled, scores: coarse.scores, lists, coarse, fine, lse, output };
}

/**
 * Gradients of sum(dOutput * output).
 *
 * @param inputs the inputs of `forward`
 * @param dOutput [B, L, H, D]
 */
export function vsaBackward(inputs: VsaInputs, forward: VsaForward, dOutput: Float64Array): VsaGradients {
  const { batch, heads, headDim, grid } = inputs;
  const plan = planOf(inputs);
  const { kvHeads, keyGrid, scale, precision, coarsePrecision, coarseShape } = plan;
  const combination = combineBackward(combineInputs(inputs, forward.fine, forward.coarse.output, plan), dOutput);

  // The fine gradients stay unrounded until the coarse ones are added: an implementation adds in its epilogue.
  const unrounded: Precision = { ...precision, outputs: precision.accumulate };
  const fineOutputs: AttentionOutputs = { output: forward.fine, lse: forward.lse };
  const fine = attentionBackward(fineInputs(inputs, forward.lists, plan, unrounded), fineOutputs, combination.fine);
  const total = { q: fine.q.slice(), k: fine.k.slice(), v: fine.v.slice() };

  let pooled: VsaGradients['pooled'];
  if (combination.coarse !== undefined) {
    const { q, k, v } = forward.pooled;
    pooled = coarseBackward(q, k, v, forward.coarse, combination.coarse, coarseShape, scale, coarsePrecision);
    if (inputs.pooled === undefined) {
      const kvShape = { batch, heads: kvHeads, headDim };
      addTo(total.q, poolBackward(pooled.q, grid, { batch, heads, headDim }, coarsePrecision));
      addTo(total.k, poolBackward(pooled.k, keyGrid, kvShape, coarsePrecision));
      addTo(total.v, poolBackward(pooled.v, keyGrid, kvShape, coarsePrecision));
    }
  }
  for (const gradient of Object.values(total)) roundArray(gradient, precision.outputs);
  return {
    ...total,
    ...(combination.coarseGate === undefined ? {} : { coarseGate: combination.coarseGate }),
    ...(combination.fineGate === undefined ? {} : { fineGate: combination.fineGate }),
    combination,
    fine,
    ...(pooled === undefined ? {} : { pooled }),
  };
}

function addTo(sum: Float64Array, term: Float64Array): void {
  for (let e = 0; e < sum.length; e++) sum[e]! += term[e]!;
}
