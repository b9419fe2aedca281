/** Mixing of the two stages: O = Gc * Oc + Gf * Of, and its gradients. */
import { requireLength } from './checks.js';
import { type OracleGrid, layoutOf } from './grid.js';
import { type RowsShape } from './pooling.js';
import { EXACT, type Precision, axpyOf } from './precision.js';
import { roundArray } from './rounding.js';

export interface CombineInputs {
  /** Of [B, L, H, D] */
  readonly fine: Float64Array;
  /** Oc [B, tiles, H, D]; absent: the coarse output is not added. */
  readonly coarse?: Float64Array;
  /** Gc [B, L, H, D]; absent: 1. Needs `coarse`. */
  readonly coarseGate?: Float64Array;
  /** Gf [B, L, H, D]; absent: 1. */
  readonly fineGate?: Float64Array;
  readonly grid: OracleGrid;
  readonly shape: RowsShape;
  readonly precision?: Precision;
}

export interface CombineGradients {
  readonly fine: Float64Array;
  /** Kept in `precision.accumulate`, like the coarse output itself. */
  readonly coarse?: Float64Array;
  readonly coarseGate?: Float64Array;
  readonly fineGate?: Float64Array;
}

function checkInputs(inputs: CombineInputs): void {
  const { fine, coarse, coarseGate, fineGate } = inputs;
  const { batch, heads, headDim } = inputs.shape;
  const { length, tiles } = layoutOf(inputs.grid);
  requireLength('fine', fine, [batch, length, heads, headDim]);
  if (coarse !== undefined) requireLength('coarse', coarse, [batch, tiles, heads, headDim]);
  if (coarseGate !== undefined) requireLength('coarseGate', coarseGate, [batch, length, heads, headDim]);
  if (fineGate !== undefined) requireLength('fineGate', fineGate, [batch, length, heads, headDim]);
  if (coarseGate !== undefined && coarse === undefined) throw new RangeError('coarseGate: wanted `coarse` with it');
}

/** The mixed output [B, L, H, D], rounded to `precision.outputs`. Every token receives its tile's coarse output. */
export function combineForward(inputs: CombineInputs): Float64Array {
  checkInputs(inputs);
  const { fine, coarse, coarseGate, fineGate, shape, precision = EXACT } = inputs;
  const { length, tiles, tileOfToken } = layoutOf(inputs.grid);
  const rowSize = shape.heads * shape.headDim;
  const output = new Float64Array(fine.length);
  for (let b = 0; b < shape.batch; b++) {
    for (let n = 0; n < length; n++) {
      const at = (b * length + n) * rowSize;
      const tileAt = (b * tiles + tileOfToken[n]!) * rowSize;
      for (let e = 0; e < rowSize; e++) {
        const gatedFine = (fineGate === undefined ? 1 : fineGate[at + e]!) * fine[at + e]!;
        if (coarse === undefined) output[at + e] = gatedFine;
        else output[at + e] = (coarseGate === undefined ? 1 : coarseGate[at + e]!) * coarse[tileAt + e]! + gatedFine;
      }
    }
  }
  roundArray(output, precision.outputs);
  return output;
}

/**
 * Gradients of the mix: dGc = dO * Oc, dGf = dO * Of, dOf = dO * Gf, and dOc[i], the sum of dO * Gc over the valid
 * tokens of tile i. A gradient is returned for every input that is there.
 *
 * @param dOutput [B, L, H, D]
 */
export function combineBackward(inputs: CombineInputs, dOutput: Float64Array): CombineGradients {
  checkInputs(inputs);
  const { fine, coarse, coarseGate, fineGate, grid, shape, precision = EXACT } = inputs;
  const { length } = layoutOf(grid);
  requireLength('dOutput', dOutput, [shape.batch, length, shape.heads, shape.headDim]);
  const gradients = {
    fine: product(dOutput, fineGate, precision),
    ...(fineGate === undefined ? {} : { fineGate: product(dOutput, fine, precision) }),
  };
  if (coarse === undefined) return gradients;
  return {
    ...gradients,
    coarse: sumOverTiles(dOutput, coarseGate, grid, shape, precision),
    ...(coarseGate === undefined
      ? {}
      : { coarseGate: product(dOutput, spreadOverTiles(coarse, grid, shape), precision) }),
  };
}

function product(dOutput: Float64Array, factor: Float64Array | undefined, precision: Precision): Float64Array {
  const result = factor === undefined ? dOutput.slice() : dOutput.map((value, e) => value * factor[e]!);
  roundArray(result, precision.outputs);
  return result;
}

/** [B, tiles, H, D] of x * gate summed over each tile's tokens. */
function sumOverTiles(
  x: Float64Array,
  gate: Float64Array | undefined,
  grid: OracleGrid,
  shape: RowsShape,
  precision: Precision,
): Float64Array {
  const { length, tiles, tokensOfTile } = layoutOf(grid);
  const rowSize = shape.heads * shape.headDim;
  const axpy = axpyOf(precision);
  const gated = gate === undefined ? x : x.map((value, e) => value * gate[e]!);
  const sums = new Float64Array(shape.batch * tiles * rowSize);
  for (let b = 0; b < shape.batch; b++) {
    for (let i = 0; i < tiles; i++) {
      for (const n of tokensOfTile[i]!) {
        axpy(1, gated, (b * length + n) * rowSize, sums, (b * tiles + i) * rowSize, rowSize);
      }
    }
  }
  return sums;
}

/** [B, tiles, H, D] repeated for every token: [B, L, H, D]. */
function spreadOverTiles(pooled: Float64Array, grid: OracleGrid, shape: RowsShape): Float64Array {
  const { length, tiles, tileOfToken } = layoutOf(grid);
  const rowSize = shape.heads * shape.headDim;
  const spread = new Float64Array(shape.batch * length * rowSize);
  for (let b = 0; b < shape.batch; b++) {
    for (let n = 0; n < length; n++) {
      const from = (b * tiles + tileOfToken[n]!) * rowSize;
      spread.set(pooled.subarray(from, from + rowSize), (b * length + n) * rowSize);
    }
  }
  return spread;
}
