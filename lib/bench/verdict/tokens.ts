/** Attention over tokens by lists: which rows a sample needs, and the verdict on its results. */

import type { TileGrid } from '../../attention/grid.js';
import { ownPrecision, roundsOperands } from '../../check/values.js';
import { type FloatFormat, type Precision, samePrecision } from '../../oracle/index.js';
import type { Tensor } from '../../tensor/tensor.js';
import type { BenchCase } from '../cases.js';
import type { HostLists } from '../lists.js';
import {
  add,
  type HeadRows,
  kept,
  keyReference,
  queryReference,
  type QueryReference,
  same,
  some,
  type Twice,
} from './attention.js';
import type { Findings } from './findings.js';
import { gather, gatherLse, TileRows } from './rows.js';

/** A tile of one head. */
export interface TileSample {
  readonly b: number;
  readonly h: number;
  readonly tile: number;
}

/** Tiles here and there: the first, the last, one in between, and a partial one if there is any. */
export function sampleTiles(grid: TileGrid, B: number, heads: number, most = 4): TileSample[] {
  const N = grid.totalTileCount;
  let partial = N - 1;
  while (partial > 0 && grid.valid(partial) === 64) partial--;
  const samples = [
    { b: 0, h: Math.floor(heads / 2), tile: partial },
    { b: B - 1, h: heads - 1, tile: N - 1 },
    { b: Math.floor(B / 2), h: Math.floor(heads / 3), tile: Math.floor(0.6 * N) },
    { b: 0, h: 0, tile: 0 },
  ];
  const different = new Map(samples.map((one) => [`${one.b} ${one.h} ${one.tile}`, one]));
  return [...different.values()].slice(0, most);
}

export function placeText({ b, h, tile }: TileSample, kind = 'query tile'): string {
  return `batch ${b}, head ${h}, ${kind} ${tile}`;
}

export interface TokenTensors {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

/** The key tiles of one list. */
export function listOf(lists: HostLists | undefined, one: BenchCase, { b, h, tile }: TileSample): Int32Array {
  const N = one.grid.totalTileCount;
  if (lists === undefined) return Int32Array.from({ length: N }, (_, j) => j);
  const row = (b * one.H + h) * N + tile;
  return lists.indices.subarray(lists.offsets[row], lists.offsets[row + 1]);
}

/** The query tiles whose lists hold a key tile. */
export function queryTilesOf(lists: HostLists | undefined, one: BenchCase, { b, h, tile }: TileSample): number[] {
  const tiles = Array.from({ length: one.grid.totalTileCount }, (_, i) => i);
  return tiles.filter((i) => listOf(lists, one, { b, h, tile: i }).includes(tile));
}

/** Values of the output's gradient, in float64 and as the fine stage gets them. */
export type GradientRows = (b: number, h: number, rows: Int32Array) => Promise<Twice>;

/** Attention of one case, sampled. References are computed once, whatever is judged by them. */
export class TokenReference {
  readonly rows: TileRows;
  readonly format: FloatFormat;
  readonly scale: number;
  readonly #group: number;
  readonly #own: Precision;

  constructor(
    readonly one: BenchCase,
    readonly tensors: TokenTensors,
    readonly lists: HostLists | undefined,
  ) {
    this.rows = new TileRows(one.grid, one.order!);
    this.format = one.dtype as FloatFormat;
    this.#own = roundsOperands(tensors.q.device, this.format)
      ? samePrecision(this.format, { scores: true })
      : ownPrecision(this.format);
    this.scale = 1 / Math.sqrt(one.D);
    this.#group = one.H / one.Hkv;
  }

  /** Some queries of a tile. */
  async queries(sample: TileSample, gradient: GradientRows | undefined): Promise<SampledQueries> {
    const { b, h, tile } = sample;
    const { D } = this.one;
    const keys = this.rows.ofAll(listOf(this.lists, this.one, sample));
    const queries = some(this.rows.of(tile), keys.length * D * (gradient === undefined ? 2 : 7));
    const { q, k, v } = this.tensors;
    const g = Math.floor(h / this.#group);
    const rows: HeadRows = {
      ...{ q: await gather(q, b, h, queries), k: await gather(k, b, g, keys), v: await gather(v, b, g, keys) },
      ...{ D, scale: this.scale, ...(gradient !== undefined && { dOutput: await gradient(b, h, queries) }) },
    };
    return { sample, rows: queries, reference: queryReference(rows, this.format, this.#own) };
  }

  /** Some keys of a tile; of all query heads that share them. */
  async keys(
    { b, h: g, tile }: TileSample,
    gradient: GradientRows,
    saved: { output: Tensor; lse: Tensor },
  ): Promise<SampledKeys> {
    const { one, tensors } = this;
    const { D } = one;
    const heads = Array.from({ length: this.#group }, (_, i) => g * this.#group + i);
    const attending = heads.map((h) => this.rows.ofAll(queryTilesOf(this.lists, one, { b, h, tile })));
    const cost = attending.reduce((sum, rows) => sum + rows.length, 0) * D * 5;
    const keys = some(this.rows.of(tile), cost);
    const [k, v] = [await gather(tensors.k, b, g, keys), await gather(tensors.v, b, g, keys)];
    const zeros = () => ({ exact: new Float64Array(k.length), own: new Float64Array(k.length) });
    const [dk, dv] = [zeros(), zeros()];
    let terms = 0;
    for (const [i, h] of heads.entries()) {
      const queries = attending[i]!;
      const dOutput = await gradient(b, h, queries);
      const rows = { q: await gather(tensors.q, b, h, queries), k, v, dOutput, D, scale: this.scale };
      const ofHead = {
        output: await gather(saved.output, b, h, queries),
        lse: await gatherLse(saved.lse, b, h, queries),
      };
      const part = keyReference(rows, ofHead, this.#own);
      add(dk, part.dk);
      add(dv, part.dv);
      terms = Math.max(terms, part.terms);
    }
    return { sample: { b, h: g, tile }, rows: keys, dk, dv, terms };
  }
}

export interface SampledQueries {
  readonly sample: TileSample;
  /** Rows of the tensors. */
  readonly rows: Int32Array;
  readonly reference: QueryReference;
}

export interface SampledKeys {
  readonly sample: TileSample;
  readonly rows: Int32Array;
  readonly dk: Twice;
  readonly dv: Twice;
  readonly terms: number;
}

/** Rows of one tensor, at all samples, against what they should be. */
export async function compareRows(
  findings: Findings,
  name: string,
  tensor: Tensor,
  samples: readonly { sample: TileSample; rows: Int32Array; want: Twice; terms?: number }[],
  format: FloatFormat,
  kind = 'query tile',
): Promise<void> {
  const got: Float64Array[] = [];
  for (const { sample, rows } of samples) got.push(await gather(tensor, sample.b, sample.h, rows));
  const rounded = samples.map(({ want }) => kept(want, format));
  findings.compare(name, {
    ...{ got, reference: rounded.map(({ exact }) => exact), own: rounded.map(({ own }) => own), format },
    width: tensor.shape[3]!,
    places: samples.map(({ sample }) => placeText(sample, kind)),
    terms: Math.max(...samples.map(({ terms = 0 }) => terms)),
  });
}

export async function compareLseRows(
  findings: Findings,
  name: string,
  tensor: Tensor,
  samples: readonly SampledQueries[],
): Promise<void> {
  const got: Float64Array[] = [];
  for (const { sample, rows } of samples) got.push(await gatherLse(tensor, sample.b, sample.h, rows));
  const places = samples.map(({ sample }) => placeText(sample));
  findings.compareLse(name, { got, reference: samples.map(({ reference }) => reference.lse), places });
}

/** Padding slots of sampled tiles: zero in every output, whatever the inputs hold there. */
export async function checkPadding(
  findings: Findings,
  name: string,
  tensor: Tensor,
  { one, rows }: TokenReference,
  samples: readonly { readonly sample: TileSample }[],
  kind = 'query tile',
): Promise<void> {
  if (one.order !== 'tiled') return;
  for (const { sample } of samples) {
    const { b, h, tile } = sample;
    const valid = new Set(rows.of(tile));
    const padding = Int32Array.from({ length: 64 }, (_, slot) => tile * 64 + slot).filter((row) => !valid.has(row));
    if (padding.length === 0) continue;
    const stray = (await gather(tensor, b, h, padding)).find((value) => value !== 0);
    if (stray !== undefined)
      findings.fail(`${name}: got ${stray} in the padding of ${placeText(sample, kind)}, wanted 0`);
  }
}

/** What the gradient of a plain attention is: that of its output, as it was given. */
export function plainGradient(dOutput: Tensor): GradientRows {
  return async (b, h, rows) => same(await gather(dOutput, b, h, rows));
}
