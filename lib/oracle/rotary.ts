/**
 * Rotary position embedding over a video grid (RoFormer, arXiv 2104.09864, one axis for each part of the channels as in
 * Wan2.1): adjacent channels are pairs, and every pair turns with the token's place along t, y or x.
 */
import { requireInteger, requireLength } from './checks.js';

const { cos, floor, sin } = Math; // by name: see rounding.ts

export interface RotaryGrid {
  /** Tokens along (t, y, x). */
  readonly tokens: readonly [number, number, number];
  readonly headDim: number;
  /** 10000 unless given. */
  readonly theta?: number;
  /** Tokens before the video, which are not turned; 0 unless given. */
  readonly prefix?: number;
}

/**
 * The angle of every token and pair of channels, [prefix + T * Y * X, D / 2]. Of c = D / 2 pairs, floor(c / 3) follow
 * y, as many x, and the rest, which come first, t. Pair i of the n of an axis turns by place * theta^(-i / n).
 */
export function rotaryAngles({ tokens, headDim, theta = 10000, prefix = 0 }: RotaryGrid): Float64Array {
  const pairs = headDim / 2;
  requireInteger('headDim / 2', pairs, 1);
  const [T, Y, X] = tokens;
  const third = floor(pairs / 3);
  const pairsOf = [pairs - 2 * third, third, third];
  const angles = new Float64Array((prefix + T * Y * X) * pairs);
  let at = prefix * pairs;
  for (let t = 0; t < T; t++) {
    for (let y = 0; y < Y; y++) {
      for (let x = 0; x < X; x++) {
        [t, y, x].forEach((place, axis) => {
          const n = pairsOf[axis]!;
          for (let i = 0; i < n; i++) angles[at++] = place * theta ** (-i / n);
        });
      }
    }
  }
  return angles;
}

export interface RotaryShape {
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly headDim: number;
}

function turn(x: Float64Array, angles: Float64Array, shape: RotaryShape, direction: 1 | -1): Float64Array {
  const { batch, length, heads, headDim } = shape;
  requireLength('x', x, [batch, length, heads, headDim]);
  requireLength('angles', angles, [length, headDim / 2]);
  const y = new Float64Array(x.length);
  for (let i = 0; i < x.length; i += 2) {
    const token = floor(i / (heads * headDim)) % length;
    const angle = direction * angles[token * (headDim / 2) + (i % headDim) / 2]!;
    y[i] = x[i]! * cos(angle) - x[i + 1]! * sin(angle);
    y[i + 1] = x[i]! * sin(angle) + x[i + 1]! * cos(angle);
  }
  return y;
}

/** Every pair (x[2i], x[2i + 1]) of x [B, L, H, D], turned by its angle. */
export function rotaryForward(x: Float64Array, angles: Float64Array, shape: RotaryShape): Float64Array {
  return turn(x, angles, shape, 1);
}

/** The gradient, turned back. */
export function rotaryBackward(dy: Float64Array, angles: Float64Array, shape: RotaryShape): Float64Array {
  return turn(dy, angles, shape, -1);
}
