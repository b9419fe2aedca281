/** The shape of a clip and of a patch, and a clip's frames as bytes. */
import { types } from 'node:util';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';

/** Frames, then pixels. */
export type ClipShape = readonly [frames: number, height: number, width: number];

/** Frames and pixels of a patch along time, height and width. */
export type Patch = readonly [pt: number, py: number, px: number];

/** Most pixels of one clip: 3 GiB of float32. */
const MAX_PIXELS = 2 ** 28;

/**
 * Three positive whole numbers.
 * @throws VsaRangeError ERR_SHAPE
 */
export function checkTriple(argument: string, value: unknown, names: string): readonly [number, number, number] {
  const good = (dim: unknown): boolean => typeof dim === 'number' && Number.isSafeInteger(dim) && dim > 0;
  if (Array.isArray(value) && value.length === 3 && value.every(good)) {
    const [a, b, c] = value as [number, number, number];
    if (a * b * c <= MAX_PIXELS) return Object.freeze([a, b, c] as const);
  }
  const wanted = `[${names}], three positive whole numbers of a product of at most 2^28`;
  throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: show(value), wanted });
}

export function checkClipShape(value: unknown): ClipShape {
  return checkTriple('shape', value, 'frames, height, width');
}

/**
 * A Float32Array of `length` numbers.
 * @throws VsaTypeError ERR_ARGUMENT for another kind of value; VsaRangeError ERR_SHAPE for another length.
 */
export function checkNumbers(argument: string, value: unknown, length: number, layout: string): Float32Array {
  if (!types.isFloat32Array(value)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a Float32Array' });
  }
  if (value.length === length) return value;
  const wanted = `${length} numbers, ${layout}`;
  throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: `${value.length} numbers`, wanted });
}

/** Frames of a clip as [frames, height, width, 3] numbers. */
export function checkFrames(frames: unknown, [F, H, W]: ClipShape): Float32Array {
  return checkNumbers('frames', frames, F * H * W * 3, `[${F}, ${H}, ${W}, 3]`);
}

/** -1..1 to 0..255: rounded, clamped; NaN is 0. */
const toByte = (value: number): number => (value + 1) * 127.5;

/** 0..255 to -1..1, the inverse of what a Uint8ClampedArray makes of `toByte`. */
export const FROM_BYTE = Float32Array.from({ length: 256 }, (_, byte) => byte / 127.5 - 1);

export interface FramePixels {
  frames: Float32Array;
  shape: ClipShape;
  /** Each pixel becomes scale x scale of them. */
  scale: number;
  /** 3: red, green, blue; 4: then 255. */
  channels: 3 | 4;
  /** Size of the picture that comes out, at least the scaled one: the last row and column go on. */
  height: number;
  width: number;
}

/** Frame `index` as bytes, [height, width, channels]. */
export function framePixels({ frames, shape, scale, channels, height, width }: FramePixels, index: number): Uint8Array {
  const [, H, W] = shape;
  const pixels = new Uint8ClampedArray(height * width * channels);
  if (channels === 4) pixels.fill(255);
  const first = index * H * W * 3;
  for (let y = 0, to = 0; y < height; y++) {
    const row = first + Math.min(H - 1, Math.floor(y / scale)) * W * 3;
    for (let x = 0; x < width; x++, to += channels) {
      const from = row + Math.min(W - 1, Math.floor(x / scale)) * 3;
      pixels[to] = toByte(frames[from]!);
      pixels[to + 1] = toByte(frames[from + 1]!);
      pixels[to + 2] = toByte(frames[from + 2]!);
    }
  }
  return new Uint8Array(pixels.buffer);
}
