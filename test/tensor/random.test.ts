import type { Tensor } from '../../lib/tensor/tensor.js';
import { encode } from './exact.js';
import { normals, philoxBlock, philoxWords } from './philox.js';
import { leaveNothingBehind } from './support.js';
import { fresh } from '../under-test.js';

leaveNothingBehind();

const SEEDS = [0n, 1n, 42n, 2n ** 32n, 2n ** 53n - 1n, 0xdeadbeefcafef00dn, 2n ** 64n - 1n];

function words(tensor: Tensor): number[] {
  return Array.from(tensor.dataSync(), (word) => word >>> 0);
}

function hex(values: Iterable<number | bigint>): string {
  return [...values].map((value) => value.toString(16).padStart(8, '0')).join(' ');
}

describe('randbits', () => {
  // From the known-answer tests of Random123, the generator's authors' library (kat_vectors: philox4x32 10).
  test('known answer: counter 0, key 0', () => {
    using tensor = fresh.randbits([4], { seed: 0 });
    expect(tensor.dtype).toBe('int32');
    expect(hex(words(tensor))).toBe('6627e8d5 e169c58d bc57ac4c 9b00dbd8');
    expect(hex(philoxBlock(0n, 0n))).toBe('6627e8d5 e169c58d bc57ac4c 9b00dbd8');
  });

  test.each(SEEDS)('seed %d: the words of Philox4x32-10', (seed) => {
    using tensor = fresh.randbits([2001], { seed });
    expect(words(tensor)).toEqual(philoxWords(2001, seed));
  });

  test('far into the sequence, across the chunks that threads work on', () => {
    const count = 5 * 16384 + 3;
    using tensor = fresh.randbits([count], { seed: 7 });
    const all = words(tensor);
    for (const block of [0, 4095, 4096, 8191, 12288, 20479, 20480]) {
      const wanted = philoxBlock(BigInt(block), 7n)
        .map(Number)
        .slice(0, count - block * 4);
      expect(all.slice(block * 4, block * 4 + 4)).toEqual(wanted);
    }
  });

  test('number and bigint seeds are the same; the default is 0', () => {
    using a = fresh.randbits([8], { seed: 123456789012345 });
    using b = fresh.randbits([8], { seed: 123456789012345n });
    using c = fresh.randbits([8]);
    using d = fresh.randbits([8], { seed: 0n });
    expect(words(a)).toEqual(words(b));
    expect(words(c)).toEqual(words(d));
    expect(words(a)).not.toEqual(words(c));
  });
});

describe('randn', () => {
  test.each(SEEDS)('seed %d: 10,000 numbers to 1e-6', (seed) => {
    using tensor = fresh.randn([100, 100], { seed });
    const wanted = normals(10_000, seed);
    const errors = Array.from(tensor.dataSync(), (value, i) => Math.abs(value - wanted[i]!));
    expect(Math.max(...errors)).toBeLessThan(1e-6);
  });

  test('mean and standard deviation are those of the distribution, applied before rounding', () => {
    using tensor = fresh.randn([4000], { seed: 3, mean: -100, std: 0.25 });
    using constant = fresh.randn([50], { seed: 3, mean: 1.5, std: 0 });
    const wanted = normals(4000, 3n);
    tensor.dataSync().forEach((value, i) => {
      const exact = -100 + 0.25 * wanted[i]!;
      expect(Math.abs(value - exact)).toBeLessThan(2 ** -18 + 1e-6); // half a unit of float32 at 100
    });
    expect([...constant.dataSync()]).toEqual(new Array(50).fill(1.5));
  });

  test('the first four moments are those of a normal distribution', () => {
    const count = 1_000_000;
    using tensor = fresh.randn([count], { seed: 2024 });
    const moments = [0, 0, 0, 0];
    let neighbours = 0;
    const values = tensor.dataSync();
    for (let i = 0; i < count; i++) {
      const z = values[i]!;
      for (let power = 1; power <= 4; power++) moments[power - 1]! += z ** power / count;
      if (i > 0) neighbours += (z * values[i - 1]!) / count;
    }
    // Five standard errors: the variances of z, z^2, z^3, z^4 are 1, 2, 15, 96, that of a product of two is 1.
    const bound = (variance: number) => 5 * Math.sqrt(variance / count);
    expect(Math.abs(moments[0]!)).toBeLessThan(bound(1));
    expect(Math.abs(moments[1]! - 1)).toBeLessThan(bound(2));
    expect(Math.abs(moments[2]!)).toBeLessThan(bound(15));
    expect(Math.abs(moments[3]! - 3)).toBeLessThan(bound(96));
    expect(Math.abs(neighbours)).toBeLessThan(bound(1));
  });

  test('element i depends on the seed and i alone', () => {
    using long = fresh.randn([40_000], { seed: 5 });
    const whole = long.dataSync();
    for (const count of [0, 1, 2, 3, 5, 1023, 16384, 16385, 32770]) {
      using tensor = fresh.randn([count], { seed: 5 });
      expect(tensor.dataSync()).toEqual(whole.slice(0, count));
    }
    using shaped = fresh.randn([10, 4, 1000], { seed: 5 });
    expect(shaped.dataSync()).toEqual(whole);
  });

  test.each(['bfloat16', 'float16'] as const)('%s: the float32 numbers, rounded', (dtype) => {
    using exact = fresh.randn([20_000], { seed: 11, std: 3 });
    using rounded = fresh.randn([20_000], { seed: 11, std: 3, dtype });
    const wanted = Array.from(exact.dataSync(), (value) => encode(dtype, value));
    expect([...rounded.dataSync()]).toEqual(wanted);
  });

  test('different seeds give different numbers', () => {
    using a = fresh.randn([1000], { seed: 1 });
    using b = fresh.randn([1000], { seed: 2 });
    const other = b.dataSync();
    expect(a.dataSync().filter((value, i) => value === other[i]).length).toBe(0);
  });
});
