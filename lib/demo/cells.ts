/**
 * From RGB frames to patch tokens, in the geometry of Wan2.1: a video VAE's latent cell covers 8x8 pixels and 4 frames
 * (the first frame alone is the first cell in time), and a patch of 1x2x2 cells makes a token. 81 frames of 832x480
 * are 21 x 60 x 104 cells and 21 x 30 x 52 tokens.
 *
 * No network encodes anything here. A cell holds 16 plain numbers where a VAE has 16 channels: the mean colour of its
 * four 4x4-pixel quadrants, and how much each quadrant changes from frame to frame.
 */
import { VsaRangeError, show } from '../errors.js';

/** Token counts in time, height and width. */
export type TokenShape = readonly [T: number, Y: number, X: number];

/** Features of a token: 2x2 cells of 16. */
export const TOKEN_FEATURES = 64;
/** Features of a cell: 4 quadrants of (red, green, blue), then the change of each quadrant. */
export const CELL_FEATURES = 16;
/** Pixels of a token along y and x. */
export const TOKEN_PIXELS = 16;
/** Pixels of a quadrant along y and x: the finest detail that tokens keep. */
export const QUADRANT_PIXELS = 4;
/** Quadrants of a token along y and x. */
export const TOKEN_QUADRANTS = TOKEN_PIXELS / QUADRANT_PIXELS;
/** Frames of a cell, but for the first, which has one. */
export const CELL_FRAMES = 4;

/** Frames that make `T` cells in time. */
export function framesFor(T: number): number {
  return 1 + CELL_FRAMES * (T - 1);
}

/** Cells in time that `frames` fill, at least 0. */
export function cellsIn(frames: number): number {
  return frames < 1 ? 0 : 1 + Math.floor((frames - 1) / CELL_FRAMES);
}

/**
 * Place of a quadrant's features in its token: `color` is where its red is (green and blue follow), `change` where its
 * change is. `row` and `column` count quadrants inside the token, 0..3.
 */
export function quadrantFeatures(row: number, column: number): { color: number; change: number } {
  const cell = ((row >> 1) * 2 + (column >> 1)) * CELL_FEATURES;
  const quadrant = (row & 1) * 2 + (column & 1);
  return { color: cell + quadrant * 3, change: cell + 12 + quadrant };
}

/** Mean of `count` values that sum to `sum`, rounded half up. Integers only: the same on every machine. */
function roundedMean(sum: number, count: number): number {
  return Math.floor((2 * sum + count) / (2 * count));
}

/**
 * Takes frames one by one and holds the tokens made so far. Only the running sums of one cell and the luminance of one
 * frame are kept, so a clip of any length needs the memory of its tokens.
 */
export class CellBuilder {
  readonly shape: TokenShape;
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  /** Frames that the whole clip takes. */
  readonly frames: number;
  /** [T, Y, X, 64], filled up to the last complete cell. */
  readonly tokens: Uint8Array;
  readonly #columns: number; // quadrants in a row of the frame
  readonly #sums: Uint32Array; // [rows of quadrants, columns, (red, green, blue, change)]
  readonly #luminance: Uint8Array; // of the frame before, [height, width]
  #taken = 0;

  constructor(shape: TokenShape) {
    const [T, Y, X] = shape;
    this.shape = shape;
    this.width = X * TOKEN_PIXELS;
    this.height = Y * TOKEN_PIXELS;
    this.frames = framesFor(T);
    this.tokens = new Uint8Array(T * Y * X * TOKEN_FEATURES);
    this.#columns = X * TOKEN_QUADRANTS;
    this.#sums = new Uint32Array(Y * TOKEN_QUADRANTS * this.#columns * 4);
    this.#luminance = new Uint8Array(this.width * this.height);
  }

  /** Frames taken so far. */
  get taken(): number {
    return this.#taken;
  }

  /**
   * Adds the next frame. `rgb` is [height, width, 3] and is only read.
   * @throws VsaRangeError ERR_SHAPE for a frame of another size, or one too many.
   */
  push(rgb: Uint8Array): void {
    const wanted = this.width * this.height * 3;
    if (rgb.length !== wanted) {
      throw new VsaRangeError({
        code: 'ERR_SHAPE',
        argument: 'rgb',
        got: `${rgb.length} bytes`,
        wanted: `${wanted} bytes, ${this.width}x${this.height} pixels of red, green, blue`,
      });
    }
    if (this.#taken === this.frames) {
      throw new VsaRangeError({
        code: 'ERR_SHAPE',
        argument: 'rgb',
        got: `frame ${this.frames + 1}`,
        wanted: `no more than ${this.frames} frames for a grid of ${show(this.shape)} tokens`,
      });
    }
    this.#add(rgb, this.#taken > 0);
    this.#taken++;
    if ((this.#taken - 1) % CELL_FRAMES === 0) this.#closeCell((this.#taken - 1) / CELL_FRAMES);
  }

  #add(rgb: Uint8Array, hasBefore: boolean): void {
    const { width, height } = this;
    const sums = this.#sums;
    const luminance = this.#luminance;
    let pixel = 0;
    for (let y = 0; y < height; y++) {
      let sum = (y >> 2) * this.#columns * 4;
      for (let x = 0; x < width; x += QUADRANT_PIXELS, sum += 4) {
        let red = 0;
        let green = 0;
        let blue = 0;
        let change = 0;
        for (let end = pixel + QUADRANT_PIXELS; pixel < end; pixel++) {
          const r = rgb[3 * pixel]!;
          const g = rgb[3 * pixel + 1]!;
          const b = rgb[3 * pixel + 2]!;
          red += r;
          green += g;
          blue += b;
          const light = (77 * r + 150 * g + 29 * b + 128) >> 8; // Rec. 601 luma in 8-bit integers
          const before = luminance[pixel]!;
          if (hasBefore) change += light > before ? light - before : before - light;
          luminance[pixel] = light;
        }
        sums[sum] = sums[sum]! + red;
        sums[sum + 1] = sums[sum + 1]! + green;
        sums[sum + 2] = sums[sum + 2]! + blue;
        sums[sum + 3] = sums[sum + 3]! + change;
      }
    }
  }

  #closeCell(t: number): void {
    const [, Y, X] = this.shape;
    const count = QUADRANT_PIXELS * QUADRANT_PIXELS * (t === 0 ? 1 : CELL_FRAMES);
    const sums = this.#sums;
    for (let row = 0; row < Y * TOKEN_QUADRANTS; row++) {
      for (let column = 0; column < this.#columns; column++) {
        const sum = (row * this.#columns + column) * 4;
        const token = ((t * Y + (row >> 2)) * X + (column >> 2)) * TOKEN_FEATURES;
        const { color, change } = quadrantFeatures(row & 3, column & 3);
        for (let c = 0; c < 3; c++) this.tokens[token + color + c] = roundedMean(sums[sum + c]!, count);
        this.tokens[token + change] = roundedMean(sums[sum + 3]!, count);
      }
    }
    sums.fill(0);
  }
}
