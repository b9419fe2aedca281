/** `coarseAttention` against softmax attention of the oracle, with the probabilities as a matrix. */

import { coarseAttention, tidy } from '../index.js';
import {
  attentionBackward,
  attentionForward,
  coarseBackward,
  coarseForward,
  type CoarseShape,
} from '../oracle/index.js';
import { CaseRows, type CheckRow } from './report.js';
import { type CaseContext, type Input, ownPrecision, randomTensor, valuesOf } from './values.js';

/** Pooled tensors are float32: there is no dtype to choose. */
export interface CoarseCase extends CoarseShape {
  readonly name: string;
  readonly std: number;
  /** Default 1 / sqrt(D). */
  readonly scale?: number;
}

type Inputs = Readonly<Record<'q' | 'k' | 'v' | 'dOutput', Input>>;

export async function checkCoarse(c: CoarseCase, context: CaseContext): Promise<CheckRow[]> {
  const { batch, heads, kvHeads, headDim, queryTiles, keyTiles } = c;
  const queryShape = [batch, queryTiles, heads, headDim];
  const keyShape = [batch, keyTiles, kvHeads, headDim];
  const scale = c.scale ?? 1 / Math.sqrt(headDim);
  const inputs: Inputs = {
    q: await randomTensor(context, queryShape, 'float32', c.std),
    k: await randomTensor(context, keyShape, 'float32', c.std),
    v: await randomTensor(context, keyShape, 'float32', c.std),
    dOutput: await randomTensor(context, queryShape),
  };
  const { output, saved, grads } = tidy(() => {
    const forward = coarseAttention.forward({
      ...{ q: inputs.q.tensor, k: inputs.k.tensor, v: inputs.v.tensor },
      ...(c.scale !== undefined && { scale: c.scale }),
    });
    return { ...forward, grads: coarseAttention.backward(forward.saved, { output: inputs.dOutput.tensor }) };
  });
  context.ownAll(output, saved, grads.q, grads.k, grads.v);

  const reference = exact(c, inputs, scale);
  const own = sameFormat(c, inputs, scale);
  const rows = new CaseRows('coarseAttention', c.name);
  const add = async (name: 'output' | 'dq' | 'dk' | 'dv', tensor: typeof output, magnitude = 0) =>
    rows.compare(name, {
      ...{ got: await valuesOf(tensor), reference: reference[name], samePrecision: own[name] },
      ...{ format: 'float32', shape: tensor.shape, magnitude },
    });
  // Of a single key tile the probability is 1, and dS is nothing but rounding of terms of this size.
  const terms = keyTiles > 1 ? 0 : Math.abs(scale) * headDim * c.std ** 2;
  await add('output', output);
  rows.compareLse('lse', { got: await valuesOf(saved.lse), reference: reference.lse, shape: saved.lse.shape });
  await add('dq', grads.q, terms);
  await add('dk', grads.k, terms);
  await add('dv', grads.v);
  return rows.rows;
}

function exact(c: CoarseCase, { q, k, v, dOutput }: Inputs, scale: number) {
  const forward = coarseForward(q.values, k.values, v.values, c, scale);
  const grads = coarseBackward(q.values, k.values, v.values, forward, dOutput.values, c, scale);
  return { output: forward.output, lse: forward.lse, dq: grads.q, dk: grads.k, dv: grads.v };
}

/**
 * The same-precision reference is the oracle's attention over tokens: like the operation, its backward makes the
 * probabilities again from lse, and an lse of hundreds in float32 costs them as many times 2^-24.
 */
function sameFormat(c: CoarseCase, { q, k, v, dOutput }: Inputs, scale: number) {
  const shape = { ...c, queries: c.queryTiles, keys: c.keyTiles };
  const inputs = {
    q: q.values,
    k: k.values,
    v: v.values,
    mask: null,
    shape,
    scale,
    precision: ownPrecision('float32'),
  };
  const forward = attentionForward(inputs);
  const grads = attentionBackward(inputs, forward, dOutput.values);
  return { output: forward.output, dq: grads.q, dk: grads.k, dv: grads.v };
}
