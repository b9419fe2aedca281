/**
 * Sampled rows of attention against float64.
 *
 * The queries of a sampled tile need the keys of its list: output, lse and dq are computed from the inputs alone. The
 * gradients of a sampled key need every query that attends to it, each of which would need its own list again: they
 * take lse and delta from what the forward saved. That is the operation's own, and judged by the sampled queries.
 */

import {
  attentionBackward,
  attentionForward,
  EXACT,
  type FloatFormat,
  type Precision,
  roundArray,
} from '../../oracle/index.js';

/** Values in float64, and as the operation itself has them. */
export interface Twice {
  readonly exact: Float64Array;
  readonly own: Float64Array;
}

/** Rows of one head. */
export interface HeadRows {
  /** `[queries, D]` */
  readonly q: Float64Array;
  /** `[keys, D]` */
  readonly k: Float64Array;
  readonly v: Float64Array;
  /** `[queries, D]`; absent if only the forward is wanted. */
  readonly dOutput?: Twice;
  readonly D: number;
  readonly scale: number;
}

/** Multiply-adds of the reference that one sample may take: tens of milliseconds. */
export const BUDGET = 12e6;

/** A few of the rows, evenly, first and last among them: as many as the budget allows for, at least 2. */
export function some(rows: Int32Array, cost: number): Int32Array {
  const count = Math.min(rows.length, Math.max(2, Math.floor(BUDGET / Math.max(1, cost))));
  if (count === rows.length) return rows;
  return Int32Array.from({ length: count }, (_, i) => rows[Math.round((i * (rows.length - 1)) / (count - 1))]!);
}

export interface QueryReference {
  readonly output: Twice;
  /** Natural, `[queries]`. */
  readonly lse: Float64Array;
  /** If dOutput was given; not yet rounded to the format. */
  readonly dq: Twice | undefined;
  /** Size of the terms of dq. */
  readonly terms: number;
}

/** Every query attends to every key that is given. The own output is rounded to the format, as it is kept. */
export function queryReference(rows: HeadRows, format: FloatFormat, own: Precision): QueryReference {
  const compute = (precision: Precision, dOutput: Float64Array | undefined) => {
    const inputs = inputsOf(rows, precision);
    const forward = attentionForward(inputs);
    if (precision !== EXACT) roundArray(forward.output, format);
    return { ...forward, dq: dOutput === undefined ? undefined : attentionBackward(inputs, forward, dOutput).q };
  };
  const exact = compute(EXACT, rows.dOutput?.exact);
  const rounded = compute({ ...own, outputs: 'float32' }, rows.dOutput?.own);
  return {
    output: { exact: exact.output, own: rounded.output },
    lse: exact.lse,
    dq: exact.dq === undefined || rounded.dq === undefined ? undefined : { exact: exact.dq, own: rounded.dq },
    terms: termsOf(rows),
  };
}

/** What the forward saved for those queries. */
export interface SavedRows {
  /** `[queries, D]`; [queries] */
  readonly output: Float64Array;
  readonly lse: Float64Array;
}

export interface KeyReference {
  readonly dk: Twice;
  readonly dv: Twice;
  /** Size of the terms of dk. */
  readonly terms: number;
}

/** The part that these queries have in the gradients of these keys. Not rounded to the format. */
export function keyReference(rows: HeadRows, saved: SavedRows, own: Precision): KeyReference {
  const compute = (precision: Precision, dOutput: Float64Array) =>
    attentionBackward(inputsOf(rows, precision), saved, dOutput);
  const exact = compute(EXACT, rows.dOutput!.exact);
  const rounded = compute({ ...own, outputs: 'float32' }, rows.dOutput!.own);
  return {
    dk: { exact: exact.k, own: rounded.k },
    dv: { exact: exact.v, own: rounded.v },
    terms: termsOf({ ...rows, k: rows.q }),
  };
}

function inputsOf({ q, k, v, D, scale }: HeadRows, precision: Precision) {
  const shape = { batch: 1, heads: 1, kvHeads: 1, headDim: D, queries: q.length / D, keys: k.length / D };
  return { q, k, v, mask: null, shape, scale, precision };
}

/** scale * |dP| * |k|, with |dP| at most |dO| |v|. */
function termsOf({ dOutput, k, v, D, scale }: HeadRows): number {
  if (dOutput === undefined) return 0;
  let key = 0;
  for (const value of k) key = Math.max(key, Math.abs(value));
  return scale * longest(dOutput.exact, D) * longest(v, D) * key;
}

function longest(values: Float64Array, D: number): number {
  let most = 0;
  for (let row = 0; row < values.length; row += D) {
    let squares = 0;
    for (let d = row; d < row + D; d++) squares += values[d]! ** 2;
    most = Math.max(most, squares);
  }
  return Math.sqrt(most);
}

/** Adds in place, each sum rounded to float32 in the own precision. */
export function add(to: Twice, more: Twice): void {
  for (let i = 0; i < to.exact.length; i++) {
    to.exact[i]! += more.exact[i]!;
    to.own[i] = Math.fround(to.own[i]! + more.own[i]!);
  }
}

/** A copy of the own values as a tensor of a format keeps them. */
export function kept(values: Twice, format: FloatFormat): Twice {
  const own = values.own.slice();
  roundArray(own, format);
  return { exact: values.exact, own };
}

/** Copies: of what is the same in both. */
export function same(values: Float64Array): Twice {
  return { exact: values, own: values };
}
