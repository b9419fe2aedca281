import * as fc from 'fast-check';

import { permutation, Random } from '../../lib/data/random.js';

test('the numbers of a key, on every machine', () => {
  const random = new Random(1, 2, 3);
  expect([random.bits(), random.bits(), random.bits()]).toEqual([1712892084, 325985494, 1227354061]);
  expect([...permutation(10, new Random(5))]).toEqual([6, 4, 3, 0, 1, 5, 9, 2, 7, 8]);
});

test('keys that differ anywhere give other numbers', () => {
  const big = 2 ** 32;
  const keys = [[0], [1], [0, 0], [0, 1], [1, 0], [big], [2 * big], [big + 1], [2 ** 53 - 1], [2 ** 53 - 2]];
  expect(new Set(keys.map((key) => new Random(...key).bits())).size).toBe(keys.length);
});

test('numbers of neighbouring keys are uniform and know nothing of each other', () => {
  const count = 20_000;
  const first = Array.from({ length: count }, (_, key) => new Random(7, key).between(0, 1));
  const second = Array.from({ length: count }, (_, key) => new Random(8, key).between(0, 1));
  const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / count;
  // Five standard deviations of the mean of uniform numbers, and of products of independent ones.
  const spread = 5 / Math.sqrt(12 * count);
  expect(Math.abs(mean(first) - 0.5)).toBeLessThan(spread);
  const centred = (values: number[], by: number[]): number => mean(values.map((v, i) => (v - 0.5) * (by[i]! - 0.5)));
  expect(Math.abs(centred(first, second))).toBeLessThan(5 / (12 * Math.sqrt(count)));
  expect(Math.abs(centred(first, [...first.slice(1), 0.5]))).toBeLessThan(5 / (12 * Math.sqrt(count)));
});

test('below is uniform', () => {
  const random = new Random(3);
  const [faces, count] = [7, 35_000];
  const seen = new Array<number>(faces).fill(0);
  for (let i = 0; i < count; i++) seen[random.below(faces)]!++;
  const chiSquare = seen.reduce((sum, one) => sum + (one - count / faces) ** 2 / (count / faces), 0);
  expect(chiSquare).toBeLessThan(30); // 6 degrees of freedom: exceeded once in 25,000 seeds
});

test('below stays below, also where 32 bits are no multiple', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 32 }), fc.nat(), (count, key) => {
      const value = new Random(key).below(count);
      return Number.isInteger(value) && value >= 0 && value < count;
    }),
  );
});

test('a permutation has every number once, and all orders are as likely', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 200 }), fc.nat(), (count, key) => {
      const sorted = [...permutation(count, new Random(key))].sort((a, b) => a - b);
      return sorted.length === count && sorted.every((value, i) => value === i);
    }),
  );
  const orders = new Map<string, number>();
  for (let key = 0; key < 6000; key++) {
    const order = permutation(3, new Random(9, key)).join();
    orders.set(order, (orders.get(order) ?? 0) + 1);
  }
  expect(orders.size).toBe(6);
  const chiSquare = [...orders.values()].reduce((sum, one) => sum + (one - 1000) ** 2 / 1000, 0);
  expect(chiSquare).toBeLessThan(30); // 5 degrees of freedom
});
