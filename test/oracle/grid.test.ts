import * as fc from 'fast-check';

import { fromTiled, gatherRows, layoutOf, sameGrid, toTiled } from '../../lib/oracle/index.js';
import { same, tilesOf } from './helpers.js';

test('a 3 x 3 grid with 2 x 2 tiles', () => {
  const layout = layoutOf({ tokens: [1, 3, 3], tile: [1, 2, 2] });
  expect([...layout.tileOfToken]).toEqual([0, 0, 1, 0, 0, 1, 2, 2, 3]);
  expect([...layout.slotOfToken]).toEqual([0, 1, 4, 2, 3, 6, 8, 9, 12]);
  expect(layout.tokensOfTile).toEqual([[0, 1, 3, 4], [2, 5], [6, 7], [8]]);
  expect(layout).toMatchObject({ length: 9, videoTiles: 4, prefixTiles: 0, tiles: 4, volume: 4, slots: 16 });
});

test('time is the slowest dimension, x the fastest', () => {
  const layout = layoutOf({ tokens: [3, 1, 3], tile: [2, 1, 2] });
  expect([...layout.tileOfToken]).toEqual([0, 0, 1, 0, 0, 1, 2, 2, 3]);
  expect([...layout.slotOfToken]).toEqual([0, 1, 4, 2, 3, 6, 8, 9, 12]);
});

test('prefix tiles come first and never mix with the video', () => {
  const layout = layoutOf({ tokens: [1, 1, 3], tile: [1, 1, 2], prefix: 3 });
  expect([...layout.tileOfToken]).toEqual([0, 0, 1, 2, 2, 3]);
  expect([...layout.slotOfToken]).toEqual([0, 1, 2, 4, 5, 6]);
  expect(layout).toMatchObject({ length: 6, prefix: 3, videoTiles: 2, prefixTiles: 2, tiles: 4, slots: 8 });
});

test.each([
  [[16, 32, 32], 256],
  [[16, 28, 52], 364],
  [[20, 28, 52], 455],
  [[21, 30, 52], 624],
  [[20, 48, 80], 1200],
  [[21, 45, 80], 1440],
] as const)('tile count of %p: %d', (tokens, tiles) => {
  expect(layoutOf({ tokens, tile: [4, 4, 4] }).videoTiles).toBe(tiles);
});

const grids = fc.record({
  tokens: fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 })),
  tile: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
  prefix: fc.integer({ min: 0, max: 9 }),
});

test('any grid: every token in one tile and one slot of it; tiled order and back is the identity', () => {
  fc.assert(
    fc.property(grids, (grid) => {
      const layout = layoutOf(grid);
      expect(layout.tokensOfTile).toEqual(tilesOf(grid).map((tile) => tile.tokens));
      expect(new Set(layout.slotOfToken).size).toBe(layout.length);
      expect(layout.slotOfToken.map((slot) => Math.floor(slot / layout.volume))).toEqual(layout.tileOfToken);
      const shape = { outer: 2, rowSize: 3 };
      const array = Float64Array.from({ length: 2 * layout.length * 3 }, (_, i) => i);
      const tiled = toTiled(array, grid, shape, NaN);
      expect(tiled.length).toBe(2 * layout.slots * 3);
      expect(tiled.filter((x) => Number.isNaN(x)).length).toBe(2 * (layout.slots - layout.length) * 3);
      expect(same(fromTiled(tiled, grid, shape), array)).toBe(true);
    }),
    { numRuns: 50 },
  );
});

test('rows lie where the slots say', () => {
  const grid = { tokens: [1, 1, 3], tile: [1, 1, 2], prefix: 1 } as const;
  const tiled = toTiled(Float64Array.from([1, 2, 3, 4, 5, 6, 7, 8]), grid, { outer: 1, rowSize: 2 }, -1);
  expect([...tiled]).toEqual([1, 2, -1, -1, 3, 4, 5, 6, 7, 8, -1, -1]);
  expect([...gatherRows(tiled, 6, [4, 0], { outer: 1, rowSize: 2 })]).toEqual([7, 8, 1, 2]);
  expect([...gatherRows(Float64Array.from([1, 2, 3, 4]), 2, [1], { outer: 2, rowSize: 1 })]).toEqual([2, 4]);
});

test('refuses nonsense', () => {
  const shape = { outer: 1, rowSize: 1 };
  expect(() => layoutOf({ tokens: [0, 1, 1], tile: [1, 1, 1] })).toThrow('tokens: got 0');
  expect(() => layoutOf({ tokens: [1, 1, 1], tile: [1, 1.5, 1] })).toThrow('tile: got 1.5');
  expect(() => layoutOf({ tokens: [1, 1, 1], tile: [1, 1, 1], prefix: -1 })).toThrow('prefix: got -1');
  expect(() => toTiled(new Float64Array(3), { tokens: [1, 2, 2], tile: [1, 2, 2] }, shape, 0)).toThrow('got 3');
  expect(() => fromTiled(new Float64Array(3), { tokens: [1, 2, 2], tile: [1, 2, 2] }, shape)).toThrow('got 3');
  expect(() => gatherRows(new Float64Array(3), 3, [3], shape)).toThrow('picked: got 3');
});

test('same grids', () => {
  const grid = { tokens: [1, 2, 3], tile: [1, 2, 2] } as const;
  expect(sameGrid(grid, { ...grid, prefix: 0 })).toBe(true);
  expect(sameGrid(grid, { ...grid, prefix: 1 })).toBe(false);
  expect(sameGrid(grid, { ...grid, tile: [1, 2, 1] })).toBe(false);
});
