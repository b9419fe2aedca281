/**
 * The pixel-patch grid: a clip's pixels as tokens, without an encoder. A token holds the pixels of a patch of pt frames,
 * py rows and px columns; tokens lie in row-major video order, so that token (t * Y + y) * X + x of a `TileGrid` of
 * [T, Y, X] tokens is the patch at frame t * pt, row y * py and column x * px.
 */
import { show, VsaRangeError } from '../errors.js';
import { checkOptions } from '../validate.js';
import { checkClipShape, checkFrames, checkNumbers, checkTriple } from './shape.js';
import type { ClipShape, Patch } from './shape.js';

/** The patch of what does not name one. */
export const DEFAULT_PATCH: Patch = Object.freeze([1, 8, 8] as const);

export interface PatchGridOptions {
  /** [frames, height, width] of the clip; multiples of the patch. */
  shape: ClipShape;
  /** [pt, py, px]. Default [1, 8, 8]. */
  patch?: Patch;
}

export interface PatchGrid {
  readonly shape: ClipShape;
  readonly patch: Patch;
  /** [T, Y, X]: what a `TileGrid` takes. */
  readonly tokens: readonly [T: number, Y: number, X: number];
  /** L = T * Y * X. */
  readonly length: number;
  /** C = pt * py * px * 3. */
  readonly channels: number;
}

/**
 * The token grid of a clip.
 * @throws VsaRangeError ERR_SHAPE for a shape or patch that is not three positive whole numbers, or a shape that is no
 *   multiple of the patch.
 */
export function patchGrid(options: PatchGridOptions): PatchGrid {
  checkOptions('options', options, ['shape', 'patch']);
  const shape = checkClipShape(options.shape);
  const patch = checkTriple('patch', options.patch ?? DEFAULT_PATCH, 'pt, py, px');
  const tokens = shape.map((size, dim) => size / patch[dim]!) as [number, number, number];
  if (!tokens.every(Number.isInteger)) {
    const wanted = `multiples of the patch ${show(patch)}`;
    throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'shape', got: show(shape), wanted });
  }
  const [T, Y, X] = tokens;
  const [pt, py, px] = patch;
  return { shape, patch, tokens: Object.freeze(tokens), length: T * Y * X, channels: pt * py * px * 3 };
}

/** The two places of the same numbers: a clip's frames, and its tokens from `at` on. */
interface Places {
  frames: Float32Array;
  tokens: Float32Array;
  at: number;
}

/** Copies a clip from one place to the other, in the order of its frames: px * 3 numbers lie side by side in both. */
function copy(
  { frames, tokens, at }: Places,
  { tokens: grid, patch, channels }: PatchGrid,
  to: 'tokens' | 'frames',
): void {
  const [T, Y, X] = grid;
  const [pt, py, px] = patch;
  const run = px * 3;
  const intoTokens = to === 'tokens';
  let inFrames = 0;
  for (let frame = 0; frame < T * pt; frame++) {
    for (let row = 0; row < Y * py; row++) {
      const token = (Math.floor(frame / pt) * Y + Math.floor(row / py)) * X;
      let inTokens = at + token * channels + ((frame % pt) * py + (row % py)) * run;
      for (let x = 0; x < X; x++, inTokens += channels) {
        for (let end = inFrames + run, i = inTokens; inFrames < end; inFrames++, i++) {
          if (intoTokens) tokens[i] = frames[inFrames]!;
          else frames[inFrames] = tokens[i]!;
        }
      }
    }
  }
}

/** Writes the tokens of a clip to `tokens` from `at` on. Nothing is checked. */
export function patchifyInto(tokens: Float32Array, at: number, frames: Float32Array, grid: PatchGrid): void {
  copy({ frames, tokens, at }, grid, 'tokens');
}

/**
 * The pixels of a clip as tokens.
 * @param options frames: float32 RGB, [frames, height, width, 3], in [-1, 1] (the values are only moved); shape and
 *   patch as for `patchGrid`
 * @returns float32 [L, C]; the C numbers of a token are its pixels in the order [pt, py, px, 3]
 * @throws VsaTypeError ERR_ARGUMENT, VsaRangeError ERR_SHAPE.
 */
export function patchify(options: PatchGridOptions & { frames: Float32Array }): Float32Array {
  checkOptions('options', options, ['frames', 'shape', 'patch']);
  const { frames, ...rest } = options;
  const grid = patchGrid(rest);
  checkFrames(frames, grid.shape);
  const tokens = new Float32Array(frames.length);
  patchifyInto(tokens, 0, frames, grid);
  return tokens;
}

/**
 * The clip whose tokens these are: the inverse of `patchify`.
 * @param options tokens: float32 [L, C]; shape: of the clip that comes out
 * @returns float32 RGB, [frames, height, width, 3]
 * @throws VsaTypeError ERR_ARGUMENT, VsaRangeError ERR_SHAPE.
 */
export function unpatchify(options: PatchGridOptions & { tokens: Float32Array }): Float32Array {
  checkOptions('options', options, ['tokens', 'shape', 'patch']);
  const { tokens, ...rest } = options;
  const grid = patchGrid(rest);
  const { length, channels } = grid;
  checkNumbers('tokens', tokens, length * channels, `[${length}, ${channels}]`);
  const frames = new Float32Array(tokens.length);
  copy({ frames, tokens, at: 0 }, grid, 'frames');
  return frames;
}
