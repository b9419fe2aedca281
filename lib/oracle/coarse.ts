/**
 * The coarse stage: attention of pooled queries over all pooled keys, with the probabilities written out as a matrix.
 *
 * It works on pooled values, which are kept in float32 whatever the tensors' format; its same-precision reference is
 * `FLOAT32`.
 */
import { requireHeads, requireLength } from './checks.js';
import { EXACT, type Precision, axpyOf, dotOf, sumOf } from './precision.js';
import { roundArray, roundTo } from './rounding.js';

const { exp, log } = Math; // by name: see rounding.ts

/** Sizes of pooled attention: q [B, Nq, H, D], k and v [B, Nk, Hkv, D], scores [B, H, Nq, Nk]. */
export interface CoarseShape {
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly queryTiles: number;
  readonly keyTiles: number;
}

export interface CoarseForward {
  /** S [B, H, Nq, Nk], scale included. */
  readonly scores: Float64Array;
  /** A = softmax of S over the key tiles [B, H, Nq, Nk]. */
  readonly probabilities: Float64Array;
  /** Oc = A vc [B, Nq, H, D]. */
  readonly output: Float64Array;
  /** Natural log of the softmax's denominator [B, H, Nq]. */
  readonly lse: Float64Array;
}

/** S[b, h, i, j] = scale * dot(qc[b, i, h], kc[b, j, h's kv head]): [B, H, Nq, Nk]. */
export function tileScores(
  q: Float64Array,
  k: Float64Array,
  shape: CoarseShape,
  scale: number,
  precision: Precision = EXACT,
): Float64Array {
  const { batch, heads, kvHeads, headDim, queryTiles, keyTiles } = shape;
  requireHeads(heads, kvHeads);
  requireLength('q', q, [batch, queryTiles, heads, headDim]);
  requireLength('k', k, [batch, keyTiles, kvHeads, headDim]);
  const dot = dotOf(precision);
  const group = heads / kvHeads;
  const scores = new Float64Array(batch * heads * queryTiles * keyTiles);
  let at = 0;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const g = Math.floor(h / group);
      for (let i = 0; i < queryTiles; i++) {
        const qRow = ((b * queryTiles + i) * heads + h) * headDim;
        for (let j = 0; j < keyTiles; j++) {
          scores[at++] = scale * dot(q, qRow, k, ((b * keyTiles + j) * kvHeads + g) * headDim, headDim);
        }
      }
    }
  }
  roundArray(scores, precision.accumulate);
  return scores;
}

/**
 * Coarse attention over all key tiles. A NaN in a pooled key makes the whole output of the heads that read it NaN.
 *
 * @param q [B, Nq, H, D] pooled
 * @param k [B, Nk, Hkv, D] pooled
 * @param v [B, Nk, Hkv, D] pooled
 */
export function coarseForward(
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  shape: CoarseShape,
  scale: number,
  precision: Precision = EXACT,
): CoarseForward {
  const { batch, heads, kvHeads, headDim, queryTiles, keyTiles } = shape;
  requireLength('v', v, [batch, keyTiles, kvHeads, headDim]);
  const axpy = axpyOf(precision);
  const group = heads / kvHeads;
  const scores = tileScores(q, k, shape, scale, precision);
  const probabilities = new Float64Array(scores.length);
  const output = new Float64Array(batch * queryTiles * heads * headDim);
  const lse = new Float64Array(batch * heads * queryTiles);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const g = Math.floor(h / group);
      for (let i = 0; i < queryTiles; i++) {
        const row = (b * heads + h) * queryTiles + i;
        const A = probabilities.subarray(row * keyTiles, (row + 1) * keyTiles);
        A.set(scores.subarray(row * keyTiles, (row + 1) * keyTiles));
        lse[row] = softmaxInPlace(A, precision);
        const out = ((b * queryTiles + i) * heads + h) * headDim;
        for (let j = 0; j < keyTiles; j++) {
          axpy(A[j]!, v, ((b * keyTiles + j) * kvHeads + g) * headDim, output, out, headDim);
        }
      }
    }
  }
  return { scores, probabilities, output, lse };
}

/**
 * Replaces a row of scores by its softmax and returns its log-sum-exp. NaN makes the whole row NaN; a row of nothing
 * but -inf has no weight to give: zeros and -inf.
 */
function softmaxInPlace(row: Float64Array, precision: Precision): number {
  let max = -Infinity;
  for (const score of row) if (score > max) max = score;
  const origin = max === -Infinity ? 0 : max;
  for (let j = 0; j < row.length; j++) row[j]! -= origin;
  roundArray(row, precision.accumulate);
  for (let j = 0; j < row.length; j++) row[j] = exp(row[j]!);
  roundArray(row, precision.accumulate);
  const sum = sumOf(row, row.length, precision);
  if (sum === 0) return -Infinity;
  for (let j = 0; j < row.length; j++) row[j]! /= sum;
  roundArray(row, precision.accumulate);
  return roundTo(origin + log(sum), precision.accumulate);
}

/**
 * Gradients of coarse attention: dV = A^T dO, dA = dO V^T, dS = A * (dA - rowsum(A * dA)) * scale, dQ = dS K,
 * dK = dS^T Q, with dK and dV summed over the query heads of a kv head.
 *
 * @param dOutput [B, Nq, H, D]
 * @returns q [B, Nq, H, D], k and v [B, Nk, Hkv, D]
 */
export function coarseBackward(
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  forward: CoarseForward,
  dOutput: Float64Array,
  shape: CoarseShape,
  scale: number,
  precision: Precision = EXACT,
): { q: Float64Array; k: Float64Array; v: Float64Array } {
  const { batch, heads, kvHeads, headDim, queryTiles, keyTiles } = shape;
  requireLength('dOutput', dOutput, [batch, queryTiles, heads, headDim]);
  const dot = dotOf(precision);
  const axpy = axpyOf(precision);
  const group = heads / kvHeads;
  const dQ = new Float64Array(q.length);
  const dK = new Float64Array(k.length);
  const dV = new Float64Array(v.length);
  const dA = new Float64Array(keyTiles);
  const dS = new Float64Array(keyTiles);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const g = Math.floor(h / group);
      for (let i = 0; i < queryTiles; i++) {
        const A = ((b * heads + h) * queryTiles + i) * keyTiles; // offset of the row of probabilities
        const qRow = ((b * queryTiles + i) * heads + h) * headDim;
        for (let j = 0; j < keyTiles; j++) {
          const kRow = ((b * keyTiles + j) * kvHeads + g) * headDim;
          axpy(forward.probabilities[A + j]!, dOutput, qRow, dV, kRow, headDim);
          dA[j] = dot(dOutput, qRow, v, kRow, headDim);
        }
        const rowSum = dot(forward.probabilities, A, dA, 0, keyTiles);
        for (let j = 0; j < keyTiles; j++) dS[j] = forward.probabilities[A + j]! * (dA[j]! - rowSum) * scale;
        roundArray(dS, precision.accumulate);
        for (let j = 0; j < keyTiles; j++) {
          const kRow = ((b * keyTiles + j) * kvHeads + g) * headDim;
          axpy(dS[j]!, k, kRow, dQ, qRow, headDim);
          axpy(dS[j]!, q, qRow, dK, kRow, headDim);
        }
      }
    }
  }
  return { q: dQ, k: dK, v: dV };
}
