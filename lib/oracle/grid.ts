/**
 * Token grids cut into tiles (Video Sparse Attention, arXiv 2505.13389, section 2), computed token by token.
 *
 * A sequence in grid order is `prefix` tokens that are not video, then the video tokens in row-major (t, y, x) order.
 * The prefix is cut into 1-D tiles of its own, numbered before the video tiles. The last tile along a dimension may be
 * partial; slots count in the full tile, so the tokens of a partial tile need not lie in contiguous slots.
 */
import { requireInteger, requireLength } from './checks.js';

/** What cuts a sequence into tiles. Any object with these fields will do. */
export interface OracleGrid {
  /** Video tokens along (t, y, x). */
  readonly tokens: readonly [number, number, number];
  /** Tile extents along (t, y, x), of any volume; prefix tiles hold as many tokens as a video tile has slots. */
  readonly tile: readonly [number, number, number];
  /** Tokens before the video; 0 unless given. */
  readonly prefix?: number;
}

/** A grid spelled out. L = length, N = videoTiles. */
export interface GridLayout {
  /** Rows in grid order: prefix + T * Y * X. */
  readonly length: number;
  readonly prefix: number;
  readonly videoTiles: number;
  readonly prefixTiles: number;
  /** prefixTiles + videoTiles. */
  readonly tiles: number;
  /** Slots of one tile. */
  readonly volume: number;
  /** Rows in tiled order: tiles * volume. */
  readonly slots: number;
  /** [L] the tile of every token. */
  readonly tileOfToken: Int32Array;
  /** [L] the row in tiled order of every token. */
  readonly slotOfToken: Int32Array;
  /** The tokens of every tile, in slot order; its length is the tile's `valid` count. */
  readonly tokensOfTile: readonly (readonly number[])[];
}

/** Spells out which token lies where. Throws RangeError for extents that are not positive integers. */
export function layoutOf(grid: OracleGrid): GridLayout {
  const [T, Y, X] = grid.tokens;
  const [ct, cy, cx] = grid.tile;
  const prefix = grid.prefix ?? 0;
  for (const extent of grid.tokens) requireInteger('tokens', extent, 1);
  for (const extent of grid.tile) requireInteger('tile', extent, 1);
  requireInteger('prefix', prefix, 0);

  const volume = ct * cy * cx;
  const [Nt, Ny, Nx] = [Math.ceil(T / ct), Math.ceil(Y / cy), Math.ceil(X / cx)];
  const videoTiles = Nt * Ny * Nx;
  const prefixTiles = Math.ceil(prefix / volume);
  const tiles = prefixTiles + videoTiles;
  const length = prefix + T * Y * X;
  const tileOfToken = new Int32Array(length);
  const slotOfToken = new Int32Array(length);
  for (let n = 0; n < prefix; n++) {
    tileOfToken[n] = Math.floor(n / volume);
    slotOfToken[n] = n;
  }
  for (let t = 0; t < T; t++) {
    for (let y = 0; y < Y; y++) {
      for (let x = 0; x < X; x++) {
        const n = prefix + (t * Y + y) * X + x;
        const tile = prefixTiles + (Math.floor(t / ct) * Ny + Math.floor(y / cy)) * Nx + Math.floor(x / cx);
        tileOfToken[n] = tile;
        slotOfToken[n] = tile * volume + ((t % ct) * cy + (y % cy)) * cx + (x % cx);
      }
    }
  }
  const tokensOfTile: number[][] = Array.from({ length: tiles }, () => []);
  for (let n = 0; n < length; n++) tokensOfTile[tileOfToken[n]!]!.push(n);
  for (const tokens of tokensOfTile) tokens.sort((a, b) => slotOfToken[a]! - slotOfToken[b]!);
  return {
    length,
    prefix,
    videoTiles,
    prefixTiles,
    tiles,
    volume,
    slots: tiles * volume,
    tileOfToken,
    slotOfToken,
    tokensOfTile,
  };
}

/** Whether two grids cut the same sequence into the same tiles. */
export function sameGrid(a: OracleGrid, b: OracleGrid): boolean {
  const numbers = (grid: OracleGrid) => [...grid.tokens, ...grid.tile, grid.prefix ?? 0].join();
  return numbers(a) === numbers(b);
}

/** Outer size and row size of an array [outer, rows, rowSize]: (B, H * D) for q, k, v; (B * H, 1) for lse. */
export interface RowShape {
  readonly outer: number;
  readonly rowSize: number;
}

/** Grid order [outer, L, rowSize] to tiled order [outer, slots, rowSize], `fill` in the padding slots. */
export function toTiled(array: Float64Array, grid: OracleGrid, shape: RowShape, fill: number): Float64Array {
  const { length, slots, slotOfToken } = layoutOf(grid);
  const { outer, rowSize } = shape;
  requireLength('array', array, [outer, length, rowSize]);
  const tiled = new Float64Array(outer * slots * rowSize).fill(fill);
  for (let o = 0; o < outer; o++) {
    for (let n = 0; n < length; n++) {
      const from = (o * length + n) * rowSize;
      tiled.set(array.subarray(from, from + rowSize), (o * slots + slotOfToken[n]!) * rowSize);
    }
  }
  return tiled;
}

/** Tiled order [outer, slots, rowSize] to grid order [outer, L, rowSize]; the padding slots are dropped. */
export function fromTiled(array: Float64Array, grid: OracleGrid, shape: RowShape): Float64Array {
  const { length, slots, slotOfToken } = layoutOf(grid);
  const { outer, rowSize } = shape;
  requireLength('array', array, [outer, slots, rowSize]);
  const rows = new Float64Array(outer * length * rowSize);
  for (let o = 0; o < outer; o++) {
    for (let n = 0; n < length; n++) {
      const from = (o * slots + slotOfToken[n]!) * rowSize;
      rows.set(array.subarray(from, from + rowSize), (o * length + n) * rowSize);
    }
  }
  return rows;
}

/** The given rows of [outer, rows, rowSize], in that order: [outer, picked.length, rowSize]. */
export function gatherRows(
  array: Float64Array,
  rows: number,
  picked: ArrayLike<number>,
  shape: RowShape,
): Float64Array {
  const { outer, rowSize } = shape;
  requireLength('array', array, [outer, rows, rowSize]);
  const gathered = new Float64Array(outer * picked.length * rowSize);
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < picked.length; i++) {
      requireInteger('picked', picked[i]!, 0, rows - 1);
      const from = (o * rows + picked[i]!) * rowSize;
      gathered.set(array.subarray(from, from + rowSize), (o * picked.length + i) * rowSize);
    }
  }
  return gathered;
}
