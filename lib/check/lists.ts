/** Lists of key tiles for the checks of the fine stage. */

/** Which lists: see `makeLists`; or the very lists, row (b * H + h) * Nq + i. */
export type ListsSpec =
  | 'unequal'
  | 'single'
  | 'pairs'
  | 'shared'
  | 'disjoint'
  | 'empty'
  | 'everything'
  | 'full'
  | readonly (readonly number[])[];

export interface ListsDims {
  readonly batch: number;
  readonly heads: number;
  readonly queryTiles: number;
  readonly keyTiles: number;
}

/** @param integer whole numbers from 0 to below its argument */
export function makeLists(spec: ListsSpec, dims: ListsDims, integer: (n: number) => number): number[][] {
  const { batch, heads, queryTiles, keyTiles } = dims;
  if (typeof spec === 'object') return spec.map((list) => [...list]);
  const hub = integer(keyTiles);
  return Array.from({ length: batch * heads * queryTiles }, (_, row) => {
    switch (spec) {
      // Of every length there is, empty ones among them.
      case 'unequal':
        return choose((row + integer(2)) % (keyTiles + 1), keyTiles, integer);
      case 'single':
        return [integer(keyTiles)];
      case 'pairs':
        return choose(Math.min(2, keyTiles), keyTiles, integer);
      // One tile that all have, the rest differs.
      case 'shared':
        return [...new Set([hub, ...choose(integer(keyTiles), keyTiles, integer)])].sort((a, b) => a - b);
      // Even query tiles have the even key tiles, odd ones the odd.
      case 'disjoint':
        return everything(keyTiles).filter((tile) => tile % 2 === row % 2);
      case 'empty':
        return [];
      // 'full' is the same, without lists in memory.
      case 'everything':
      case 'full':
        return everything(keyTiles);
    }
  });
}

function everything(keyTiles: number): number[] {
  return Array.from({ length: keyTiles }, (_, tile) => tile);
}

/** `count` different tiles, ascending. */
function choose(count: number, keyTiles: number, integer: (n: number) => number): number[] {
  const tiles = everything(keyTiles);
  while (tiles.length > count) tiles.splice(integer(tiles.length), 1);
  return tiles;
}
