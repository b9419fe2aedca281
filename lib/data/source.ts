/** Where clips come from. */
import { show, VsaError, VsaTypeError } from '../errors.js';
import { checkInteger } from '../validate.js';
import { checkClipShape } from '../media/shape.js';
import type { ClipShape } from '../media/shape.js';

/** Clips by number. Implement it to train on clips of your own. */
export interface ClipSource {
  /** How many clips there are; Infinity for a generator without end. */
  readonly count: number;
  /** [frames, height, width] of every clip. */
  readonly shape: ClipShape;
  /**
   * Clip `index`, 0 <= index < count, always the same: float32 RGB in [-1, 1], [frames, height, width, 3]. May be called
   * again before it is done. The array is the caller's.
   */
  clip(index: number): Promise<Float32Array>;
  /** How another thread makes the same source. */
  describe(): SourceDescription;
  /** Ends what is under way; its clips fail. */
  close?(): Promise<void>;
}

/** What a worker makes a source from; `options` are copied to it (structured clone). */
export type SourceDescription =
  | { readonly kind: 'movingShapes'; readonly options: unknown }
  | { readonly kind: 'videoFolder'; readonly options: unknown }
  /** `file`: absolute path of a module whose default export makes the source: (options) => ClipSource or a promise. */
  | { readonly kind: 'module'; readonly file: string; readonly options?: unknown }
  /** A source that no other thread can make: it needs `prefetch: 0`. */
  | { readonly kind: 'local' };

/** @throws VsaTypeError ERR_ARGUMENT, VsaRangeError ERR_ARGUMENT or ERR_SHAPE for what is no source. */
export function checkClipSource(argument: string, value: unknown): ClipSource {
  const source = value as Partial<ClipSource> | null | undefined;
  if (typeof source !== 'object' || source === null || typeof source.clip !== 'function') {
    const wanted = 'a ClipSource { count, shape, clip(index), describe() }';
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted });
  }
  if (source.count !== Infinity) checkInteger(`${argument}.count`, source.count, 1, MAX_CLIPS);
  checkClipShape(source.shape);
  return source as ClipSource;
}

/** Most clips of a source that has an end: their order must fit into memory. */
export const MAX_CLIPS = 2 ** 28;

/** Position of a clip in its source. */
export function checkClipIndex(value: unknown, count: number): number {
  return checkInteger('index', value, 0, count === Infinity ? Number.MAX_SAFE_INTEGER : count - 1);
}

export function closedError(what: string): VsaError {
  return new VsaError({ code: 'ERR_DISPOSED', argument: what, got: 'a call after close()', wanted: 'one before it' });
}
