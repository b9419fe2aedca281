/** Selections for the fine stage, made on the host, and what they have in common from row to row. */

import type { TileGrid } from '../attention/grid.js';
import type { ListsShape, TileLists } from '../attention/lists.js';
import { show, VsaRangeError } from '../errors.js';
import { readNpy } from '../files/npy.js';
import { toTypedArray } from '../files/host-array.js';

/**
 * `random`: K tiles, every choice equally likely. `local`: for row i and column j of n the K best of
 * -8 |i - j| / n + 3 U(i, j) + 3 U(j), with uniform U, so that neighbouring rows share about half, and some tiles are
 * everybody's. `tight`: the same with 1 U(i, j), about 80 %. `hub`: as local, but every 20th tile, from one that is drawn
 * for each head, is in all lists. `dense`: all. `file`: captured ones. `selected`: by the operation itself, from its
 * inputs.
 */
export const LISTS_KINDS = ['random', 'local', 'tight', 'hub', 'dense', 'file', 'selected'] as const;
export type ListsKind = (typeof LISTS_KINDS)[number];

/** CSR on the host; row (b * H + h) * Nq + i. */
export interface HostLists {
  readonly offsets: Int32Array;
  readonly indices: Int32Array;
}

/** A small generator of uniform numbers in [0, 1) (mulberry32): lists are made by the million. */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Weights of the score of a tile: distance, a draw for each pair, a draw for each column, being one that all take. */
const WEIGHTS = { random: [0, 1, 0, 0], local: [-8, 3, 3, 0], tight: [-8, 1, 3, 0], hub: [-8, 3, 3, 100] } as const;
/** One tile in so many is a hub. */
const HUBS = 20;

/** K video tiles a row, beside all prefix tiles; prefix rows have every tile. */
export function makeLists(
  kind: keyof typeof WEIGHTS,
  { B, H, grid, K, seed }: { B: number; H: number; grid: TileGrid; K: number; seed: number },
): HostLists {
  const { tileCount: n, prefixTileCount: prefix, totalTileCount: all } = grid;
  const offsets = new Int32Array(B * H * all + 1);
  const indices = new Int32Array(B * H * (prefix * all + n * (prefix + K)));
  const [distance, pair, column, hub] = WEIGHTS[kind];
  const next = uniform(seed);
  const columns = new Float64Array(n);
  const scores = new Float64Array(n);
  const ranked = new Float64Array(n);
  let row = 0;
  let at = 0;
  for (let head = 0; head < B * H; head++) {
    if (column !== 0) for (let j = 0; j < n; j++) columns[j] = column * next();
    if (hub !== 0) for (let j = Math.floor(HUBS * next()); j < n; j += HUBS) columns[j]! += hub;
    for (let i = 0; i < prefix; i++) {
      for (let j = 0; j < all; j++) indices[at++] = j;
      offsets[++row] = at;
    }
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) scores[j] = (distance * Math.abs(i - j)) / n + pair * next() + columns[j]!;
      ranked.set(scores);
      const least = kthLargest(ranked, K);
      for (let j = 0; j < prefix; j++) indices[at++] = j;
      const full = at + K;
      // Draws of 2^-32 make ties next to impossible, but no list may be longer than K.
      for (let j = 0; j < n && at < full; j++) if (scores[j]! >= least) indices[at++] = prefix + j;
      offsets[++row] = at;
    }
  }
  return { offsets, indices };
}

/** Reorders the values: quickselect. */
function kthLargest(values: Float64Array, k: number): number {
  let [from, to] = [0, values.length - 1];
  const target = k - 1;
  while (from < to) {
    const pivot = values[(from + to) >> 1]!;
    let [i, j] = [from, to];
    while (i <= j) {
      while (values[i]! > pivot) i++;
      while (values[j]! < pivot) j--;
      if (i > j) break;
      const held = values[i]!;
      values[i++] = values[j]!;
      values[j--] = held;
    }
    if (target <= j) to = j;
    else if (target >= i) from = i;
    else break;
  }
  return values[target]!;
}

/**
 * Captured lists: a numpy file of key tiles `[..., N, K]`, integers, ascending, where a negative number ends a short
 * list; or a mask `[..., N, N]` of bool or uint8. The dims before are batch and heads, repeated where there are fewer.
 */
export async function readLists(path: string, shape: ListsShape): Promise<HostLists> {
  const file = await readNpy(path);
  const { batch, heads, queryTiles: rows, keyTiles } = shape;
  const fail = (wanted: string): never => {
    const got = `${file.dtype} ${show(file.shape)} in ${path}`;
    throw new VsaRangeError({ code: 'ERR_LISTS', argument: 'listsFile', got, wanted });
  };
  const [width, fileRows] = [file.shape.at(-1) ?? 0, file.shape.at(-2)];
  const lead = file.shape.slice(0, -2);
  if (fileRows !== rows || lead.length > 2) fail(`[..., ${rows}, K] or [..., ${rows}, ${keyTiles}]: one row a tile`);
  const [fileHeads, fileBatch] = [lead.at(-1) ?? 1, lead.at(-2) ?? 1];
  if (heads % fileHeads !== 0 || batch % fileBatch !== 0) fail(`heads and batch that divide ${heads} and ${batch}`);
  const isMask = file.dtype === 'bool' || file.dtype === 'uint8';
  if (!isMask && !/^u?int(8|16|32|64)$/.test(file.dtype)) fail('integers or a mask');
  if (isMask && width !== keyTiles) fail(`a mask of ${keyTiles} key tiles`);
  const values = toTypedArray(file) as ArrayLike<number | bigint>;

  const offsets = new Int32Array(batch * heads * rows + 1);
  const indices: number[] = [];
  for (let row = 0; row < batch * heads * rows; row++) {
    const [i, head] = [row % rows, Math.floor(row / rows)];
    const from = ((Math.floor(head / heads) % fileBatch) * fileHeads + ((head % heads) % fileHeads)) * rows + i;
    for (let c = 0; c < width; c++) {
      const value = Number(values[from * width + c]!);
      if (isMask ? value !== 0 : value >= 0) indices.push(isMask ? c : value);
    }
    offsets[row + 1] = indices.length;
  }
  return { offsets, indices: Int32Array.from(indices) };
}

/** The lists of an operation, on the host; undefined for full lists. */
export async function hostLists(lists: TileLists): Promise<HostLists | undefined> {
  if (lists.offsets === undefined || lists.indices === undefined) return undefined;
  const [offsets, indices] = await Promise.all([lists.offsets.data(), lists.indices.data()]);
  return { offsets: offsets as Int32Array, indices: indices as Int32Array };
}

/** What work lists stand for. */
export interface ListsSummary {
  /** Entries: pairs of a query tile and a key tile. */
  readonly pairs: number;
  /** Pairs of valid tokens. */
  readonly tokenPairs: number;
  /** Share of its entries that a list has in common with the next row's; over video rows of one head. */
  readonly overlap: number | null;
  /**
   * Key tiles that are in any list of a group of rows, all groups together. Groups are two or three neighbours, from a
   * head's first row on: what is copied where a group shares its copies.
   */
  readonly unions: { readonly two: number; readonly three: number };
}

export function summarize(lists: HostLists | undefined, grid: TileGrid, heads: number): ListsSummary {
  const N = grid.totalTileCount;
  if (lists === undefined) {
    const unions = { two: heads * Math.ceil(N / 2) * N, three: heads * Math.ceil(N / 3) * N };
    return { pairs: heads * N * N, tokenPairs: heads * grid.length ** 2, overlap: 1, unions };
  }
  const { offsets, indices } = lists;
  const valid = Int32Array.from({ length: N }, (_, tile) => grid.valid(tile));
  let tokenPairs = 0;
  let shared = 0;
  let compared = 0;
  for (let row = 0; row < heads * N; row++) {
    const [from, to] = [offsets[row]!, offsets[row + 1]!];
    let keys = 0;
    for (let at = from; at < to; at++) keys += valid[indices[at]!]!;
    tokenPairs += keys * valid[row % N]!;
    if (row % N < grid.prefixTileCount || row % N === N - 1) continue;
    shared += common(indices, from, to, offsets[row + 2]!);
    compared += Math.max(to - from, offsets[row + 2]! - to);
  }
  const unions = { two: unionsOf(lists, N, heads, 2), three: unionsOf(lists, N, heads, 3) };
  return { pairs: indices.length, tokenPairs, overlap: compared === 0 ? null : shared / compared, unions };
}

/** Sizes of the unions of `members` neighbouring lists each, added up; the last group of a head may have fewer. */
function unionsOf({ offsets, indices }: HostLists, N: number, heads: number, members: number): number {
  /** The group that wanted a key tile last. */
  const wantedBy = new Int32Array(N).fill(-1);
  let count = 0;
  let group = 0;
  for (let first = 0; first < heads * N; first += N) {
    for (let row = first; row < first + N; row += members, group++) {
      const end = offsets[Math.min(row + members, first + N)]!;
      for (let at = offsets[row]!; at < end; at++) {
        const tile = indices[at]!;
        if (wantedBy[tile] !== group) count++;
        wantedBy[tile] = group;
      }
    }
  }
  return count;
}

/** Entries that ascending [from, middle) and [middle, to) have in common. */
function common(indices: Int32Array, from: number, middle: number, to: number): number {
  let count = 0;
  for (let i = from, j = middle; i < middle && j < to;) {
    const difference = indices[i]! - indices[j]!;
    if (difference === 0) count++;
    if (difference <= 0) i++;
    if (difference >= 0) j++;
  }
  return count;
}
