/** Anti-aliased shapes on float32 frames, each by its signed distance: how many pixels a point lies outside of it. */

// Looked up once: as a property of a global, each costs more than its arithmetic where code runs in a context (Jest).
const { abs, ceil, floor, max, min, sqrt } = Math;

export const SHAPE_KINDS = ['disc', 'square', 'triangle', 'digit'] as const;
export type ShapeKind = (typeof SHAPE_KINDS)[number];

/** Red, green, blue in [-1, 1]. */
export type Color = readonly [red: number, green: number, blue: number];

/** Signed distance of a point (u, v), in pixels from the centre of the unrotated shape; v grows downwards. */
export type Distance = (u: number, v: number) => number;

/** How far any shape of radius 1 reaches from its centre. */
export const REACH = 1.16;

/** The lit segments of a digit, in the order a..g: top, upper right, lower right, bottom, lower left, upper left, middle. */
const DIGITS = [0x3f, 0x06, 0x5b, 0x4f, 0x66, 0x6d, 0x7d, 0x07, 0x7f, 0x6f] as const;
/** Half a digit's width and height between the middles of its strokes, and half a stroke, of radius 1. */
const [DIGIT_X, DIGIT_Y, STROKE] = [0.48, 0.86, 0.17];

/** A shape whose extent is about `radius` pixels. `digit`: 0..9, for that kind. */
export function distanceOf(kind: ShapeKind, radius: number, digit: number): Distance {
  switch (kind) {
    case 'disc':
      return (u, v) => sqrt(u * u + v * v) - radius;
    case 'square': {
      const half = radius * 0.8;
      return (u, v) => max(abs(u), abs(v)) - half;
    }
    case 'triangle': {
      const inner = radius * 0.56; // of the inscribed circle; the corners are twice as far
      const slope = sqrt(3) / 2;
      return (u, v) => max(v, abs(u) * slope - v / 2) - inner;
    }
    case 'digit':
      return digitDistance(radius, DIGITS[digit]!);
  }
}

/** Strokes with round ends: the least distance to a lit segment. */
function digitDistance(radius: number, lit: number): Distance {
  const [x, y, stroke] = [radius * DIGIT_X, radius * DIGIT_Y, radius * STROKE];
  /** Squared distance by which `along` is outside of [from, to], and `across` away from 0. */
  const squared = (along: number, from: number, to: number, across: number): number => {
    const beyond = along < from ? from - along : along > to ? along - to : 0;
    return beyond * beyond + across * across;
  };
  return (u, v) => {
    let least = Infinity;
    if (lit & 0x01) least = min(least, squared(u, -x, x, v + y));
    if (lit & 0x02) least = min(least, squared(v, -y, 0, u - x));
    if (lit & 0x04) least = min(least, squared(v, 0, y, u - x));
    if (lit & 0x08) least = min(least, squared(u, -x, x, v - y));
    if (lit & 0x10) least = min(least, squared(v, 0, y, u + x));
    if (lit & 0x20) least = min(least, squared(v, -y, 0, u + x));
    if (lit & 0x40) least = min(least, squared(u, -x, x, v));
    return sqrt(least) - stroke;
  };
}

export interface Placed {
  distance: Distance;
  color: Color;
  /** Centre in pixels; the middle of the first pixel is at 0.5. */
  x: number;
  y: number;
  /** Pixels. */
  reach: number;
  /** The rotation by an angle. */
  cos: number;
  sin: number;
}

/** Paints a shape over a frame, [height, width, 3] from `at` on; at its edge a pixel is covered in part. */
export function paint(frames: Float32Array, at: number, height: number, width: number, shape: Placed): void {
  const { distance, color, x, y, reach, cos, sin } = shape;
  const top = max(0, floor(y - reach));
  const bottom = min(height, ceil(y + reach));
  const left = max(0, floor(x - reach));
  const right = min(width, ceil(x + reach));
  const [red, green, blue] = color;
  for (let row = top; row < bottom; row++) {
    const dy = row + 0.5 - y;
    let to = at + (row * width + left) * 3;
    for (let column = left; column < right; column++, to += 3) {
      const dx = column + 0.5 - x;
      const covered = 0.5 - distance(dx * cos + dy * sin, dy * cos - dx * sin);
      if (covered <= 0) continue;
      const share = covered < 1 ? covered : 1;
      frames[to] = frames[to]! + (red - frames[to]!) * share;
      frames[to + 1] = frames[to + 1]! + (green - frames[to + 1]!) * share;
      frames[to + 2] = frames[to + 2]! + (blue - frames[to + 2]!) * share;
    }
  }
}

/** Fills frames, one after the other, with a gradient from top to bottom. */
export function fillGradient(frames: Float32Array, [F, H, W]: readonly number[], top: Color, bottom: Color): void {
  const size = H! * W! * 3;
  for (let row = 0, to = 0; row < H!; row++) {
    const share = (row + 0.5) / H!;
    for (let column = 0; column < W!; column++) {
      for (let c = 0; c < 3; c++) frames[to++] = top[c]! + (bottom[c]! - top[c]!) * share;
    }
  }
  for (let frame = 1; frame < F!; frame++) frames.copyWithin(frame * size, 0, size);
}

/** Hue 0..1 (round), saturation and value 0..1 as RGB in [-1, 1]. */
export function colorOf(hue: number, saturation: number, value: number): Color {
  const channel = (offset: number): number => {
    const place = (offset + hue * 6) % 6;
    const lack = max(0, min(place, 4 - place, 1));
    return 2 * value * (1 - saturation * lack) - 1;
  };
  return [channel(5), channel(3), channel(1)];
}
