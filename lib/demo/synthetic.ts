/**
 * The clip of a demo without a video file: shapes that move over a landscape while the camera pans. It has what makes
 * attention sparse in a real clip: large calm areas, texture, objects that leave, return and cover each other.
 * Integer hashes and Math.sin only, so every machine draws the same pixels (V8 brings its own sine).
 */

const { floor, imul, max, min } = Math;

type Color = readonly [red: number, green: number, blue: number];

/** A lattice value in 0..1, from a 32-bit mixing hash. */
function lattice(x: number, y: number, layer: number): number {
  let h = (imul(x, 0x27d4eb2d) ^ imul(y, 0x165667b1) ^ imul(layer, 0x9e3779b1)) >>> 0;
  h = imul(h ^ (h >>> 15), 0x85ebca6b) >>> 0;
  h = imul(h ^ (h >>> 13), 0xc2b2ae35) >>> 0;
  return ((h ^ (h >>> 16)) >>> 0) / 0xffffffff;
}

/** Value noise in 0..1: the lattice, smoothly interpolated. */
function noise(x: number, y: number, layer: number): number {
  const x0 = floor(x);
  const y0 = floor(y);
  const fx = x - x0;
  const fy = y - y0;
  const u = fx * fx * (3 - 2 * fx);
  const v = fy * fy * (3 - 2 * fy);
  const top = lattice(x0, y0, layer) * (1 - u) + lattice(x0 + 1, y0, layer) * u;
  const bottom = lattice(x0, y0 + 1, layer) * (1 - u) + lattice(x0 + 1, y0 + 1, layer) * u;
  return top * (1 - v) + bottom * v;
}

/** 0 below `from`, 1 above `to`, smooth between. */
function ramp(value: number, from: number, to: number): number {
  const t = min(1, max(0, (value - from) / (to - from)));
  return t * t * (3 - 2 * t);
}

function mix(a: Color, b: Color, share: number): Color {
  return [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share];
}

/** Colour of the landscape at (x, y), in units of the frame's height; y = 0 is the top. */
function landscape(x: number, y: number): Color {
  const cloud = noise(x * 3, y * 9, 1) * 0.6 + noise(x * 9, y * 24, 2) * 0.4;
  const sky = mix(mix([86, 138, 200], [226, 224, 214], ramp(y, 0, 0.5)), [248, 246, 242], ramp(cloud, 0.55, 0.8) * 0.7);
  const far = 0.44 - 0.1 * noise(x * 2.2, 0, 3) - 0.03 * noise(x * 9, 0, 4);
  const near = 0.6 - 0.1 * noise(x * 1.7 + 9, 0, 5);
  if (y < far) return sky;
  if (y < near) return mix([92, 112, 134], [128, 146, 160], ramp(y, far, near) + 0.2 * noise(x * 30, y * 30, 6));
  const meadow = mix([84, 116, 62], [150, 156, 84], noise(x * 4, y * 12, 7));
  const grain = noise(x * 44, y * 60, 8) * 44 - 22;
  return [meadow[0] + grain, meadow[1] + grain, meadow[2] + grain * 0.6];
}

/** What covers a pixel of the frame: a shape returns the colour there, or undefined where it is not. */
interface Shape {
  /** Centre and half the extent, in units of the frame's height. */
  x: number;
  y: number;
  reach: number;
  color(dx: number, dy: number): Color | undefined;
}

/** A ball lit from the upper left. */
function ball(x: number, y: number, radius: number, color: Color): Shape {
  return {
    x,
    y,
    reach: radius,
    color(dx, dy) {
      if (dx * dx + dy * dy > radius * radius) return undefined;
      const light = ramp(-(dx + dy) / radius, -1.4, 1.4);
      return mix(mix(color, [20, 18, 28], 0.55), mix(color, [255, 255, 255], 0.3), light);
    },
  };
}

/** A turning square with four fields. */
function square(x: number, y: number, half: number, angle: number, color: Color): Shape {
  const cos = Math.cos(angle);
  const sin = Math.sin(angle);
  return {
    x,
    y,
    reach: half * Math.SQRT2,
    color(dx, dy) {
      const u = dx * cos + dy * sin;
      const v = dy * cos - dx * sin;
      if (Math.abs(u) > half || Math.abs(v) > half) return undefined;
      return u * v > 0 ? color : mix(color, [250, 246, 236], 0.8);
    },
  };
}

function ring(x: number, y: number, radius: number, color: Color): Shape {
  return {
    x,
    y,
    reach: radius,
    color(dx, dy) {
      const distance = Math.hypot(dx, dy) / radius;
      return distance > 1 || distance < 0.58 ? undefined : mix(color, [255, 255, 255], ramp(distance, 0.9, 0.6) * 0.35);
    },
  };
}

/** The shapes at `time` in 0..1 of the clip, far ones first; `aspect` is width over height. */
function shapesAt(time: number, aspect: number): Shape[] {
  const turn = 2 * Math.PI * time;
  const bounce = (phase: number) => 1 - Math.abs(Math.sin(turn * 1.5 + phase));
  return [
    ball(aspect * (0.14 + 0.1 * time), 0.17 - 0.02 * Math.sin(turn), 0.085, [250, 214, 120]),
    ring(aspect * (0.62 + 0.2 * Math.sin(turn)), 0.36 + 0.16 * Math.cos(turn), 0.13, [46, 148, 142]),
    square(aspect * (1.1 - 1.1 * time), 0.55 + 0.06 * Math.sin(2 * turn), 0.11, turn, [122, 74, 160]),
    ball(aspect * (-0.05 + 1.0 * time), 0.3 + 0.45 * bounce(0.4), 0.12, [206, 58, 48]),
    ball(aspect * (0.8 - 0.25 * time), 0.84 - 0.2 * bounce(2), 0.08, [38, 84, 170]),
  ];
}

/** Draws the clip's frames of one size, one after the other or in any order. */
export class SyntheticClip {
  static readonly sourceName = 'built-in synthetic clip';
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  readonly #background: Uint8Array; // [height, width + travel, 3]
  readonly #travel: number; // pixels that the camera pans over the clip

  /** `width` and `height` in pixels. */
  constructor(width: number, height: number, frames: number) {
    this.width = width;
    this.height = height;
    this.frames = frames;
    this.#travel = Math.round(height * 0.3);
    const wide = width + this.#travel;
    this.#background = new Uint8Array(wide * height * 3);
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < wide; x++, at += 3) write(this.#background, at, landscape(x / height, y / height));
    }
  }

  /** Frame `index` (0-based) as [height, width, 3], written into `rgb` if given. */
  frame(index: number, rgb: Uint8Array = new Uint8Array(this.width * this.height * 3)): Uint8Array {
    const time = this.frames === 1 ? 0 : index / (this.frames - 1);
    const wide = this.width + this.#travel;
    const pan = Math.round(this.#travel * time);
    for (let y = 0; y < this.height; y++) {
      const from = (y * wide + pan) * 3;
      rgb.set(this.#background.subarray(from, from + this.width * 3), y * this.width * 3);
    }
    for (const shape of shapesAt(time, this.width / this.height)) this.#paint(rgb, shape);
    return rgb;
  }

  #paint(rgb: Uint8Array, shape: Shape): void {
    const unit = this.height;
    const top = max(0, floor((shape.y - shape.reach) * unit));
    const bottom = min(this.height - 1, Math.ceil((shape.y + shape.reach) * unit));
    const left = max(0, floor((shape.x - shape.reach) * unit));
    const right = min(this.width - 1, Math.ceil((shape.x + shape.reach) * unit));
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const color = shape.color((x + 0.5) / unit - shape.x, (y + 0.5) / unit - shape.y);
        if (color !== undefined) write(rgb, (y * this.width + x) * 3, color);
      }
    }
  }
}

function write(rgb: Uint8Array, at: number, color: Color): void {
  for (let c = 0; c < 3; c++) rgb[at + c] = min(255, max(0, Math.round(color[c]!)));
}
