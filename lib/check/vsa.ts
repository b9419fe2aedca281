/** `videoSparseAttention` against the oracle's whole operator: lists, output, lse, and the gradient of every input. */

import {
  type PrefixMode,
  TileGrid,
  TileLists,
  tidy,
  tilePooling,
  tileSelection,
  videoSparseAttention,
} from '../index.js';
import {
  FLOAT32,
  layoutOf,
  poolForward,
  selectTiles,
  tileScores,
  vsaBackward,
  vsaForward,
  type VsaInputs,
} from '../oracle/index.js';
import {
  type AttentionCase,
  attentionTensors,
  type AttentionTensors,
  compareLse,
  compareTokens,
  gradientTerms,
  scaleOf,
  tokenShapes,
} from './fine.js';
import { type ListsSpec, makeLists } from './lists.js';
import { CaseRows, type CheckRow } from './report.js';
import {
  attentionReferences,
  type CaseContext,
  type Input,
  randomTensor,
  randomTokens,
  readTokens,
  type TokenShape,
  twice,
  valuesOf,
} from './values.js';

export interface VsaCase extends AttentionCase {
  /** Which tiles: the best by score, or lists. */
  readonly choice:
    | { readonly topK: number; readonly prefix?: PrefixMode; readonly includeSelf?: boolean }
    | { readonly lists: ListsSpec };
  readonly coarse: 'skip' | 'add' | 'gate';
  readonly fineGate: boolean;
  /** Whether the means of tiles are given; they are then other ones than q, k and v have. */
  readonly pooled?: boolean;
}

interface Gates {
  readonly coarse: Input | undefined;
  readonly fine: Input | undefined;
}

type Pooled = Readonly<Record<'q' | 'k' | 'v', Input>>;

async function pooledTensors(c: VsaCase, context: CaseContext): Promise<Pooled | undefined> {
  if (c.pooled !== true) return undefined;
  const { query, key } = tokenShapes(c);
  const random = ({ batch, heads, headDim, grid }: TokenShape) =>
    randomTensor(context, [batch, layoutOf(grid).tiles, heads, headDim], 'float32', c.std);
  return { q: await random(query), k: await random(key), v: await random(key) };
}

export async function checkVsa(c: VsaCase, context: CaseContext): Promise<CheckRow[]> {
  const rows = new CaseRows('videoSparseAttention', c.name);
  const { query, key } = tokenShapes(c);
  const inputs = await attentionTensors(c, context);
  const gate = () => randomTokens(context, query, c.dtype, 1, c.padding);
  const gates: Gates = {
    coarse: c.coarse === 'gate' ? await gate() : undefined,
    fine: c.fineGate ? await gate() : undefined,
  };
  const pooled = await pooledTensors(c, context);
  const wantedLists = await listsFor(c, context, inputs, pooled, rows);
  const { output, saved, grads } = run(c, context, inputs, gates, pooled, wantedLists);
  context.ownAll(output, saved, grads.q, grads.k, grads.v, grads.coarseGate, grads.fineGate);
  context.ownAll(grads.pooledQ, grads.pooledK, grads.pooledV);
  const { tiles } = layoutOf(query.grid);
  rows.lists('lists', await saved.lists.toArrays(), wantedLists, [c.batch, c.heads, tiles]);

  const oracleInputs: VsaInputs = {
    ...{ batch: c.batch, heads: c.heads, kvHeads: c.kvHeads, headDim: c.headDim, grid: query.grid, keyGrid: key.grid },
    ...{ q: inputs.q.values, k: inputs.k.values, v: inputs.v.values, choice: { lists: wantedLists } },
    coarse: gates.coarse === undefined ? (c.coarse === 'add' ? 'add' : 'skip') : { gate: gates.coarse.values },
    ...(gates.fine !== undefined && { fine: { gate: gates.fine.values } }),
    ...(c.scale !== undefined && { scale: c.scale }),
    ...(pooled !== undefined && { pooled: { q: pooled.q.values, k: pooled.k.values, v: pooled.v.values } }),
  };
  const { reference, own, roundedScores } = attentionReferences(context.device, c.dtype, (precision) => {
    const forward = vsaForward({ ...oracleInputs, precision });
    const {
      q,
      k,
      v,
      coarseGate,
      fineGate,
      pooled: means,
    } = vsaBackward({ ...oracleInputs, precision }, forward, inputs.dOutput.values);
    return {
      output: forward.output,
      lse: forward.lse,
      dq: q,
      dk: k,
      dv: v,
      dcoarseGate: coarseGate,
      dfineGate: fineGate,
      ...(pooled !== undefined && { dqPooled: means?.q, dkPooled: means?.k, dvPooled: means?.v }),
    };
  });

  const attended = c.coarse !== 'skip' || wantedLists.some((list) => list.length > 0);
  const terms = attended ? gradientTerms(c, inputs) : { dq: 0, dk: 0 };
  const compare = async (name: Exclude<keyof typeof reference, 'lse'>, tensor: typeof output | undefined, size = 0) => {
    const [exact, same] = [reference[name], own[name]];
    if (exact === undefined || same === undefined) {
      if (tensor !== undefined) rows.fail(name, 'got a gradient of what was not given');
    } else if (tensor === undefined) {
      rows.fail(name, 'got no gradient, wanted one');
    } else {
      const shape = name === 'dk' || name === 'dv' ? key : query;
      compareTokens(rows, name, await readTokens(tensor, shape), {
        c,
        shape,
        reference: exact,
        own: same,
        roundedScores: roundedScores?.[name],
        terms: size,
      });
    }
  };
  await compare('output', output);
  compareLse(rows, await readTokens(saved.lse, query, 'lse'), query, reference.lse);
  await compare('dq', grads.q, terms.dq);
  await compare('dk', grads.k, terms.dk);
  await compare('dv', grads.v);
  await compare('dcoarseGate', grads.coarseGate);
  await compare('dfineGate', grads.fineGate);
  const ofTiles = async (name: 'dqPooled' | 'dkPooled' | 'dvPooled', tensor: typeof output | undefined) => {
    const [exact, same] = [reference[name], own[name]];
    if (exact === undefined || same === undefined) {
      if (tensor !== undefined) rows.fail(name, 'got a gradient of what reached no output');
    } else if (tensor === undefined) {
      rows.fail(name, 'got no gradient, wanted one');
    } else {
      const values = { got: await valuesOf(tensor), reference: exact, samePrecision: same };
      rows.compare(name, { ...values, format: 'float32', shape: tensor.shape });
    }
  };
  await ofTiles('dqPooled', grads.pooledQ);
  await ofTiles('dkPooled', grads.pooledK);
  await ofTiles('dvPooled', grads.pooledV);
  return rows.rows;
}

function run(
  c: VsaCase,
  context: CaseContext,
  inputs: AttentionTensors,
  gates: Gates,
  pooled: Pooled | undefined,
  lists: readonly number[][],
) {
  const { batch, heads, order, grid, keyGrid } = c;
  const { query, key } = tokenShapes(c);
  const dims = { batch, heads, queryTiles: layoutOf(query.grid).tiles, keyTiles: layoutOf(key.grid).tiles };
  return tidy(() => {
    const forward = videoSparseAttention.forward({
      ...{ q: inputs.q.tensor, k: inputs.k.tensor, v: inputs.v.tensor, grid: new TileGrid(grid), order },
      backend: context.backend,
      ...(keyGrid !== undefined && { keyGrid: new TileGrid(keyGrid) }),
      ...('lists' in c.choice ? { lists: TileLists.from(lists, dims, { device: context.device }) } : c.choice),
      ...(c.coarse === 'add' && { coarse: 'add' as const }),
      ...(gates.coarse !== undefined && { coarse: { gate: gates.coarse.tensor } }),
      ...(gates.fine !== undefined && { fine: { gate: gates.fine.tensor } }),
      ...(c.scale !== undefined && { scale: c.scale }),
      ...(pooled !== undefined && { pooled: { q: pooled.q.tensor, k: pooled.k.tensor, v: pooled.v.tensor } }),
    });
    return { ...forward, grads: videoSparseAttention.backward(forward.saved, { output: inputs.dOutput.tensor }) };
  });
}

/**
 * The lists of a case. Selected ones are those that a plain sort makes of the float32 scores that the selection
 * ranks, which are themselves compared with the oracle's.
 */
async function listsFor(
  c: VsaCase,
  context: CaseContext,
  { q, k }: AttentionTensors,
  given: Pooled | undefined,
  rows: CaseRows,
): Promise<number[][]> {
  const { query, key } = tokenShapes(c);
  const { batch, heads, order } = c;
  const [queryTiles, keyTiles] = [layoutOf(query.grid).tiles, layoutOf(key.grid).tiles];
  const { choice } = c;
  if ('lists' in choice) return makeLists(choice.lists, { batch, heads, queryTiles, keyTiles }, context.integers());
  const scores = tidy(() => {
    const [grid, keyGrid] = [new TileGrid(query.grid), new TileGrid(key.grid)];
    const pooled = (given !== undefined && { q: given.q.tensor, k: given.k.tensor }) || {
      q: tilePooling.forward({ x: q.tensor, grid, order }).output,
      k: tilePooling.forward({ x: k.tensor, grid: keyGrid, order }).output,
    };
    const options = { ...pooled, ...choice, grid, keyGrid, ...(c.scale !== undefined && { scale: c.scale }) };
    return tileSelection.forward({ ...options, returnScores: true }).scores!;
  });
  const ranked = await valuesOf(context.own(scores));
  const { reference, own } = twice(FLOAT32, (precision) => {
    const pooledQ = given?.q.values ?? poolForward(q.values, query.grid, query, precision);
    const pooledK = given?.k.values ?? poolForward(k.values, key.grid, key, precision);
    return tileScores(pooledQ, pooledK, { ...c, queryTiles, keyTiles }, scaleOf(c), precision);
  });
  rows.compare('scores', {
    ...{ got: ranked, reference, samePrecision: own },
    ...{ format: 'float32', shape: [batch, heads, queryTiles, keyTiles] },
  });
  return selectTiles(ranked, { batch, heads, grid: query.grid, keyGrid: key.grid, ...choice });
}
