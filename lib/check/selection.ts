/** `tileSelection`: its scores against the oracle's, its lists against a plain sort of the very scores it ranked. */

import { type PrefixMode, Tensor, TileGrid, tidy, tileSelection } from '../index.js';
import { EXACT, FLOAT32, layoutOf, type OracleGrid, selectTiles, tileScores } from '../oracle/index.js';
import { CaseRows, type CheckRow } from './report.js';
import { type CaseContext, type Input, randomTensor, valuesOf } from './values.js';

export interface SelectionCase {
  readonly name: string;
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly grid: OracleGrid;
  /** Default: `grid`. */
  readonly keyGrid?: OracleGrid;
  readonly topK: number;
  readonly prefix?: PrefixMode;
  readonly includeSelf?: boolean;
  /** Default 1 / sqrt(D). */
  readonly scale?: number;
  readonly std: number;
  /** Small whole numbers for q and k, whose scores tie in great numbers. */
  readonly ties?: boolean;
}

export async function checkSelection(c: SelectionCase, context: CaseContext): Promise<CheckRow[]> {
  const { batch, heads, kvHeads, headDim, grid, keyGrid = grid, topK, prefix, includeSelf } = c;
  const [queryTiles, keyTiles] = [layoutOf(grid).tiles, layoutOf(keyGrid).tiles];
  const draw = c.ties === true ? fewValues : randomTensor;
  const q = await draw(context, [batch, queryTiles, heads, headDim], 'float32', c.std);
  const k = await draw(context, [batch, keyTiles, kvHeads, headDim], 'float32', c.std);
  const rule = { topK, ...(prefix !== undefined && { prefix }), ...(includeSelf !== undefined && { includeSelf }) };
  const { lists, scores } = tidy(() =>
    tileSelection.forward({
      ...{ q: q.tensor, k: k.tensor, grid: new TileGrid(grid), keyGrid: new TileGrid(keyGrid), ...rule },
      ...{ returnScores: true, ...(c.scale !== undefined && { scale: c.scale }) },
    }),
  );
  context.own(lists);
  const ranked = await valuesOf(context.own(scores!));

  const rows = new CaseRows('tileSelection', c.name);
  const shape = { batch, heads, kvHeads, headDim, queryTiles, keyTiles };
  const scale = c.scale ?? 1 / Math.sqrt(headDim);
  rows.compare('scores', {
    got: ranked,
    reference: tileScores(q.values, k.values, shape, scale, EXACT),
    samePrecision: tileScores(q.values, k.values, shape, scale, FLOAT32),
    format: 'float32',
    shape: [batch, heads, queryTiles, keyTiles],
  });
  const wanted = selectTiles(ranked, { batch, heads, grid, keyGrid, ...rule });
  rows.lists('lists', await lists.toArrays(), wanted, [batch, heads, queryTiles]);
  return rows.rows;
}

/** Normally distributed values cut to whole numbers, of which most are 0. */
async function fewValues(context: CaseContext, shape: readonly number[]): Promise<Input> {
  const tensor = context.own(
    tidy(() => {
      const { device } = context;
      return Tensor.randn(shape, { device, std: 0.6, seed: context.nextSeed() }).cast('int32').cast('float32');
    }),
  );
  return { tensor, values: await valuesOf(tensor) };
}
