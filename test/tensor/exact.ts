/** Rounding as IEEE 754 defines it, in arithmetic that is exact, and independent of the code under test. */

/** A binary format: significand bits (the implicit one counted), and the exponents of its normal numbers. */
interface Format {
  precision: number;
  least: number;
  most: number;
}

export const FORMATS = {
  float32: { precision: 24, least: -126, most: 127 },
  bfloat16: { precision: 8, least: -126, most: 127 },
  float16: { precision: 11, least: -14, most: 15 },
} as const satisfies Record<string, Format>;

export type FloatName = keyof typeof FORMATS;

/** Bits of everything but the sign. */
const MAGNITUDE_BITS: Record<FloatName, number> = { float32: 31, bfloat16: 15, float16: 15 };

const double = new DataView(new ArrayBuffer(8));

/** 2^result <= |x| < 2^(result + 1); a lower bound for subnormal float64. x finite, not 0. */
function exponentOf(x: number): number {
  double.setFloat64(0, x);
  return ((double.getUint32(0) >>> 20) & 0x7ff) - 1023;
}

/** The bits of a number in a format, rounded to nearest, ties to even, overflow to infinity. NaN gives no bits. */
export function encode(name: FloatName, x: number): number | 'NaN' {
  if (Number.isNaN(x)) return 'NaN';
  const { precision, least, most } = FORMATS[name];
  const sign = Object.is(x, -0) || x < 0 ? 2 ** MAGNITUDE_BITS[name] : 0;
  const hidden = 2 ** (precision - 1);
  const infinity = (most - least + 2) * hidden;
  if (!Number.isFinite(x)) return sign + infinity;
  // The result is a whole number of units. Scaling by a power of two, floor and rest are exact in float64.
  const exponent = Math.max(exponentOf(x), least);
  const scaled = Math.abs(x) * 2 ** (precision - 1 - exponent);
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  const count = floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
  // Magnitudes count on from one exponent to the next, so a carry needs no care: subnormals have 0 for theirs.
  const magnitude = (exponent - least) * hidden + count;
  return sign + Math.min(magnitude, infinity);
}

/** The number that bits of a format stand for, exactly. */
export function decode(name: FloatName, bits: number): number {
  const { precision, least, most } = FORMATS[name];
  const sign = bits >= 2 ** MAGNITUDE_BITS[name] ? -1 : 1;
  const magnitude = bits % 2 ** MAGNITUDE_BITS[name];
  const hidden = 2 ** (precision - 1);
  const [field, fraction] = [Math.floor(magnitude / hidden), magnitude % hidden];
  if (field === most - least + 2) return fraction === 0 ? sign * Infinity : NaN;
  const significand = field === 0 ? fraction : fraction + hidden;
  return sign * significand * 2 ** (least - (precision - 1)) * 2 ** (Math.max(field, 1) - 1);
}

/** To int32 as the package says: truncated, saturated, NaN to 0. */
export function toInt32(x: number): number {
  return Number.isNaN(x) ? 0 : Math.min(Math.max(Math.trunc(x), -(2 ** 31)), 2 ** 31 - 1) + 0;
}
