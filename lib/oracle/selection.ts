/** Exact top-k tile selection by sorting every row of scores, and the token mask that lists stand for. */
import { requireInteger, requireLength } from './checks.js';
import { type OracleGrid, layoutOf, sameGrid } from './grid.js';

/** B * H * Nq ascending lists of key tiles; row (b * H + h) * Nq + i. */
export type Lists = readonly (readonly number[])[];

export interface SelectionOptions {
  readonly batch: number;
  readonly heads: number;
  readonly grid: OracleGrid;
  /** The keys' grid; the queries' unless given. */
  readonly keyGrid?: OracleGrid;
  /** K, video tiles kept per query tile, 1 to the number of video key tiles. */
  readonly topK: number;
  /** 'exempt' (default): prefix key tiles are kept on top of K. 'compete': ranked, K + their number is kept. */
  readonly prefix?: 'exempt' | 'compete';
  /** Keeps every query tile's own tile, counted in K. Needs one grid for queries and keys. */
  readonly includeSelf?: boolean;
}

/**
 * The tiles that every query tile attends to.
 *
 * The K largest scores of a row, ties to the lowest tile, -0 equal to +0, NaN below -inf. Prefix query tiles get all
 * tiles.
 *
 * @param scores [B, H, Nq, Nk], prefix tiles included. Feed it the float32 scores that the code under test ranked:
 *   recomputed scores may order near ties otherwise.
 */
export function selectTiles(scores: ArrayLike<number>, options: SelectionOptions): number[][] {
  const { batch, heads, grid, keyGrid = grid, topK, prefix = 'exempt', includeSelf = false } = options;
  const queries = layoutOf(grid);
  const keys = layoutOf(keyGrid);
  requireLength('scores', scores, [batch, heads, queries.tiles, keys.tiles]);
  requireInteger('topK', topK, 1, keys.videoTiles);
  if (includeSelf && !sameGrid(grid, keyGrid)) {
    throw new RangeError('includeSelf: got different query and key grids, wanted one grid');
  }
  const all = Array.from({ length: keys.tiles }, (_, j) => j);
  const exempt = prefix === 'exempt' ? all.slice(0, keys.prefixTiles) : [];
  const ranked = all.slice(exempt.length);
  const kept = prefix === 'exempt' ? topK : topK + keys.prefixTiles;

  const lists: number[][] = [];
  for (let row = 0; row < batch * heads * queries.tiles; row++) {
    const i = row % queries.tiles;
    if (i < queries.prefixTiles) {
      lists.push([...all]);
      continue;
    }
    const score = (j: number) => scores[row * keys.tiles + j]!;
    const forced = includeSelf ? [i] : [];
    const best = ranked
      .filter((j) => !forced.includes(j))
      .sort((a, b) => compareRank(score(a), score(b)) || a - b)
      .slice(0, kept - forced.length);
    lists.push([...exempt, ...forced, ...best].sort((a, b) => a - b));
  }
  return lists;
}

/** Negative if a ranks before b, 0 if neither does. */
function compareRank(a: number, b: number): number {
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return a > b ? -1 : a < b ? 1 : 0;
}

/** Every query tile's list holds every key tile. */
export function fullLists(rows: number, keyTiles: number): number[][] {
  return Array.from({ length: rows }, () => Array.from({ length: keyTiles }, (_, j) => j));
}

export interface MaskOptions {
  readonly batch: number;
  readonly heads: number;
  readonly grid: OracleGrid;
  /** The keys' grid; the queries' unless given. */
  readonly keyGrid?: OracleGrid;
  /** Rows of the mask, as tokens of the query grid; all of them in order unless given. For checks on samples. */
  readonly queryTokens?: ArrayLike<number>;
}

/**
 * The token mask of lists: 1 where the key's tile is in the list of the query's tile.
 *
 * @returns [B, H, Lq, Lk], Lq the number of `queryTokens`
 */
export function expandMask(lists: Lists, options: MaskOptions): Uint8Array {
  const { batch, heads, grid, keyGrid = grid, queryTokens } = options;
  const queries = layoutOf(grid);
  const keys = layoutOf(keyGrid);
  if (lists.length !== batch * heads * queries.tiles) {
    throw new RangeError(`lists: got ${lists.length} rows, wanted B * H * Nq = ${batch * heads * queries.tiles}`);
  }
  const tokens = queryTokens ?? Array.from({ length: queries.length }, (_, n) => n);
  const mask = new Uint8Array(batch * heads * tokens.length * keys.length);
  const tileRow = new Uint8Array(keys.tiles);
  const tokenRows = new Map<number, Uint8Array>(); // by query tile, of one (b, h)
  for (let bh = 0; bh < batch * heads; bh++) {
    tokenRows.clear();
    for (let i = 0; i < tokens.length; i++) {
      requireInteger('queryTokens', tokens[i]!, 0, queries.length - 1);
      const tile = queries.tileOfToken[tokens[i]!]!;
      let tokenRow = tokenRows.get(tile);
      if (tokenRow === undefined) {
        tileRow.fill(0);
        for (const j of lists[bh * queries.tiles + tile]!) {
          requireInteger('lists', j, 0, keys.tiles - 1);
          tileRow[j] = 1;
        }
        tokenRow = new Uint8Array(keys.length);
        for (let n = 0; n < keys.length; n++) tokenRow[n] = tileRow[keys.tileOfToken[n]!]!;
        tokenRows.set(tile, tokenRow);
      }
      mask.set(tokenRow, (bh * tokens.length + i) * keys.length);
    }
  }
  return mask;
}
