/** `gatedCombination` against the oracle's, forward and the gradient of every input. */

import { gatedCombination, type Order, type Tensor, TileGrid, tidy } from '../index.js';
import {
  combineBackward,
  combineForward,
  type CombineInputs,
  type FloatFormat,
  layoutOf,
  type OracleGrid,
  samePrecision,
} from '../oracle/index.js';
import { compareTokens } from './fine.js';
import { CaseRows, type CheckRow } from './report.js';
import {
  type CaseContext,
  randomTensor,
  randomTokens,
  readTokens,
  type TokenShape,
  twice,
  valuesOf,
} from './values.js';

export interface CombinationCase {
  readonly name: string;
  readonly dtype: FloatFormat;
  readonly order: Order;
  readonly batch: number;
  readonly heads: number;
  readonly headDim: number;
  readonly grid: OracleGrid;
  /** 'none': no coarse output; 'add': without a gate; 'gate': with one. */
  readonly coarse: 'none' | 'add' | 'gate';
  readonly fineGate: boolean;
  readonly padding?: number;
}

type Gradients = Partial<Record<string, Float64Array>>;

export async function checkCombination(c: CombinationCase, context: CaseContext): Promise<CheckRow[]> {
  const { batch, heads, headDim, grid, order, dtype, padding } = c;
  const shape: TokenShape = { batch, heads, headDim, grid, order };
  const pooledShape = [batch, layoutOf(grid).tiles, heads, headDim];
  const tokens = () => randomTokens(context, shape, dtype, 1, padding);
  const fine = await tokens();
  const coarse = c.coarse === 'none' ? undefined : await randomTensor(context, pooledShape);
  const coarseGate = c.coarse === 'gate' ? await tokens() : undefined;
  const fineGate = c.fineGate ? await tokens() : undefined;
  const dOutput = await tokens();
  const { output, saved, grads } = tidy(() => {
    const forward = gatedCombination.forward({
      ...{ fine: fine.tensor, grid: new TileGrid(grid), order },
      ...(coarse !== undefined && { coarse: coarse.tensor }),
      ...(coarseGate !== undefined && { coarseGate: coarseGate.tensor }),
      ...(fineGate !== undefined && { fineGate: fineGate.tensor }),
    });
    return { ...forward, grads: gatedCombination.backward(forward.saved, { output: dOutput.tensor }) };
  });
  context.ownAll(output, saved, grads.fine, grads.coarse, grads.coarseGate, grads.fineGate);

  const inputs: CombineInputs = {
    ...{ fine: fine.values, grid, shape },
    ...(coarse !== undefined && { coarse: coarse.values }),
    ...(coarseGate !== undefined && { coarseGate: coarseGate.values }),
    ...(fineGate !== undefined && { fineGate: fineGate.values }),
  };
  const { reference, own } = twice(samePrecision(dtype), (precision): Gradients => {
    const gradients = combineBackward({ ...inputs, precision }, dOutput.values);
    return { output: combineForward({ ...inputs, precision }), ...prefixed(gradients) };
  });
  const rows = new CaseRows('gatedCombination', c.name);
  const got: Partial<Record<string, Tensor>> = { output, ...prefixed(grads) };
  for (const name of new Set([...Object.keys(reference), ...Object.keys(got)])) {
    const [tensor, exact, same] = [got[name], reference[name], own[name]];
    if (tensor === undefined) rows.fail(name, 'got no gradient, wanted one');
    else if (exact === undefined || same === undefined) rows.fail(name, 'got a gradient of what was not given');
    else if (name === 'dcoarse') {
      const values = await valuesOf(tensor);
      rows.compare(name, { got: values, reference: exact, samePrecision: same, format: 'float32', shape: pooledShape });
    } else {
      compareTokens(rows, name, await readTokens(tensor, shape), { c, shape, reference: exact, own: same });
    }
  }
  return rows.rows;
}

/** `{ fine }` as `{ dfine }`. */
function prefixed<T>(gradients: { fine: T; coarse?: T; coarseGate?: T; fineGate?: T }): Record<string, T> {
  return Object.fromEntries(Object.entries(gradients).map(([name, gradient]) => [`d${name}`, gradient]));
}
