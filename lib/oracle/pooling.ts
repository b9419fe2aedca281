/** Mean pooling of tokens to tiles, and its gradient. */
import { requireLength } from './checks.js';
import { type OracleGrid, layoutOf } from './grid.js';
import { EXACT, type Precision, axpyOf } from './precision.js';
import { roundArray } from './rounding.js';

/** Sizes of an array [batch, rows, heads, headDim]. */
export interface RowsShape {
  readonly batch: number;
  readonly heads: number;
  readonly headDim: number;
}

/**
 * xc[b, i] = mean of the valid tokens of tile i.
 *
 * @param x [B, L, H, D], grid order
 * @returns [B, tiles, H, D]; sums and result in `precision.accumulate`, whatever the format of x
 */
export function poolForward(
  x: Float64Array,
  grid: OracleGrid,
  shape: RowsShape,
  precision: Precision = EXACT,
): Float64Array {
  const { length, tiles, tokensOfTile } = layoutOf(grid);
  const rowSize = shape.heads * shape.headDim;
  requireLength('x', x, [shape.batch, length, shape.heads, shape.headDim]);
  const axpy = axpyOf(precision);
  const pooled = new Float64Array(shape.batch * tiles * rowSize);
  for (let b = 0; b < shape.batch; b++) {
    for (let i = 0; i < tiles; i++) {
      const tokens = tokensOfTile[i]!;
      const start = (b * tiles + i) * rowSize;
      for (const n of tokens) axpy(1, x, (b * length + n) * rowSize, pooled, start, rowSize);
      for (let e = start; e < start + rowSize; e++) pooled[e]! /= tokens.length;
    }
  }
  roundArray(pooled, precision.accumulate);
  return pooled;
}

/**
 * Each valid token of tile i receives dxc[i] / valid[i].
 *
 * @param dPooled [B, tiles, H, D]
 * @returns [B, L, H, D], rounded to `precision.outputs`
 */
export function poolBackward(
  dPooled: Float64Array,
  grid: OracleGrid,
  shape: RowsShape,
  precision: Precision = EXACT,
): Float64Array {
  const { length, tiles, tileOfToken, tokensOfTile } = layoutOf(grid);
  const rowSize = shape.heads * shape.headDim;
  requireLength('dPooled', dPooled, [shape.batch, tiles, shape.heads, shape.headDim]);
  const dx = new Float64Array(shape.batch * length * rowSize);
  for (let b = 0; b < shape.batch; b++) {
    for (let n = 0; n < length; n++) {
      const tile = tileOfToken[n]!;
      const valid = tokensOfTile[tile]!.length;
      const from = (b * tiles + tile) * rowSize;
      const to = (b * length + n) * rowSize;
      for (let e = 0; e < rowSize; e++) dx[to + e] = dPooled[from + e]! / valid;
    }
  }
  roundArray(dx, precision.outputs);
  return dx;
}
