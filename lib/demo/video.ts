/** Decodes the demo's video; its errors name the demo's own options. */
import { decodeVideo as decode } from '../media/decode.js';
import type { DecodeOptions } from '../media/decode.js';
import { cellsIn } from './cells.js';

/**
 * Decodes the first `frames` frames of a video as RGB.
 * @throws VsaError ERR_FILE or ERR_VIDEO, see lib/media/decode.ts.
 */
export function decodeVideo(options: Omit<DecodeOptions, 'advice'>): Promise<void> {
  return decode({
    ...options,
    advice: {
      withoutFfmpeg: 'install ffmpeg, name it in VSA_FFMPEG, or pass --tokens',
      tooShort: (count) => `pass a longer video, or a --grid of at most ${cellsIn(count)} in time`,
    },
  });
}
