import * as fc from 'fast-check';

import { expandMask, fullLists, selectTiles } from '../../lib/oracle/index.js';

/** A row of n tiles of one token each. */
const row = (n: number, prefix = 0) => ({ tokens: [1, 1, n], tile: [1, 1, 1], prefix }) as const;

/** Lists of one head whose query grid is one tile. */
function select(scores: number[], topK: number, keyPrefix = 0, prefix: 'exempt' | 'compete' = 'exempt') {
  const keyGrid = row(scores.length - keyPrefix, keyPrefix);
  return selectTiles(scores, { batch: 1, heads: 1, grid: row(1), keyGrid, topK, prefix })[0];
}

test('the K largest, ascending', () => {
  expect(select([1, 5, 3, 4, 2], 3)).toEqual([1, 2, 3]);
  expect(select([1, 5, 3, 4, 2], 1)).toEqual([1]);
  expect(select([1, 5, 3, 4, 2], 5)).toEqual([0, 1, 2, 3, 4]);
  expect(select([-3, -1, -2], 2)).toEqual([1, 2]);
});

test('ties go to the lowest tile', () => {
  expect(select([1, 2, 2, 2, 0], 2)).toEqual([1, 2]);
  expect(select([7, 7, 7, 7], 3)).toEqual([0, 1, 2]);
  expect(select([0, 1, 0, 0], 2)).toEqual([0, 1]);
});

test('-0 equals +0, NaN ranks below -inf, +inf first', () => {
  expect(select([-0, 0], 1)).toEqual([0]);
  expect(select([0, -0], 1)).toEqual([0]);
  expect(select([NaN, -Infinity, NaN], 1)).toEqual([1]);
  expect(select([NaN, -Infinity, NaN], 2)).toEqual([0, 1]);
  expect(select([1e300, NaN, Infinity], 1)).toEqual([2]);
  expect(select([NaN, NaN, NaN], 2)).toEqual([0, 1]);
});

test('prefix keys are exempt or compete', () => {
  expect(select([-9, -8, 1, 3, 2], 1, 2, 'exempt')).toEqual([0, 1, 3]);
  expect(select([-9, -8, 1, 3, 2], 1, 2, 'compete')).toEqual([2, 3, 4]);
  expect(select([9, -8, 1, 3, 2], 1, 2, 'compete')).toEqual([0, 3, 4]);
});

test('prefix queries get full lists', () => {
  const scores = [1, 2, 3, 1, 2, 3, 1, 3, 2];
  const options = { batch: 1, heads: 1, grid: row(2, 1), topK: 1 };
  expect(selectTiles(scores, options)).toEqual([
    [0, 1, 2],
    [0, 2],
    [0, 1],
  ]);
});

test('the own tile can be forced and counts in K', () => {
  const scores = [1, 2, 3, 1, 2, 3, 1, 2, 3];
  const options = { batch: 1, heads: 1, grid: row(3), includeSelf: true };
  expect(selectTiles(scores, { ...options, topK: 1 })).toEqual([[0], [1], [2]]);
  expect(selectTiles(scores, { ...options, topK: 2 })).toEqual([
    [0, 2],
    [1, 2],
    [1, 2],
  ]);
  expect(() => selectTiles([1, 2], { ...options, topK: 1, grid: row(1), keyGrid: row(2) })).toThrow('includeSelf');
});

test('the forced tile counts in K + prefix tiles where the prefix competes', () => {
  const options = { batch: 1, heads: 1, grid: row(2, 1), includeSelf: true, topK: 1, prefix: 'compete' } as const;
  expect(selectTiles([0, 0, 0, 1, 0, 5, 9, 5, 0], options)).toEqual([
    [0, 1, 2],
    [1, 2],
    [0, 2],
  ]);
});

test('rows are batch, head, query tile', () => {
  const scores = [1, 0, 0, 1, 0, 1, 1, 0, 5, 6, 6, 5, 7, 7, 0, 1];
  const lists = selectTiles(scores, { batch: 2, heads: 2, grid: row(2), topK: 1 });
  expect(lists).toEqual([[0], [1], [1], [0], [1], [0], [0], [1]]);
});

test('any row: K tiles, none of the others scores higher, ties to the left', () => {
  const score = fc.oneof(fc.integer({ min: -2, max: 2 }), fc.constantFrom(NaN, -0, Infinity, -Infinity), fc.double());
  fc.assert(
    fc.property(fc.array(score, { minLength: 1, maxLength: 12 }), fc.nat(), (scores, pick) => {
      const topK = 1 + (pick % scores.length);
      const list = select(scores, topK)!;
      expect(list.length).toBe(topK);
      const rank = (j: number): [number, number] => (Number.isNaN(scores[j]) ? [0, 0] : [1, scores[j]!]);
      for (let j = 0; j < scores.length; j++) {
        for (const i of list) {
          if (list.includes(j)) continue;
          const [a, b] = [rank(i), rank(j)];
          const order = a[0] - b[0] || (a[1] > b[1] ? 1 : a[1] < b[1] ? -1 : 0);
          expect(order > 0 || (order === 0 && i < j)).toBe(true);
        }
      }
    }),
  );
});

test('refuses a K out of range and scores of another size', () => {
  expect(() => select([1, 2], 0)).toThrow('topK: got 0');
  expect(() => select([1, 2], 3)).toThrow('topK: got 3, wanted an integer from 1 to 2');
  expect(() => select([1, 2, 3], 3, 1)).toThrow('topK: got 3');
  expect(() => selectTiles([1], { batch: 1, heads: 1, grid: row(2), topK: 1 })).toThrow('scores: got 1');
});

test('lists expand to the tokens of their tiles', () => {
  const grid = { tokens: [1, 1, 3], tile: [1, 1, 2], prefix: 1 } as const; // tiles of tokens [0], [1, 2], [3]
  const lists = [[0, 1], [], [2], [1], [0], [0, 1, 2]];
  const mask = expandMask(lists, { batch: 1, heads: 2, grid });
  const rows = Array.from({ length: 8 }, (_, i) => [...mask.subarray(i * 4, i * 4 + 4)].join(''));
  expect(rows).toEqual(['1110', '0000', '0000', '0001', '0110', '1000', '1000', '1111']);
  const sample = expandMask(lists, { batch: 1, heads: 2, grid, queryTokens: [3, 0] });
  expect([...sample].join('')).toBe('0001' + '1110' + '1111' + '0110');
  const cross = expandMask([[1], [0], []], { batch: 1, heads: 1, grid, keyGrid: { ...grid, prefix: 0 } });
  expect([...cross].join('')).toBe('001' + '110' + '110' + '000');
  expect(() => expandMask(lists.slice(1), { batch: 1, heads: 2, grid })).toThrow('got 5 rows, wanted B * H * Nq = 6');
  expect(() => expandMask([[3], [], []], { batch: 1, heads: 1, grid })).toThrow('lists: got 3');
});

test('full lists', () => {
  expect(fullLists(2, 3)).toEqual([
    [0, 1, 2],
    [0, 1, 2],
  ]);
});
