/** How far selected key tiles lie from their query tiles. */

import type { TileGrid } from './grid.js';

/** A tile's coordinates, in tiles. */
export function tilePlace(grid: TileGrid, tile: number): [t: number, y: number, x: number] {
  const [, Ny, Nx] = grid.tileCounts;
  return [Math.floor(tile / (Ny * Nx)), Math.floor(tile / Nx) % Ny, tile % Nx];
}

export interface SelectionOffsets {
  /** Of all pairs of tiles so far apart in time, the share that is selected; entry Nt - 1 is no distance. */
  time: Float64Array;
  /** The same in space, [2 Ny - 1, 2 Nx - 1]; the centre is no distance. */
  space: Float64Array;
}

/** @param selected Key tiles of a query tile under one head. */
export function selectionOffsets(grid: TileGrid, selected: (query: number) => Iterable<number>): SelectionOffsets {
  const [Nt, Ny, Nx] = grid.tileCounts;
  const wide = 2 * Nx - 1;
  const time = new Float64Array(2 * Nt - 1);
  const space = new Float64Array((2 * Ny - 1) * wide);
  for (let query = 0; query < grid.tileCount; query++) {
    const [t, y, x] = tilePlace(grid, query);
    for (const key of selected(query)) {
      const [kt, ky, kx] = tilePlace(grid, key);
      const dt = kt - t + Nt - 1;
      const at = (ky - y + Ny - 1) * wide + kx - x + Nx - 1;
      time[dt] = time[dt]! + 1;
      space[at] = space[at]! + 1;
    }
  }
  const pairs = (count: number, offset: number) => count - Math.abs(offset - (count - 1));
  return {
    time: time.map((count, dt) => count / (pairs(Nt, dt) * (Ny * Nx) ** 2)),
    space: space.map((count, at) => count / (pairs(Ny, Math.floor(at / wide)) * pairs(Nx, at % wide) * Nt * Nt)),
  };
}
