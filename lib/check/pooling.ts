/** `tilePooling` against means over the tokens of every tile. */

import { type Order, TileGrid, tidy, tilePooling } from '../index.js';
import {
  EXACT,
  type FloatFormat,
  FLOAT32,
  layoutOf,
  type OracleGrid,
  poolBackward,
  poolForward,
  samePrecision,
} from '../oracle/index.js';
import { compareTokens } from './fine.js';
import { CaseRows, type CheckRow } from './report.js';
import { type CaseContext, randomTensor, randomTokens, readTokens, type TokenShape, valuesOf } from './values.js';

export interface PoolingCase {
  readonly name: string;
  readonly dtype: FloatFormat;
  readonly order: Order;
  readonly batch: number;
  readonly heads: number;
  readonly headDim: number;
  readonly grid: OracleGrid;
  readonly std: number;
  readonly padding?: number;
}

export async function checkPooling(c: PoolingCase, context: CaseContext): Promise<CheckRow[]> {
  const { batch, heads, headDim, grid, order, dtype } = c;
  const shape: TokenShape = { batch, heads, headDim, grid, order };
  const pooledShape = [batch, layoutOf(grid).tiles, heads, headDim];
  const x = await randomTokens(context, shape, dtype, c.std, c.padding);
  const dOutput = await randomTensor(context, pooledShape);
  const { output, dx } = tidy(() => {
    const forward = tilePooling.forward({ x: x.tensor, grid: new TileGrid(grid), order });
    const grads = tilePooling.backward(forward.saved, { output: dOutput.tensor });
    context.own(forward.saved);
    return { output: context.own(forward.output), dx: context.own(grads.x) };
  });

  const rows = new CaseRows('tilePooling', c.name);
  rows.compare('output', {
    got: await valuesOf(output),
    reference: poolForward(x.values, grid, shape, EXACT),
    samePrecision: poolForward(x.values, grid, shape, FLOAT32),
    format: 'float32',
    shape: pooledShape,
  });
  compareTokens(rows, 'dx', await readTokens(dx, shape), {
    ...{ c, shape },
    reference: poolBackward(dOutput.values, grid, shape, EXACT),
    own: poolBackward(dOutput.values, grid, shape, samePrecision(dtype)),
  });
  return rows.rows;
}
