import fc from 'fast-check';
import { annealedSparsity, TileGrid, topK } from '../../lib/index.js';
import { holds } from './support.js';

const SPARSITIES = [0.8, 0.875, 0.9, 0.95] as const;

/** The shapes video models are run at: tokens, L, N, K at each sparsity. */
test.each([
  ['16x32x32', 16384, 256, [52, 32, 26, 13]],
  ['16x28x52', 23296, 364, [73, 46, 37, 19]],
  ['20x28x52', 29120, 455, [91, 57, 46, 23]],
  ['21x30x52', 32760, 624, [125, 78, 63, 32]],
  ['20x48x80', 76800, 1200, [240, 150, 120, 61]],
  ['21x45x80', 75600, 1440, [288, 180, 144, 73]],
])('topK of %s', (text, length, tiles, wanted) => {
  const grid = TileGrid.parse(text);
  expect([grid.length, grid.tileCount]).toEqual([length, tiles]);
  expect(SPARSITIES.map((sparsity) => topK(grid, { sparsity }))).toEqual(wanted);
});

test('topK is at least 1, at most N, and does not count the prefix', () => {
  const grid = new TileGrid({ tokens: [8, 8, 8], prefix: 200 });
  expect(grid.totalTileCount).toBe(12);
  expect([0, 0.5, 0.99, 1].map((sparsity) => topK(grid, { sparsity }))).toEqual([8, 4, 1, 1]);
});

test('topK: the smallest K that leaves out no more than the sparsity', async () => {
  await holds(
    300,
    fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 1, max: 3000 })),
    ([sparsity, N]) => {
      const K = topK(new TileGrid({ tokens: [4, 4, 4 * N] }), { sparsity });
      expect(K).toBeGreaterThanOrEqual(1);
      expect(K).toBeLessThanOrEqual(N);
      expect(K).toBeGreaterThanOrEqual((1 - sparsity) * N);
      if (K > 1) expect(K - 1).toBeLessThan((1 - sparsity) * N);
    },
  );
});

test('annealedSparsity: 0.03 more every 50 steps, up to the target', () => {
  const at = (step: number) => annealedSparsity(step, { target: 0.9 });
  expect([0, 49, 50, 99, 100].map(at)).toEqual([0, 0, 0.03, 0.03, 0.06]);
  expect(at(29 * 50)).toBeCloseTo(0.87, 12);
  expect(at(30 * 50)).toBeCloseTo(0.9, 12); // 30 * 0.03 is just below 0.9 in doubles
  expect([31 * 50, 4000, 1e9].map(at)).toEqual([0.9, 0.9, 0.9]);
  expect(annealedSparsity(7, { target: 0.5, interval: 2, rate: 0.125 })).toBe(0.375);
  expect(annealedSparsity(8, { target: 0.5, interval: 2, rate: 0.125 })).toBe(0.5);
  expect(annealedSparsity(10_000, { target: 0.9, rate: 0 })).toBe(0);
});

test('annealedSparsity never falls, and ends at exactly the target', async () => {
  const options = fc.record({
    target: fc.double({ min: 0, max: 1, noNaN: true }),
    interval: fc.integer({ min: 1, max: 100 }),
    rate: fc.double({ min: 1e-3, max: 1, noNaN: true }),
  });
  await holds(100, options, (o) => {
    let before = 0;
    for (let step = 0; step < 20 * o.interval; step += Math.ceil(o.interval / 3)) {
      const sparsity = annealedSparsity(step, o);
      expect(sparsity).toBeGreaterThanOrEqual(before);
      expect(sparsity).toBeLessThanOrEqual(o.target);
      before = sparsity;
    }
    expect(annealedSparsity(2000 * o.interval, o)).toBe(o.target);
  });
});
