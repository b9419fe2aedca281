/** What the writers of clips share: their options. */
import { show, VsaRangeError } from '../errors.js';
import { checkInteger, checkOptions } from '../validate.js';
import { checkClipShape, checkFrames } from './shape.js';
import type { ClipShape } from './shape.js';

export interface WriteClipOptions {
  /** Float32 RGB in [-1, 1], [frames, height, width, 3]. What is beyond is clamped; NaN is drawn black. */
  frames: Float32Array;
  /** [frames, height, width] */
  shape: ClipShape;
  /** Frames per second, from 0.01 to 50. Default 16, as Wan2.1. */
  fps?: number;
  /** A pixel becomes scale x scale of them, to see small clips. Default 1. */
  scale?: number;
}

/** Most pixels along a side of a picture that is written: a GIF's limit. */
const MAX_SIDE = 65535;
/** GIF counts hundredths of a second, and browsers slow down frames of fewer than two. */
const MAX_FPS = 50;
export const DEFAULT_FPS = 16;

export function checkWriteOptions(options: WriteClipOptions): Required<WriteClipOptions> {
  checkOptions('options', options, ['frames', 'shape', 'fps', 'scale']);
  const shape = checkClipShape(options.shape);
  const frames = checkFrames(options.frames, shape);
  const most = Math.max(1, Math.floor(MAX_SIDE / Math.max(shape[1], shape[2])));
  const scale = checkInteger('scale', options.scale ?? 1, 1, most);
  const fps: unknown = options.fps ?? DEFAULT_FPS;
  if (Math.max(shape[1], shape[2]) > MAX_SIDE) {
    const wanted = `at most ${MAX_SIDE} pixels a side`;
    throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'shape', got: show(shape), wanted });
  }
  if (typeof fps === 'number' && fps >= 0.01 && fps <= MAX_FPS) return { frames, shape, fps, scale };
  const wanted = `a number from 0.01 to ${MAX_FPS}`;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'fps', got: show(fps), wanted });
}
