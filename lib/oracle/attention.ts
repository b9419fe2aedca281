/**
 * Masked dense attention and its gradients: every query against every key, one row at a time, with an explicit mask
 * of tokens. The fine stage is this with the mask of the selected tiles; dense attention is this without a mask.
 *
 * Unlike the code it judges it knows nothing of tiles.
 */
import { requireHeads, requireLength } from './checks.js';
import { EXACT, type Precision, sumOf } from './precision.js';
import { roundArray, roundTo } from './rounding.js';
import { type RowProducts, rowProductsOf } from './rows.js';

const { exp, log } = Math; // by name: see rounding.ts

/** Sizes of token attention: q [B, Lq, H, D], k and v [B, Lk, Hkv, D]. */
export interface AttentionShape {
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly queries: number;
  readonly keys: number;
}

export interface AttentionInputs {
  /** [B, Lq, H, D] */
  readonly q: Float64Array;
  /** [B, Lk, Hkv, D] */
  readonly k: Float64Array;
  /** [B, Lk, Hkv, D] */
  readonly v: Float64Array;
  /** [B, H, Lq, Lk], non-zero where the query attends to the key; null: everywhere. */
  readonly mask: Uint8Array | null;
  readonly shape: AttentionShape;
  readonly scale: number;
  readonly precision?: Precision;
}

export interface AttentionOutputs {
  /** [B, Lq, H, D], rounded to `precision.outputs` */
  readonly output: Float64Array;
  /** Natural log-sum-exp [B, H, Lq]; -inf for a query without keys. */
  readonly lse: Float64Array;
}

/** One head: its matrices as contiguous rows of D, its part of the mask. */
interface Head {
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
  readonly mask: Uint8Array | null;
  readonly queries: number;
  readonly keys: number;
  readonly headDim: number;
  readonly scale: number;
  readonly precision: Precision;
  readonly products: RowProducts;
}

/**
 * softmax(scale * q k^T) v over the keys that the mask allows. Values of masked keys are never read. A query without
 * keys, or whose scores are all -inf, gives 0 and lse -inf; NaN stays NaN.
 */
export function attentionForward(inputs: AttentionInputs): AttentionOutputs {
  const { batch, heads, headDim, queries } = inputs.shape;
  checkInputs(inputs);
  const output = new Float64Array(inputs.q.length);
  const lse = new Float64Array(batch * heads * queries);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const head = sliceHead(inputs, b, h);
      const headOutput = new Float64Array(queries * headDim);
      forwardHead(head, headOutput, lse.subarray((b * heads + h) * queries, (b * heads + h + 1) * queries));
      putHead(headOutput, output, b, h, queries, heads, headDim);
    }
  }
  roundArray(output, (inputs.precision ?? EXACT).outputs);
  return { output, lse };
}

/**
 * Gradients of masked attention: P = exp(S - lse), delta = rowsum(dO * O), dV = P^T dO, dS = P * (dO V^T - delta),
 * dQ = scale * dS K, dK = scale * dS^T Q, with dK and dV summed over the query heads of a kv head.
 *
 * @param forward the outputs of `attentionForward` on the same inputs and precision
 * @param dOutput [B, Lq, H, D]; a query whose row is 0 adds nothing, so gradients can be checked on samples of queries
 * @returns q [B, Lq, H, D], k and v [B, Lk, Hkv, D], rounded to `precision.outputs`
 */
export function attentionBackward(
  inputs: AttentionInputs,
  forward: AttentionOutputs,
  dOutput: Float64Array,
): { q: Float64Array; k: Float64Array; v: Float64Array } {
  const { batch, heads, kvHeads, headDim, queries, keys } = inputs.shape;
  checkInputs(inputs);
  requireLength('dOutput', dOutput, [batch, queries, heads, headDim]);
  requireLength('forward.output', forward.output, [batch, queries, heads, headDim]);
  requireLength('forward.lse', forward.lse, [batch, heads, queries]);
  const dq = new Float64Array(inputs.q.length);
  const dk = new Float64Array(inputs.k.length);
  const dv = new Float64Array(inputs.v.length);
  const group = heads / kvHeads;
  for (let b = 0; b < batch; b++) {
    for (let g = 0; g < kvHeads; g++) {
      const dK = new Float64Array(keys * headDim);
      const dV = new Float64Array(keys * headDim);
      for (let h = g * group; h < (g + 1) * group; h++) {
        const head = sliceHead(inputs, b, h);
        const O = takeHead(forward.output, b, h, queries, heads, headDim);
        const dO = takeHead(dOutput, b, h, queries, heads, headDim);
        const lse = forward.lse.subarray((b * heads + h) * queries, (b * heads + h + 1) * queries);
        const dQ = new Float64Array(queries * headDim);
        backwardHead(head, O, lse, dO, dQ, dK, dV);
        putHead(dQ, dq, b, h, queries, heads, headDim);
      }
      putHead(dK, dk, b, g, keys, kvHeads, headDim);
      putHead(dV, dv, b, g, keys, kvHeads, headDim);
    }
  }
  for (let i = 0; i < dq.length; i++) dq[i]! *= inputs.scale;
  for (let i = 0; i < dk.length; i++) dk[i]! *= inputs.scale;
  for (const gradient of [dq, dk, dv]) roundArray(gradient, (inputs.precision ?? EXACT).outputs);
  return { q: dq, k: dk, v: dv };
}

function forwardHead(head: Head, output: Float64Array, lse: Float64Array): void {
  const { queries, keys, headDim, v, precision, products } = head;
  const allowed = new Int32Array(keys);
  const row = new Float64Array(keys);
  for (let i = 0; i < queries; i++) {
    const count = allowedKeys(head, i, allowed);
    scoreRow(head, i, allowed, count, row);
    let max = -Infinity;
    for (let c = 0; c < count; c++) if (row[c]! > max) max = row[c]!;
    const origin = max === -Infinity ? 0 : max;
    expRow(row, count, origin, precision);
    const sum = sumOf(row, count, precision); // of the unrounded probabilities
    lse[i] = roundTo(origin + log(sum), precision.accumulate);
    if (sum === 0) continue;
    roundArray(row, precision.operands, 0, count);
    const out = i * headDim;
    products.weightedSum(row, v, allowed, count, headDim, output, out);
    for (let d = out; d < out + headDim; d++) output[d]! /= sum;
  }
}

function backwardHead(
  head: Head,
  O: Float64Array,
  lse: Float64Array,
  dO: Float64Array,
  dQ: Float64Array,
  dK: Float64Array,
  dV: Float64Array,
): void {
  const { queries, keys, headDim, q, k, v, precision, products } = head;
  const allowed = new Int32Array(keys);
  const P = new Float64Array(keys);
  const dP = new Float64Array(keys);
  const dS = new Float64Array(keys);
  for (let i = 0; i < queries; i++) {
    const at = i * headDim;
    const count = allowedKeys(head, i, allowed);
    const delta = rowDelta(dO, O, at, headDim, precision);
    scoreRow(head, i, allowed, count, P);
    expRow(P, count, lse[i] === -Infinity ? 0 : lse[i]!, precision);

    products.dots(dO, at, v, allowed, count, headDim, dP);
    roundArray(dP, precision.scores, 0, count);
    for (let c = 0; c < count; c++) dS[c] = P[c]! * (dP[c]! - delta); // of the unrounded P
    roundArray(dS, precision.operands, 0, count);
    roundArray(P, precision.operands, 0, count);
    products.addOuter(P, dO, at, dV, allowed, count, headDim);
    products.weightedSum(dS, k, allowed, count, headDim, dQ, at);
    products.addOuter(dS, q, at, dK, allowed, count, headDim);
  }
}

/**
 * rowsum(dO * O), summed from the last element to the first. dP goes from the first to the last: implementations sum the
 * two in different orders, and where a query has a single key dP - delta is what that difference leaves.
 */
function rowDelta(dO: Float64Array, O: Float64Array, at: number, n: number, precision: Precision): number {
  const round = precision.accumulate === 'float32' ? Math.fround : (x: number) => x;
  let sum = 0;
  for (let d = at + n - 1; d >= at; d--) sum = round(sum + dO[d]! * O[d]!);
  return sum;
}

/** Fills `allowed` with the keys that query i attends to and returns their number. */
function allowedKeys(head: Head, i: number, allowed: Int32Array): number {
  const { mask, keys } = head;
  let count = 0;
  for (let j = 0; j < keys; j++) if (mask === null || mask[i * keys + j] !== 0) allowed[count++] = j;
  return count;
}

/** Scores of query i against the allowed keys, scale included. */
function scoreRow(head: Head, i: number, allowed: Int32Array, count: number, row: Float64Array): void {
  const { q, k, headDim, scale, precision, products } = head;
  products.dots(q, i * headDim, k, allowed, count, headDim, row);
  for (let c = 0; c < count; c++) row[c]! *= scale;
  roundArray(row, precision.scores, 0, count);
}

/** row = exp(row - origin) */
function expRow(row: Float64Array, count: number, origin: number, precision: Precision): void {
  for (let c = 0; c < count; c++) row[c]! -= origin;
  roundArray(row, precision.accumulate, 0, count);
  for (let c = 0; c < count; c++) row[c] = exp(row[c]!);
  roundArray(row, precision.accumulate, 0, count);
}

function checkInputs(inputs: AttentionInputs): void {
  const { batch, heads, kvHeads, headDim, queries, keys } = inputs.shape;
  requireHeads(heads, kvHeads);
  requireLength('q', inputs.q, [batch, queries, heads, headDim]);
  requireLength('k', inputs.k, [batch, keys, kvHeads, headDim]);
  requireLength('v', inputs.v, [batch, keys, kvHeads, headDim]);
  if (inputs.mask !== null) requireLength('mask', inputs.mask, [batch, heads, queries, keys]);
}

function sliceHead(inputs: AttentionInputs, b: number, h: number): Head {
  const { heads, kvHeads, headDim, queries, keys } = inputs.shape;
  const g = Math.floor(h / (heads / kvHeads));
  const precision = inputs.precision ?? EXACT;
  const bh = b * heads + h;
  return {
    q: takeHead(inputs.q, b, h, queries, heads, headDim),
    k: takeHead(inputs.k, b, g, keys, kvHeads, headDim),
    v: takeHead(inputs.v, b, g, keys, kvHeads, headDim),
    mask: inputs.mask?.subarray(bh * queries * keys, (bh + 1) * queries * keys) ?? null,
    queries,
    keys,
    headDim,
    scale: inputs.scale,
    precision,
    products: rowProductsOf(precision),
  };
}

/** [B, rows, H, D] at (b, h): a copy [rows, D]. */
function takeHead(x: Float64Array, b: number, h: number, rows: number, heads: number, headDim: number): Float64Array {
  const head = new Float64Array(rows * headDim);
  for (let n = 0; n < rows; n++) {
    const from = ((b * rows + n) * heads + h) * headDim;
    head.set(x.subarray(from, from + headDim), n * headDim);
  }
  return head;
}

/** Writes [rows, D] to (b, h) of [B, rows, H, D]. */
function putHead(
  head: Float64Array,
  x: Float64Array,
  b: number,
  h: number,
  rows: number,
  heads: number,
  headDim: number,
): void {
  for (let n = 0; n < rows; n++) {
    x.set(head.subarray(n * headDim, (n + 1) * headDim), ((b * rows + n) * heads + h) * headDim);
  }
}
