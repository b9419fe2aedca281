import { type DType } from '../../lib/tensor/dtype.js';
import type { Tensor } from '../../lib/tensor/tensor.js';
import { decode, encode, type FloatName, FORMATS, toInt32 } from './exact.js';
import { bitsOf, leaveNothingBehind } from './support.js';
import { fresh } from '../under-test.js';

leaveNothingBehind();

const HALVES = ['bfloat16', 'float16'] as const;
const DTYPES = ['float32', ...HALVES, 'int32'] as const;
const PATTERNS = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** A tensor of these bits. */
function ofBits(dtype: DType, patterns: Uint32Array): Tensor {
  if (dtype === 'int32') return fresh.from(new Int32Array(patterns.buffer));
  if (dtype === 'float32') return fresh.from(new Float32Array(patterns.buffer));
  return fresh.from(Uint16Array.from(patterns), undefined, { dtype });
}

function patternsOf(tensor: Tensor): Uint32Array {
  const values = tensor.dataSync();
  return values instanceof Uint16Array ? Uint32Array.from(values) : bitsOf(values as Float32Array);
}

/** The number of a pattern. */
function value(dtype: DType, pattern: number): number {
  return dtype === 'int32' ? pattern | 0 : decode(dtype, pattern);
}

/** Compares a cast with exact rounding, element by element, and names the first that differs. */
function check(from: DType, to: DType, patterns: Uint32Array): void {
  using x = ofBits(from, patterns);
  using y = x.cast(to);
  expect(y.dtype).toBe(to);
  const results = patternsOf(y);
  const wrong = patterns.findIndex((pattern, i) => {
    const exact = value(from, pattern);
    const result = results[i]!;
    if (to === 'int32') return (result | 0) !== toInt32(exact);
    const wanted = encode(to, exact);
    return wanted === 'NaN' ? !Number.isNaN(decode(to, result)) : result !== wanted;
  });
  const shown = wrong === -1 ? 'none' : [patterns[wrong]!, value(from, patterns[wrong]!), results[wrong]!.toString(16)];
  expect({ from, to, wrong: shown }).toEqual({ from, to, wrong: 'none' });
}

/** Whole numbers of 32 bits, always the same. */
function randomWords(count: number, seed: number): Uint32Array {
  using words = fresh.randbits([count], { seed });
  return new Uint32Array(words.dataSync().buffer as ArrayBuffer);
}

describe.each(HALVES)('every bit pattern of %s', (half) => {
  test.each(DTYPES.filter((to) => to !== half))('to %s', (to) => check(half, to, Uint32Array.from(PATTERNS)));

  test('to float32 and back is the same bits; a NaN stays one, with its sign', () => {
    using x = fresh.from(PATTERNS, undefined, { dtype: half });
    using wide = x.cast('float32');
    using back = wide.cast(half);
    const results = back.dataSync();
    const wrong = PATTERNS.filter((pattern) => {
      const result = results[pattern]!;
      if (!Number.isNaN(decode(half, pattern))) return result !== pattern;
      return !Number.isNaN(decode(half, result)) || result >> 15 !== pattern >> 15;
    });
    expect([...wrong]).toEqual([]);
  });

  test('float32 on and around every midpoint of two neighbours', () => {
    const { precision } = FORMATS[half];
    const infinity = encode(half, Infinity) as number;
    const patterns: number[] = [];
    for (let pattern = 0; pattern < infinity; pattern += 7) {
      const low = decode(half, pattern);
      // Beyond the largest number lies the midpoint to what would be next: there infinity begins.
      const next = pattern + 1 === infinity ? 2 * low - decode(half, pattern - 1) : decode(half, pattern + 1);
      const middle = encode('float32', (low + next) / 2) as number;
      for (const near of [middle - 1, middle, middle + 1]) patterns.push(near, near + 2 ** 31);
    }
    const top = encode('float32', decode(half, infinity - 1) * (1 + 2 ** -precision)) as number;
    for (let near = top - 4; near < top + 4; near++) patterns.push(near);
    check('float32', half, Uint32Array.from(patterns.map((pattern) => pattern % 2 ** 32)));
  });
});

describe('random bits', () => {
  const pairs = DTYPES.flatMap((from) => DTYPES.filter((to) => to !== from).map((to) => [from, to] as const));
  test.each(pairs)('%s to %s', (from, to) => {
    const words = randomWords(20_000, 17);
    check(from, to, HALVES.some((half) => half === from) ? words.map((word) => word & 0xffff) : words);
  });

  // Random bits of a float32 are mostly far too large or too small for 16 bits.
  test.each(HALVES)('float32 of all magnitudes that %s has, subnormals too', (half) => {
    const { least, most } = FORMATS[half as FloatName];
    const [first, last] = [Math.max(least - 14, -149) + 150, Math.min(most + 2, 127) + 150];
    const words = randomWords(30_000, 23).map((word) => {
      const exponent = Math.max(first + ((word >>> 20) % (last - first)) - 23, 0);
      return ((word & 0x807fffff) | (exponent << 23)) >>> 0;
    });
    check('float32', half, words);
  });
});

test('int32 to 16 bits rounds once: through float32 it would fall to the wrong side', () => {
  // 2^24 + 2^16 + 1: float32 drops the 1, and the tie then goes to even.
  using x = fresh.from(Int32Array.of(2 ** 24 + 2 ** 16 + 1, -(2 ** 24) - 2 ** 16 - 1));
  using y = x.cast('bfloat16');
  expect([...y.dataSync()].map((pattern) => decode('bfloat16', pattern))).toEqual([
    2 ** 24 + 2 ** 17,
    -(2 ** 24) - 2 ** 17,
  ]);
});

test.each(['float32', 'bfloat16', 'float16', 'int32'] as const)('cast of %s to itself shares memory', (dtype) => {
  using x = fresh.zeros([3], { dtype });
  using y = x.cast(dtype);
  x.copyFrom(dtype === 'int32' ? Int32Array.of(1, 2, 3) : Float32Array.of(1, 2, 3));
  expect(y.dataSync()).toEqual(x.dataSync());
  expect(y).not.toBe(x);
});

test('casts keep the shape, and do nothing to nothing', () => {
  using x = fresh.zeros([2, 0, 3]);
  using y = x.cast('bfloat16');
  expect([y.shape, y.size, y.byteLength]).toEqual([[2, 0, 3], 0, 0]);
});

test('toFloat32 gives the values of every dtype', async () => {
  for (const dtype of DTYPES) {
    using x = fresh.from([1, -2, 300], [3], { dtype });
    expect(await x.toFloat32()).toEqual(Float32Array.of(1, -2, 300));
  }
});
