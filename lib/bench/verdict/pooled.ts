/** Pooled tensors of one head in float64, and what is selected by them. */

import type { Tensor } from '../../tensor/tensor.js';
import type { BenchCase } from '../cases.js';
import type { Twice } from './attention.js';
import type { Findings } from './findings.js';
import { gather, type TileRows } from './rows.js';
import { placeText, type TileSample } from './tokens.js';

/** Sums of rows by tile, `[tiles, width]`; `counts`: divided by the number of rows. */
export function sumByTile(
  values: Twice,
  tileOf: Int32Array,
  tiles: number,
  width: number,
  counts?: readonly number[],
): Twice {
  const exact = new Float64Array(tiles * width);
  const own = new Float64Array(tiles * width);
  for (let row = 0; row < tileOf.length; row++) {
    const to = tileOf[row]! * width;
    for (let d = 0; d < width; d++) {
      exact[to + d]! += values.exact[row * width + d]!;
      own[to + d] = Math.fround(own[to + d]! + values.own[row * width + d]!);
    }
  }
  if (counts !== undefined) {
    for (let i = 0; i < exact.length; i++) {
      const count = counts[Math.floor(i / width)]!;
      exact[i]! /= count;
      own[i] = Math.fround(own[i]! / count);
    }
  }
  return { exact, own };
}

/** All tiles of one head pooled, `[tiles, D]`. */
export async function poolHead(x: Tensor, b: number, h: number, rows: TileRows, one: BenchCase): Promise<Twice> {
  const values = await gather(x, b, h, rows.all);
  const counts = Array.from({ length: one.grid.totalTileCount }, (_, tile) => one.grid.valid(tile));
  return sumByTile({ exact: values, own: values }, rows.tileOf, counts.length, one.D, counts);
}

/** Rows of an array [.., D]. */
export function rowOf(values: Twice, row: number, D: number): Twice {
  return { exact: values.exact.slice(row * D, (row + 1) * D), own: values.own.slice(row * D, (row + 1) * D) };
}

/** How far a float32 score may be off: of all its terms' size. */
const SCORE_ERROR = 4e-6;

/** One list, and what it was selected by: q `[D]` of the query tile, k `[tiles, D]`. */
export interface SampledList {
  readonly list: Int32Array;
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly sample: TileSample;
  readonly one: BenchCase;
}

/**
 * Whether a list is the top K by float64 scores of pooled rows: as many tiles as wanted, ascending, none of them below
 * one that was left out by more than float32 scores can be off.
 */
export function judgeList(sampled: SampledList, findings: Findings): void {
  const problem = formProblem(sampled) ?? rankProblem(sampled);
  if (problem !== undefined) findings.fail(`lists: ${problem} for ${placeText(sampled.sample)}`);
}

function formProblem({ list, sample, one: { grid, K } }: SampledList): string | undefined {
  const [N, prefix] = [grid.totalTileCount, grid.prefixTileCount];
  const wanted = sample.tile < prefix ? N : prefix + K!;
  if (list.length !== wanted) return `got ${list.length} tiles, wanted ${wanted}`;
  for (const [i, tile] of list.entries()) {
    if (tile < 0 || tile >= N) return `got tile ${tile} of ${N}`;
    if (i > 0 && tile <= list[i - 1]!) return `got tile ${tile} after ${list[i - 1]}`;
    if (i < prefix && tile !== i) return `prefix tile ${i} is missing`;
  }
  return undefined;
}

function rankProblem({ list, q, k, one: { grid, D } }: SampledList): string | undefined {
  const chosen = new Set(list);
  let [least, weakest] = [Infinity, -1];
  let [most, strongest] = [-Infinity, -1];
  let tolerance = 0;
  for (let j = grid.prefixTileCount; j < grid.totalTileCount; j++) {
    let score = 0;
    let size = 0;
    for (let d = 0; d < D; d++) {
      const term = q[d]! * k[j * D + d]!;
      score += term;
      size += Math.abs(term);
    }
    tolerance = Math.max(tolerance, SCORE_ERROR * size);
    if (chosen.has(j) && score < least) [least, weakest] = [score, j];
    if (!chosen.has(j) && score > most) [most, strongest] = [score, j];
  }
  return most > least + tolerance ? `tile ${weakest} was kept and not ${strongest}, whose score is larger` : undefined;
}
