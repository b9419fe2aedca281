/** Pictures of latent frames: what a person sees of the clip in the report. */
import { PNG } from 'pngjs';

import { CELL_FRAMES, QUADRANT_PIXELS, TOKEN_FEATURES, TOKEN_QUADRANTS, quadrantFeatures } from './cells.js';
import type { TokenShape } from './cells.js';

/** RGB, [height, width, 3]. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** Widest picture in pixels: sharp on a page, and a clip of 21 stays below about three megabytes. */
const MAX_WIDTH = 448;

/** Keeps one frame of each latent frame, scaled down by whole factors. */
export class FramePictures {
  readonly pictures: Picture[] = [];
  readonly #width: number;
  readonly #factor: number;
  readonly #out: { width: number; height: number };

  /** Pixels of the frames; multiples of 16. */
  constructor(width: number, height: number) {
    this.#width = width;
    // 16 pixels of a token must stay whole pixels of the picture, for the tiles to lie on them.
    this.#factor = [1, 2, 4, 8].find((factor) => width / factor <= MAX_WIDTH) ?? 16;
    this.#out = { width: width / this.#factor, height: height / this.#factor };
  }

  push(rgb: Uint8Array, index: number): void {
    // A latent frame is 4 frames long: its third one is as good a likeness as any, and sharper than their mean.
    if (index !== 0 && index % CELL_FRAMES !== CELL_FRAMES - 1) return;
    const { width, height } = this.#out;
    const factor = this.#factor;
    const result = new Uint8Array(width * height * 3);
    for (let y = 0, to = 0; y < height; y++) {
      for (let x = 0; x < width; x++, to += 3) {
        for (let c = 0; c < 3; c++) {
          let sum = 0;
          for (let dy = 0; dy < factor; dy++) {
            const row = ((y * factor + dy) * this.#width + x * factor) * 3 + c;
            for (let dx = 0; dx < factor; dx++) sum += rgb[row + dx * 3]!;
          }
          result[to + c] = Math.round(sum / (factor * factor));
        }
      }
    }
    this.pictures.push({ width, height, rgb: result });
  }
}

/** Pictures made of what tokens hold: the mean colour of every 4x4 pixels. */
export function picturesOfTokens(tokens: Uint8Array, shape: TokenShape): Picture[] {
  const [T, Y, X] = shape;
  const width = X * TOKEN_QUADRANTS;
  const height = Y * TOKEN_QUADRANTS;
  return Array.from({ length: T }, (_, t) => {
    const rgb = new Uint8Array(width * height * 3);
    for (let y = 0, to = 0; y < height; y++) {
      for (let x = 0; x < width; x++, to += 3) {
        const token = (t * Y + Math.floor(y / QUADRANT_PIXELS)) * X + Math.floor(x / QUADRANT_PIXELS);
        const { color } = quadrantFeatures(y % TOKEN_QUADRANTS, x % TOKEN_QUADRANTS);
        const from = token * TOKEN_FEATURES + color;
        rgb.set(tokens.subarray(from, from + 3), to);
      }
    }
    return { width, height, rgb };
  });
}

/**
 * A picture as PNG. Colours are rounded to 64 steps a channel, at most 2 off: nobody sees it, and the noise of a camera,
 * which does not compress, is gone. Paeth's filter alone is as small as trying all five, in a third of the time.
 */
export function encodePng({ width, height, rgb }: Picture): Buffer {
  const png = new PNG({ width, height, colorType: 2, inputColorType: 2, inputHasAlpha: false });
  png.data = Buffer.from(rgb.map((value) => (value & 0xfc) | 2));
  return PNG.sync.write(png, { colorType: 2, inputColorType: 2, inputHasAlpha: false, deflateLevel: 9, filterType: 4 });
}
