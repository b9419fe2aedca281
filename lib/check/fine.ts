/** `blockSparseAttention` and `denseAttention` against masked attention of the oracle, forward and every gradient. */

import { blockSparseAttention, denseAttention, type Order, TileGrid, TileLists, tidy } from '../index.js';
import {
  attentionBackward,
  attentionForward,
  type AttentionInputs,
  expandMask,
  type FloatFormat,
  layoutOf,
  type OracleGrid,
} from '../oracle/index.js';
import { type ListsSpec, makeLists } from './lists.js';
import { CaseRows, type CheckRow } from './report.js';
import {
  attentionReferences,
  type CaseContext,
  type Input,
  type Output,
  randomTokens,
  readTokens,
  type TokenShape,
} from './values.js';

/** What every attention over tokens has. */
export interface AttentionCase {
  readonly name: string;
  readonly dtype: FloatFormat;
  readonly order: Order;
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly grid: OracleGrid;
  /** Default: `grid`. */
  readonly keyGrid?: OracleGrid;
  /** Standard deviation of q, k and v: 16 gives scores of hundreds. */
  readonly std: number;
  /** Default 1 / sqrt(D). */
  readonly scale?: number;
  /** What the padding slots of inputs hold (tiled order). Default NaN. */
  readonly padding?: number;
}

export interface BlockSparseCase extends AttentionCase {
  readonly lists: ListsSpec;
}

/** The inputs of an attention, and the gradient of its output. */
export interface AttentionTensors {
  readonly q: Input;
  readonly k: Input;
  readonly v: Input;
  readonly dOutput: Input;
}

/** Shapes of query-side and key-side tensors. */
export function tokenShapes(c: AttentionCase): { query: TokenShape; key: TokenShape } {
  const { batch, heads, kvHeads, headDim, order, grid, keyGrid = grid } = c;
  return {
    query: { batch, heads, headDim, grid, order },
    key: { batch, heads: kvHeads, headDim, grid: keyGrid, order },
  };
}

/** q, k, v and the output's gradient. */
export async function attentionTensors(c: AttentionCase, context: CaseContext): Promise<AttentionTensors> {
  const { query, key } = tokenShapes(c);
  return {
    q: await randomTokens(context, query, c.dtype, c.std, c.padding),
    k: await randomTokens(context, key, c.dtype, c.std, c.padding),
    v: await randomTokens(context, key, c.dtype, c.std, c.padding),
    dOutput: await randomTokens(context, query, c.dtype, 1, c.padding),
  };
}

/** Every query tile attends to the tiles of its list. */
export async function checkBlockSparse(c: BlockSparseCase, context: CaseContext): Promise<CheckRow[]> {
  const { batch, heads, order, grid, keyGrid = grid } = c;
  const inputs = await attentionTensors(c, context);
  const dims = { batch, heads, queryTiles: layoutOf(grid).tiles, keyTiles: layoutOf(keyGrid).tiles };
  const lists = makeLists(c.lists, dims, context.integers());
  const { device } = context;
  const tileLists = context.own(
    c.lists === 'full' ? TileLists.full(dims, { device }) : TileLists.from(lists, dims, { device }),
  );
  const results = tidy(() => {
    const { output, saved } = blockSparseAttention.forward({
      ...{ q: inputs.q.tensor, k: inputs.k.tensor, v: inputs.v.tensor, backend: context.backend },
      ...{ lists: tileLists, grid: new TileGrid(grid), keyGrid: new TileGrid(keyGrid), order },
      ...(c.scale !== undefined && { scale: c.scale }),
    });
    return { output, saved, grads: blockSparseAttention.backward(saved, { output: inputs.dOutput.tensor }) };
  });
  const mask = expandMask(lists, { batch, heads, grid, keyGrid });
  return compareAttention('blockSparseAttention', c, context, inputs, mask, results);
}

/** Every query attends to every key. Grids are given where the order needs them. */
export async function checkDense(c: AttentionCase, context: CaseContext): Promise<CheckRow[]> {
  const { order, grid, keyGrid = grid } = c;
  const inputs = await attentionTensors(c, context);
  const results = tidy(() => {
    const { output, saved } = denseAttention.forward({
      ...{ q: inputs.q.tensor, k: inputs.k.tensor, v: inputs.v.tensor, order, backend: context.backend },
      ...(order === 'tiled' && { grid: new TileGrid(grid), keyGrid: new TileGrid(keyGrid) }),
      ...(c.scale !== undefined && { scale: c.scale }),
    });
    return { output, saved, grads: denseAttention.backward(saved, { output: inputs.dOutput.tensor }) };
  });
  return compareAttention('denseAttention', c, context, inputs, null, results);
}

type Results = ReturnType<typeof blockSparseAttention.forward> & {
  grads: ReturnType<typeof blockSparseAttention.backward>;
};

async function compareAttention(
  op: string,
  c: AttentionCase,
  context: CaseContext,
  inputs: AttentionTensors,
  mask: Uint8Array | null,
  { output, saved, grads }: Results,
): Promise<CheckRow[]> {
  context.ownAll(output, saved, grads.q, grads.k, grads.v);
  const { query, key } = tokenShapes(c);
  const got = {
    output: await readTokens(output, query),
    lse: await readTokens(saved.lse, query, 'lse'),
    dq: await readTokens(grads.q, query),
    dk: await readTokens(grads.k, key),
    dv: await readTokens(grads.v, key),
  };
  const oracleInputs: AttentionInputs = {
    ...{ q: inputs.q.values, k: inputs.k.values, v: inputs.v.values, mask },
    shape: { ...c, queries: layoutOf(query.grid).length, keys: layoutOf(key.grid).length },
    scale: scaleOf(c),
  };
  const references = attentionReferences(context.device, c.dtype, (precision) => {
    const forward = attentionForward({ ...oracleInputs, precision });
    const { q, k, v } = attentionBackward({ ...oracleInputs, precision }, forward, inputs.dOutput.values);
    return { output: forward.output, lse: forward.lse, dq: q, dk: k, dv: v };
  });

  const rows = new CaseRows(op, c.name);
  const terms = mask?.includes(1) === false ? { dq: 0, dk: 0 } : gradientTerms(c, inputs);
  const { reference } = references;
  const wanted = (name: 'output' | 'dq' | 'dk' | 'dv', shape: TokenShape, size = 0): Wanted => ({
    ...{ c, shape, reference: reference[name], own: references.own[name], terms: size },
    roundedScores: references.roundedScores?.[name],
  });
  compareTokens(rows, 'output', got.output, wanted('output', query));
  compareLse(rows, got.lse, query, reference.lse);
  compareTokens(rows, 'dq', got.dq, wanted('dq', query, terms.dq));
  compareTokens(rows, 'dk', got.dk, wanted('dk', key, terms.dk));
  compareTokens(rows, 'dv', got.dv, wanted('dv', key));
  return rows.rows;
}

export function scaleOf(c: AttentionCase): number {
  return c.scale ?? 1 / Math.sqrt(c.headDim);
}

interface Wanted {
  readonly c: { readonly dtype: FloatFormat };
  readonly shape: TokenShape;
  readonly reference: Float64Array;
  readonly own: Float64Array;
  readonly roundedScores?: Float64Array | undefined;
  /** Size of the terms that sum to the reference, for references that are 0 but for rounding. */
  readonly terms?: number;
}

/** A row for one tensor of tokens. */
export function compareTokens(rows: CaseRows, tensor: string, got: Output, wanted: Wanted): void {
  const { c, shape, reference, own, roundedScores, terms = 0 } = wanted;
  if (got.problem !== undefined) {
    rows.fail(tensor, got.problem);
    return;
  }
  rows.compare(tensor, {
    ...{ got: got.values, reference, samePrecision: own, format: c.dtype, roundedScores },
    shape: [shape.batch, layoutOf(shape.grid).length, shape.heads, shape.headDim],
    ...(isNoise(reference, terms) && { magnitude: terms }),
  });
}

/** A row for the log-sum-exp. */
export function compareLse(rows: CaseRows, got: Output, shape: TokenShape, reference: Float64Array): void {
  if (got.problem !== undefined) rows.fail('lse', got.problem);
  else
    rows.compareLse('lse', {
      got: got.values,
      reference,
      shape: [shape.batch, shape.heads, layoutOf(shape.grid).length],
    });
}

/**
 * How large the terms of dq and dk may be: scale * |dP| * |k| (or |q|), |dP| bounded by |dO| |v|. It matters where
 * every query has a single key: P is 1 and dS = P * (dP - delta) is 0 but for rounding.
 */
export function gradientTerms(c: AttentionCase, inputs: AttentionTensors): { dq: number; dk: number } {
  const dP = longestRow(inputs.dOutput.values, c.headDim) * longestRow(inputs.v.values, c.headDim);
  const dS = Math.abs(scaleOf(c)) * dP;
  return { dq: dS * largest(inputs.k.values), dk: dS * largest(inputs.q.values) };
}

/** Whether an array is 0 but for what float64 leaves when its terms cancel; not if there are no terms. */
function isNoise(reference: Float64Array, terms: number): boolean {
  return largest(reference) < 1e-12 * terms;
}

function largest(values: Float64Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** The largest Euclidean norm of the rows of [rows, length]. */
function longestRow(values: Float64Array, length: number): number {
  let most = 0;
  for (let row = 0; row < values.length; row += length) {
    let squares = 0;
    for (let d = row; d < row + length; d++) squares += values[d]! ** 2;
    most = Math.max(most, squares);
  }
  return Math.sqrt(most);
}
