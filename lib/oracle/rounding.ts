/**
 * Rounding of float64 values to narrower formats, and their bit patterns.
 *
 * Every function rounds once, from the float64 value, to nearest with ties to even; none goes through float32 on the
 * way to a 16-bit format (rounding twice moves values that lie just beside a midpoint).
 */

/** The floating-point formats of tensors. */
export type FloatFormat = 'float32' | 'bfloat16' | 'float16';
/** What a value is rounded to; 'float64' leaves it alone. */
export type Rounding = 'float64' | FloatFormat;

// By name: a look-up of the global in every step of an inner loop is slow in sandboxes, Jest's among them.
const { abs, fround, max, min } = Math;
const { isFinite } = Number;

interface FormatLimits {
  /** Significant bits, the implicit one included. */
  readonly precision: number;
  /** Exponent of the smallest normal number. */
  readonly minExponent: number;
  /** Exponent of the largest finite number. */
  readonly maxExponent: number;
}

const LIMITS: Readonly<Record<FloatFormat, FormatLimits>> = {
  float32: { precision: 24, minExponent: -126, maxExponent: 127 },
  bfloat16: { precision: 8, minExponent: -126, maxExponent: 127 },
  float16: { precision: 11, minExponent: -14, maxExponent: 15 },
};

const float64 = new Float64Array(1);
const float64Words = new Uint32Array(float64.buffer);
/** Which of the two words of a float64 holds sign and exponent: depends on the machine's byte order. */
const HIGH_WORD = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1 ? 1 : 0;
const float32 = new Float32Array(1);
const float32Bits = new Uint32Array(float32.buffer);
/** Adding and subtracting 1.5 * 2^52 rounds |y| < 2^51 to an integer, ties to even: the sum has no bits below 1. */
const TO_INTEGER = 1.5 * 2 ** 52;

/** floor(log2 |x|) of a normal float64; -1023 for subnormal ones and zero. */
function exponentOf(x: number): number {
  float64[0] = x;
  return ((float64Words[HIGH_WORD]! >>> 20) & 0x7ff) - 1023;
}

/** 2^exponent, exactly, for -1022 <= exponent <= 1023. */
function powerOfTwo(exponent: number): number {
  float64Words[1 - HIGH_WORD] = 0;
  float64Words[HIGH_WORD] = (exponent + 1023) << 20;
  return float64[0]!;
}

function roundToFormat(x: number, precision: number, minExponent: number, maxExponent: number): number {
  if (x === 0 || !isFinite(x)) return x; // keeps -0, infinities and NaN
  const step = powerOfTwo(max(exponentOf(x), minExponent) - (precision - 1));
  const units = x / step + TO_INTEGER - TO_INTEGER;
  if (units === 0) return x < 0 ? -0 : 0;
  const rounded = units * step;
  if (abs(rounded) >= 2 * powerOfTwo(maxExponent)) return rounded < 0 ? -Infinity : Infinity;
  return rounded;
}

/** Nearest bfloat16 (8 significant bits, exponents of float32), ties to even; overflow gives infinity. */
export function roundBfloat16(x: number): number {
  return roundToFormat(x, 8, -126, 127);
}

/** Nearest float16 (IEEE binary16), ties to even; magnitudes from 65520 up give infinity. */
export function roundFloat16(x: number): number {
  return roundToFormat(x, 11, -14, 15);
}

/** Nearest value of a format. */
export function roundTo(x: number, rounding: Rounding): number {
  if (rounding === 'float64') return x;
  if (rounding === 'float32') return fround(x);
  return rounding === 'bfloat16' ? roundBfloat16(x) : roundFloat16(x);
}

/** Rounds values[start .. end) in place. */
export function roundArray(values: Float64Array, rounding: Rounding, start = 0, end = values.length): void {
  if (rounding === 'float32') {
    for (let i = start; i < end; i++) values[i] = fround(values[i]!);
  } else if (rounding !== 'float64') {
    const { precision, minExponent, maxExponent } = LIMITS[rounding];
    for (let i = start; i < end; i++) values[i] = roundToFormat(values[i]!, precision, minExponent, maxExponent);
  }
}

/** A rounded copy: what a tensor of that format holds of `values`. */
export function rounded(values: ArrayLike<number>, rounding: Rounding): Float64Array {
  const copy = Float64Array.from(values);
  roundArray(copy, rounding);
  return copy;
}

/** Distance of neighbouring values of a format at |magnitude| (its unit in the last place); the smallest one at 0. */
export function roundingStep(format: FloatFormat, magnitude: number): number {
  const { precision, minExponent, maxExponent } = LIMITS[format];
  const exponent = min(max(exponentOf(magnitude), minExponent), maxExponent);
  return powerOfTwo(exponent - (precision - 1));
}

/** Bits of the nearest bfloat16. Every NaN becomes the quiet NaN 0x7fc0. */
export function encodeBfloat16(x: number): number {
  if (Number.isNaN(x)) return 0x7fc0;
  float32[0] = roundBfloat16(x); // exact: every bfloat16 is a float32
  return float32Bits[0]! >>> 16;
}

/** Value of 16 bfloat16 bits. */
export function decodeBfloat16(bits: number): number {
  float32Bits[0] = bits << 16;
  return float32[0]!;
}

/** Bits of the nearest float16. Every NaN becomes the quiet NaN 0x7e00. */
export function encodeFloat16(x: number): number {
  if (Number.isNaN(x)) return 0x7e00;
  const value = roundFloat16(x);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = abs(value);
  if (magnitude === Infinity) return sign | 0x7c00;
  const exponent = max(exponentOf(magnitude), -14);
  const units = magnitude / powerOfTwo(exponent - 10); // integer below 2048; below 1024 only for subnormals
  return units < 1024 ? sign | units : sign | ((exponent + 15) << 10) | (units - 1024);
}

/** Value of 16 float16 bits. */
export function decodeFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** Nearest bit patterns of a 16-bit format, as a tensor stores them. */
export function encodeArray(values: ArrayLike<number>, format: 'bfloat16' | 'float16'): Uint16Array {
  const encode = format === 'bfloat16' ? encodeBfloat16 : encodeFloat16;
  return Uint16Array.from(values, encode);
}

/** Values of the bit patterns of a 16-bit format. */
export function decodeArray(bits: Uint16Array, format: 'bfloat16' | 'float16'): Float64Array {
  const decode = format === 'bfloat16' ? decodeBfloat16 : decodeFloat16;
  return Float64Array.from(bits, decode);
}
