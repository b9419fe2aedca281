import {
  decodeArray,
  decodeBfloat16,
  decodeFloat16,
  encodeArray,
  encodeBfloat16,
  encodeFloat16,
  roundArray,
  roundBfloat16,
  roundFloat16,
  roundTo,
  rounded,
  roundingStep,
} from '../../lib/oracle/index.js';
import { uniform } from './helpers.js';

const FORMATS = [
  {
    name: 'bfloat16',
    fractionBits: 7,
    bias: 127,
    encode: encodeBfloat16,
    decode: decodeBfloat16,
    round: roundBfloat16,
  },
  { name: 'float16', fractionBits: 10, bias: 15, encode: encodeFloat16, decode: decodeFloat16, round: roundFloat16 },
] as const;

const { is } = Object;
const view = new DataView(new ArrayBuffer(8));

/** The double just above (+1) or below (-1) a positive one. */
function neighbour(x: number, direction: 1 | -1): number {
  view.setFloat64(0, x);
  view.setBigUint64(0, view.getBigUint64(0) + BigInt(direction));
  return view.getFloat64(0);
}

describe.each(FORMATS)('$name', ({ name, fractionBits, bias, encode, decode, round }) => {
  const infinity = ((1 << (15 - fractionBits)) - 1) << fractionBits; // its bits

  test('decodes all 65536 patterns by the definition, and encodes them back', () => {
    let wrong = 0;
    for (let bits = 0; bits < 0x10000; bits++) {
      const sign = bits >= 0x8000 ? -1 : 1;
      const exponent = (bits & 0x7fff) >> fractionBits;
      const fraction = (bits & ((1 << fractionBits) - 1)) / 2 ** fractionBits;
      let want = exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
      if ((bits & 0x7fff) >= infinity) want = fraction === 0 ? Infinity : NaN;
      const got = decode(bits);
      if (!is(got, sign * want)) wrong++;
      if (!is(round(got), got)) wrong++;
      const back = encode(got);
      if (Number.isNaN(want) ? !((back & 0x7fff) > infinity) : back !== bits) wrong++;
    }
    expect(wrong).toBe(0);
  });

  test('rounds the midpoint of all neighbours to even, and what lies just beside it to the nearer one', () => {
    let wrong = 0;
    for (let bits = 0; bits < infinity; bits++) {
      const [low, high] = [
        decode(bits),
        bits + 1 === infinity ? 2 * decode(infinity - (1 << fractionBits)) : decode(bits + 1),
      ];
      const middle = (low + high) / 2; // exact: a double has bits to spare
      const even = bits % 2 === 0 ? bits : bits + 1;
      const checks: [number, number][] = [
        [middle, even],
        [neighbour(middle, -1), bits],
        [neighbour(middle, 1), bits + 1],
        [low + (high - low) / 4, bits],
      ];
      for (const [x, want] of checks) {
        if (encode(x) !== want || encode(-x) !== (want | 0x8000)) wrong++;
        if (!is(round(x), decode(want)) || !is(round(-x), -decode(want))) wrong++;
      }
    }
    expect(wrong).toBe(0);
  });

  test('rounds random doubles of all magnitudes to the nearest value, found by bisection', () => {
    const next = uniform(7);
    let wrong = 0;
    for (let trial = 0; trial < 10_000; trial++) {
      const x = (1 + next()) * 2 ** Math.floor(next() * 300 - 150);
      let [low, high] = [0, infinity];
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (decode(middle) <= x) low = middle;
        else high = middle;
      }
      const above = high === infinity ? 2 ** (bias + 1) : decode(high); // where the next value would be
      const nearest = x - decode(low) <= above - x ? low : high; // no ties among random doubles
      if (encode(x) !== nearest) wrong++;
    }
    expect(wrong).toBe(0);
  });

  test('keeps zeros, infinities and NaN, and flushes what is below half the smallest to a zero of its sign', () => {
    for (const x of [0, -0, Infinity, -Infinity, NaN]) expect(round(x)).toBe(x);
    const smallest = decode(1);
    expect(round(smallest / 2)).toBe(0);
    expect(round(-smallest / 2)).toBe(-0);
    expect(round(neighbour(smallest / 2, 1))).toBe(smallest);
    expect(round(Number.MIN_VALUE)).toBe(0);
    expect(round(Number.MAX_VALUE)).toBe(Infinity);
  });

  test('converts arrays', () => {
    const values = [1.00390625, -0, 3e-9, -Infinity, 123.456];
    const bits = encodeArray(values, name);
    expect([...bits]).toEqual(values.map(encode));
    expect([...decodeArray(bits, name)]).toEqual(values.map(round));
    expect([...rounded(values, name)]).toEqual(values.map((x) => roundTo(x, name)));
    const part = Float64Array.from(values);
    roundArray(part, name, 1, 4);
    expect([...part]).toEqual([values[0], round(values[1]!), round(values[2]!), round(values[3]!), values[4]]);
  });
});

test('does not round twice: just above a bfloat16 midpoint that float32 cannot tell from it', () => {
  const x = 1 + 2 ** -8 + 2 ** -40;
  expect(Math.fround(x)).toBe(1 + 2 ** -8);
  expect(roundBfloat16(x)).toBe(1 + 2 ** -7);
});

test('float32 and float64', () => {
  expect(roundTo(0.1, 'float32')).toBe(Math.fround(0.1));
  expect(roundTo(0.1, 'float64')).toBe(0.1);
  expect([...rounded([0.1, 1e300, -1e-50], 'float32')]).toEqual([Math.fround(0.1), Infinity, -0]);
  expect([...rounded([0.1], 'float64')]).toEqual([0.1]);
});

test('rounding steps', () => {
  expect(roundingStep('bfloat16', 1)).toBe(2 ** -7);
  expect(roundingStep('bfloat16', 1.99)).toBe(2 ** -7);
  expect(roundingStep('bfloat16', -2)).toBe(2 ** -6);
  expect(roundingStep('float16', 1000)).toBe(0.5);
  expect(roundingStep('float16', 1e-6)).toBe(2 ** -24);
  expect(roundingStep('float16', Infinity)).toBe(32);
  expect(roundingStep('float32', 1)).toBe(2 ** -23);
  expect(roundingStep('float32', 0)).toBe(2 ** -149);
});
