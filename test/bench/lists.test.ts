import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TileGrid } from '../../lib/attention/grid.js';
import { type HostLists, makeLists, readLists, summarize } from '../../lib/bench/lists.js';
import { fromTypedArray } from '../../lib/files/host-array.js';
import { writeNpy } from '../../lib/files/npy.js';

const rowsOf = ({ offsets, indices }: HostLists) =>
  Array.from({ length: offsets.length - 1 }, (_, row) => [...indices.subarray(offsets[row], offsets[row + 1])]);

describe('lists that are made', () => {
  const grid = new TileGrid({ tokens: '24x32x52' });
  const shape = { B: 1, H: 2, grid, K: 62, seed: 1 };
  const overlapOf = (kind: 'random' | 'local' | 'tight') => summarize(makeLists(kind, shape), grid, 2).overlap!;

  test('neighbouring rows share what the kinds promise', () => {
    expect(overlapOf('random')).toBeCloseTo(62 / 624, 1);
    expect(Math.abs(overlapOf('local') - 0.5)).toBeLessThan(0.08);
    expect(Math.abs(overlapOf('tight') - 0.8)).toBeLessThan(0.05);
  });

  test('the scores of local lists, one by one', () => {
    const small = new TileGrid({ tokens: '8x12x16' }); // 24 tiles
    const n = small.tileCount;
    const ours = rowsOf(makeLists('local', { B: 1, H: 1, grid: small, K: 5, seed: 9 }));
    // The same draws in the same order: columns first, then row by row.
    const next = mulberry(9);
    const columns = Array.from({ length: n }, () => 3 * next());
    for (let i = 0; i < n; i++) {
      const scores = columns.map((column, j) => ({ j, score: (-8 * Math.abs(i - j)) / n + 3 * next() + column }));
      const best = scores.sort((a, b) => b.score - a.score).slice(0, 5);
      expect(ours[i]).toEqual(best.map(({ j }) => j).sort((a, b) => a - b));
    }
  });

  test('hubs: one tile in twenty is in every list of a head', () => {
    const lists = rowsOf(makeLists('hub', shape));
    for (const head of [lists.slice(0, 624), lists.slice(624)]) {
      const everywhere = head[0]!.filter((tile) => head.every((row) => row.includes(tile)));
      expect(everywhere.length).toBeGreaterThanOrEqual(31);
      expect(everywhere.length).toBeLessThan(36);
    }
  });

  test.each(['random', 'local', 'tight', 'hub'] as const)(
    '%s: K ascending tiles a row, the same for a seed',
    (kind) => {
      const small = new TileGrid({ tokens: '5x9x10' });
      for (const K of [1, 2, small.tileCount]) {
        const lists = makeLists(kind, { B: 2, H: 3, grid: small, K, seed: 5 });
        const rows = rowsOf(lists);
        expect(rows).toHaveLength(6 * small.tileCount);
        for (const row of rows) {
          expect(row).toHaveLength(K);
          expect(row).toEqual([...new Set(row)].sort((a, b) => a - b));
          expect(row.at(-1)).toBeLessThan(small.tileCount);
        }
        expect(makeLists(kind, { B: 2, H: 3, grid: small, K, seed: 5 })).toEqual(lists);
      }
      const other = makeLists(kind, { B: 2, H: 3, grid: small, K: 2, seed: 6 });
      expect(other).not.toEqual(makeLists(kind, { B: 2, H: 3, grid: small, K: 2, seed: 5 }));
    },
  );

  test('a prefix: its keys in every list, its queries with every key', () => {
    const small = new TileGrid({ tokens: '4x8x8', prefix: 100 }); // 2 + 4 tiles
    const rows = rowsOf(makeLists('random', { B: 1, H: 1, grid: small, K: 1, seed: 1 }));
    expect(rows.slice(0, 2)).toEqual([
      [0, 1, 2, 3, 4, 5],
      [0, 1, 2, 3, 4, 5],
    ]);
    for (const row of rows.slice(2)) expect(row).toEqual([0, 1, expect.any(Number)]);
  });
});

/** mulberry32, written again. */
function mulberry(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

describe('captured lists', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vsa-bench-lists-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'lists.npy');
  const shape = { batch: 1, heads: 2, queryTiles: 3, keyTiles: 3 };

  test('indices, where -1 ends a list; heads are repeated', async () => {
    await writeNpy(path, fromTypedArray('int32', [1, 3, 2], Int32Array.of(0, 2, 1, -1, -1, -1)));
    const rows = rowsOf(await readLists(path, shape));
    expect(rows).toEqual([[0, 2], [1], [], [0, 2], [1], []]);
  });

  test('64-bit indices and masks', async () => {
    await writeNpy(path, fromTypedArray('int64', [2, 3, 1], BigInt64Array.of(0n, 1n, 2n, 2n, 1n, 0n)));
    expect(rowsOf(await readLists(path, shape))).toEqual([[0], [1], [2], [2], [1], [0]]);
    await writeNpy(path, fromTypedArray('bool', [3, 3], Uint8Array.of(1, 0, 1, 0, 0, 0, 1, 1, 1)));
    expect(rowsOf(await readLists(path, shape)).slice(0, 3)).toEqual([[0, 2], [], [0, 1, 2]]);
  });

  test.each([
    ['rows of another grid', fromTypedArray('int32', [2, 2], new Int32Array(4))],
    ['heads that do not divide', fromTypedArray('int32', [3, 3, 1], new Int32Array(9))],
    ['a mask of another width', fromTypedArray('uint8', [3, 2], new Uint8Array(6))],
    ['floats', fromTypedArray('float32', [3, 2], new Float32Array(6))],
  ])('%s', async (_, array) => {
    await writeNpy(path, array);
    await expect(readLists(path, shape)).rejects.toMatchObject({ code: 'ERR_LISTS' });
  });
});
