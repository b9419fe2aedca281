/** A batch of clips as tokens: what the main thread and the worker both do. */
import { availableParallelism } from 'node:os';
import { checkNumbers } from '../media/shape.js';
import { patchifyInto } from '../media/patches.js';
import type { PatchGrid } from '../media/patches.js';
import type { ClipSource } from './source.js';

/** Clips of a batch that are made at once: a video's waits for ffmpeg. */
const AT_ONCE = Math.min(4, availableParallelism());

/**
 * @param clips their numbers, B of them
 * @returns float32 [B, L, C]
 * @throws what the first of the clips (in their order) that fails throws; VsaTypeError ERR_ARGUMENT or VsaRangeError
 *   ERR_SHAPE for a source that gives something else than its frames.
 */
export async function makeBatch(source: ClipSource, clips: readonly number[], grid: PatchGrid): Promise<Float32Array> {
  const size = grid.length * grid.channels;
  const tokens = new Float32Array(clips.length * size);
  const one = async (at: number): Promise<void> => {
    const index = clips[at]!;
    const frames = await source.clip(index);
    checkNumbers(`clip ${index}`, frames, size, `[${grid.shape.join(', ')}, 3]`);
    patchifyInto(tokens, at * size, frames, grid);
  };
  for (let from = 0; from < clips.length; from += AT_ONCE) {
    const places = Array.from({ length: Math.min(AT_ONCE, clips.length - from) }, (_, i) => from + i);
    const results = await Promise.allSettled(places.map(one));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }
  return tokens;
}
