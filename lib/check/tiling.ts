/** `tile` and `untile`: rows are moved, so every value must be equal. */

import { type DType, tidy, tile, TileGrid, untile } from '../index.js';
import { fromTiled, layoutOf, type OracleGrid, toTiled } from '../oracle/index.js';
import { CaseRows, type CheckRow } from './report.js';
import { type CaseContext, randomTensor, tensorOf, valuesOf } from './values.js';

export interface TilingCase {
  readonly name: string;
  readonly dtype: DType;
  readonly batch: number;
  /** Dims behind the rows: [H, D], or none. */
  readonly row: readonly number[];
  readonly grid: OracleGrid;
}

/** Forward and backward of both: each one's gradient is the other's output. */
export async function checkTiling(op: 'tile' | 'untile', c: TilingCase, context: CaseContext): Promise<CheckRow[]> {
  const { batch, row, grid, dtype } = c;
  const { length, slots } = layoutOf(grid);
  const rowSize = row.reduce((size, dim) => size * dim, 1);
  const shape = { outer: batch, rowSize };
  const [gridShape, tiledShape] = [
    [batch, length, ...row],
    [batch, slots, ...row],
  ];

  const random = async () =>
    (await randomTensor(context, gridShape, dtype === 'int32' ? 'float32' : dtype, 100)).values;
  const whole = (values: Float64Array) => (dtype === 'int32' ? values.map(Math.trunc) : values);
  const inGridOrder = whole(await random());
  // Padding of whatever bits the dtype has: it is dropped on the way back.
  const tiled = toTiled(whole(await random()), grid, shape, dtype === 'int32' ? -1 : NaN);
  const gridTensor = context.own(tensorOf(inGridOrder, gridShape, dtype, context.device));
  const tiledTensor = context.own(tensorOf(tiled, tiledShape, dtype, context.device));
  const [x, gradient] = op === 'tile' ? [gridTensor, tiledTensor] : [tiledTensor, gridTensor];
  const results = tidy(() => {
    const on = new TileGrid(grid);
    const pair = op === 'tile' ? tile : untile;
    const { output, saved } = pair.forward({ x, grid: on });
    return { saved, output, dx: pair.backward(saved, { output: gradient }).x };
  });
  context.ownAll(results.saved, results.output, results.dx);

  const rows = new CaseRows(op, c.name);
  const wanted = { grid: fromTiled(tiled, grid, shape), tiled: toTiled(inGridOrder, grid, shape, 0) };
  const [output, dx] = op === 'tile' ? [wanted.tiled, wanted.grid] : [wanted.grid, wanted.tiled];
  rows.within('output', 0, { got: await valuesOf(results.output), want: output, shape: results.output.shape });
  rows.within('dx', 0, { got: await valuesOf(results.dx), want: dx, shape: results.dx.shape });
  return rows.rows;
}
