import fc from 'fast-check';
import { TileGrid } from '../../lib/index.js';
import { layoutOf, type OracleGrid } from '../../lib/oracle/index.js';
import { grids, holds } from './support.js';

/** Compares everything a grid says with a token-by-token count. */
function expectLayout(options: OracleGrid): void {
  const grid = new TileGrid(options);
  const layout = layoutOf(options);
  expect(grid).toMatchObject({
    tokens: [...options.tokens],
    tile: [...options.tile],
    prefix: options.prefix ?? 0,
    tileCount: layout.videoTiles,
    prefixTileCount: layout.prefixTiles,
    totalTileCount: layout.tiles,
    length: layout.length,
    slots: layout.slots,
  });
  expect(grid.tileCounts).toEqual(options.tokens.map((tokens, dim) => Math.ceil(tokens / options.tile[dim]!)));
  expect([grid.rows('grid'), grid.rows('tiled')]).toEqual([layout.length, layout.slots]);
  const valid = Array.from({ length: layout.tiles }, (_, tile) => grid.valid(tile));
  expect(valid.join()).toBe(layout.tokensOfTile.map((tokens) => tokens.length).join());
  const slots = new Int32Array(layout.slots).fill(-1);
  layout.slotOfToken.forEach((slot, token) => (slots[slot] = token));
  expect(grid.permutation().join()).toBe(slots.join());
}

test.each(['16x32x32', '21x30x52', '1x1x1', '3x9x130'])('%s is laid out token by token', (text) => {
  const tokens = text.split('x').map(Number) as [number, number, number];
  expectLayout({ tokens, tile: [4, 4, 4] });
  expectLayout({ tokens, tile: [2, 4, 8], prefix: 70 });
});

test('any grid is laid out token by token', async () => {
  await holds(100, grids(1000), expectLayout);
});

test('a partial tile by hand: slots count in the full tile', () => {
  const grid = new TileGrid({ tokens: [1, 2, 3], prefix: 65 });
  expect([0, 1, 2].map((tile) => grid.valid(tile))).toEqual([64, 1, 6]);
  const slots = [...grid.permutation()];
  expect(slots.slice(0, 66)).toEqual([...Array.from({ length: 65 }, (_, i) => i), -1]);
  // Tokens 65, 66, 67 in the first line of four slots, 68, 69, 70 in the next.
  expect(slots.slice(128, 137)).toEqual([65, 66, 67, -1, 68, 69, 70, -1, -1]);
  expect(slots.slice(137)).toEqual(new Array(55).fill(-1));
});

test('texts', () => {
  expect(TileGrid.parse('21x30x52').tokens).toEqual([21, 30, 52]);
  expect(TileGrid.parse('21x30x52', { tile: '1x8x8', prefix: 5 })).toMatchObject({ tile: [1, 8, 8], prefix: 5 });
  expect(new TileGrid({ tokens: '2x3x4' }).equals(new TileGrid({ tokens: [2, 3, 4] }))).toBe(true);
  expect(String(TileGrid.parse('21x30x52'))).toBe('21x30x52');
  expect(String(TileGrid.parse('21x30x52', { tile: '1x8x8', prefix: 16 }))).toBe('16+21x30x52 in 1x8x8');
});

test('equals: tokens, tile and prefix', async () => {
  await holds(100, fc.tuple(grids(50), grids(50)), ([a, b]) => {
    const same = [0, 1, 2].every((dim) => a.tokens[dim] === b.tokens[dim] && a.tile[dim] === b.tile[dim]);
    expect(new TileGrid(a).equals(new TileGrid(b))).toBe(same && a.prefix === b.prefix);
    expect(new TileGrid(a).equals(new TileGrid({ ...a }))).toBe(true);
  });
  const grid = new TileGrid({ tokens: [4, 4, 4] });
  expect(grid.equals(new TileGrid({ tokens: [4, 4, 4], tile: [2, 4, 8] }))).toBe(false);
  expect(grid.equals(new TileGrid({ tokens: [4, 4, 4], prefix: 1 }))).toBe(false);
});

test('a sequence is cut into tiles of 64', () => {
  const grid = TileGrid.sequence(130);
  expect(grid).toMatchObject({ tile: [1, 1, 64], length: 130, totalTileCount: 3, prefix: 0 });
  expect([0, 1, 2].map((tile) => grid.valid(tile))).toEqual([64, 64, 2]);
  expect(grid.permutation()).toEqual(Int32Array.from({ length: 192 }, (_, slot) => (slot < 130 ? slot : -1)));
});

test('grids do not change', () => {
  const grid = new TileGrid({ tokens: [4, 4, 4] });
  expect(() => {
    (grid as { prefix: number }).prefix = 3;
  }).toThrow(TypeError);
  expect(() => {
    (grid.tokens as unknown as number[])[0] = 3;
  }).toThrow(TypeError);
});
