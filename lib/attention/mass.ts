/**
 * How much of dense attention a choice of key tiles holds. For a query token, the softmax weight that falls on some keys
 * is exp(lse over those keys - lse over all keys); a choice of tiles is judged by the mean of that over query tokens.
 */
import { blockSparseAttention } from './fine.js';
import type { TileGrid } from './grid.js';
import { TileLists } from './lists.js';
import type { Tensor } from '../tensor/tensor.js';

/** Tile of every token in grid order, [L]. */
export function tilesOfTokens(grid: TileGrid): Int32Array {
  const tiles = new Int32Array(grid.length);
  grid.permutation().forEach((token, slot) => {
    if (token >= 0) tiles[token] = Math.floor(slot / 64);
  });
  return tiles;
}

/** Valid tokens of every tile, [N]. */
export function validTokens(grid: TileGrid): Int32Array {
  return Int32Array.from({ length: grid.tileCount }, (_, tile) => grid.valid(tile));
}

export interface LsePair {
  /** lse over some keys and over all keys, float32 [H, L]. */
  some: Float32Array;
  all: Float32Array;
}

/** Mean mass of the query tokens of every tile, [H, N]: the share of dense attention on the keys behind `some`. */
export function heldByTile(grid: TileGrid, heads: number, lse: LsePair): Float32Array {
  const held = new Float32Array(heads * grid.tileCount);
  addHeld(tilesOfTokens(grid), validTokens(grid), heads, lse, held, 1, 0);
  return held;
}

/** held[(head * N + tile) * stride + offset] += mean over the tile's tokens of exp(some - all). */
function addHeld(
  tiles: Int32Array,
  valid: Int32Array,
  heads: number,
  { some, all }: LsePair,
  held: Float32Array,
  stride: number,
  offset: number,
): void {
  const length = tiles.length;
  const sum = new Float64Array(valid.length);
  for (let head = 0; head < heads; head++) {
    sum.fill(0);
    for (let token = 0, at = head * length; token < length; token++, at++) {
      const tile = tiles[token]!;
      sum[tile] = sum[tile]! + Math.exp(some[at]! - all[at]!);
    }
    for (let tile = 0; tile < valid.length; tile++) {
      held[(head * valid.length + tile) * stride + offset] = sum[tile]! / valid[tile]!;
    }
  }
}

export interface MassMapOptions {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  grid: TileGrid;
  /** lse of dense attention, float32 [H, L]. */
  dense: Float32Array;
  /** Called after every key tile. */
  onTile?: () => void;
}

/**
 * The mass that each query tile gives to each key tile under dense attention, float32 [H, N, N]; rows sum to 1. Found by
 * attending to one key tile at a time, N calls that together do the work of one dense attention.
 */
export async function massMap({ q, k, v, grid, dense, onTile }: MassMapOptions): Promise<Float32Array> {
  const heads = q.shape[2]!;
  const N = grid.tileCount;
  const tiles = tilesOfTokens(grid);
  const valid = validTokens(grid);
  const mass = new Float32Array(heads * N * N);
  const shape = { batch: 1, heads, queryTiles: N, keyTiles: N };
  const offsets = Int32Array.from({ length: heads * N + 1 }, (_, row) => row);
  for (let key = 0; key < N; key++) {
    const lists = TileLists.from({ offsets, indices: new Int32Array(heads * N).fill(key) }, shape, {
      device: q.device,
    });
    const { output, saved } = blockSparseAttention.forward({ q, k, v, grid, lists });
    try {
      const some = (await saved.lse.data()) as Float32Array;
      addHeld(tiles, valid, heads, { some, all: dense }, mass, N, key);
    } finally {
      output.dispose();
      saved.dispose();
      lists.dispose();
    }
    onTile?.();
  }
  return mass;
}

/** Mean over query tokens of numbers that are given per tile, for each head: [H, N] to [H]. */
export function headMeans(grid: TileGrid, heads: number, perTile: Float32Array): number[] {
  const valid = validTokens(grid);
  return Array.from({ length: heads }, (_, head) => {
    let sum = 0;
    for (let tile = 0; tile < valid.length; tile++) sum += perTile[head * valid.length + tile]! * valid[tile]!;
    return sum / grid.length;
  });
}

/** The mass of the `count` heaviest key tiles of every query tile, [H, N]: no choice of as many tiles holds more. */
export function heldByBest(mass: Float32Array, N: number, count: number): Float32Array {
  return Float32Array.from({ length: mass.length / N }, (_, row) => {
    const sorted = mass.slice(row * N, (row + 1) * N).sort();
    return sorted.subarray(N - count).reduce((sum, share) => sum + share, 0);
  });
}

/** Mass held on average, by number of tiles kept: entry K of each, for K = 0 to N. */
export interface MassCurve {
  /** Tiles in the order of the selection's scores. */
  ranked: number[];
  /** The heaviest tiles. */
  best: number[];
}

/**
 * Mass held against the number of tiles kept, over all heads and query tokens.
 * @param scores of the selection, float32 [H, N, N]
 */
export function massCurve(grid: TileGrid, mass: Float32Array, scores: Float32Array): MassCurve {
  const N = grid.tileCount;
  const rows = mass.length / N;
  const valid = validTokens(grid);
  const ranked = new Float64Array(N + 1);
  const best = new Float64Array(N + 1);
  for (let row = 0; row < rows; row++) {
    const weight = (valid[row % N]! * N) / (grid.length * rows);
    const shares = mass.subarray(row * N, (row + 1) * N);
    const rowScores = scores.subarray(row * N, (row + 1) * N);
    const order = Uint32Array.from(shares, (_, tile) => tile).sort((a, b) => rowScores[b]! - rowScores[a]! || a - b);
    const heaviest = Float32Array.from(shares).sort().reverse();
    let heldRanked = 0;
    let heldBest = 0;
    for (let kept = 1; kept <= N; kept++) {
      heldRanked += shares[order[kept - 1]!]!;
      heldBest += heaviest[kept - 1]!;
      ranked[kept] = ranked[kept]! + heldRanked * weight;
      best[kept] = best[kept]! + heldBest * weight;
    }
  }
  return { ranked: [...ranked], best: [...best] };
}
