/** A clip, from wherever it comes: patch tokens, and pictures of its latent frames where pixels are at hand. */
import { basename } from 'node:path';

import { CellBuilder, framesFor, TOKEN_PIXELS } from './cells.js';
import type { TokenShape } from './cells.js';
import { checkSize } from './options.js';
import type { DemoSettings } from './options.js';
import { picturesOfTokens, FramePictures } from './pictures.js';
import type { Picture } from './pictures.js';
import type { Progress } from './progress.js';
import { SyntheticClip } from './synthetic.js';
import { printable } from '../media/text.js';
import { readTokens } from './tokens-file.js';
import { decodeVideo } from './video.js';

export interface Clip {
  readonly kind: 'video' | 'synthetic' | 'tokens';
  /** What a person calls it: a file's name without its path. */
  readonly sourceName: string;
  readonly shape: TokenShape;
  /** uint8 [T, Y, X, 64] */
  readonly tokens: Uint8Array;
  readonly frames: number;
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  /** One for each latent frame. */
  readonly pictures: readonly Picture[];
}

/**
 * Loads the clip that the settings name.
 * @throws VsaError ERR_FILE, ERR_VIDEO, ERR_FILE_FORMAT; VsaRangeError ERR_GRID for tokens of too large a grid.
 */
export async function loadClip(settings: DemoSettings, progress: Progress): Promise<Clip> {
  const { source, heads, headDim } = settings;
  if (source.kind === 'tokens') {
    const check = (shape: TokenShape) => checkSize('tokens', shape, heads, headDim);
    const { tokens, shape, sourceName } = await readTokens(source.path, check);
    const [T, Y, X] = shape;
    return {
      ...{ kind: source.kind, sourceName, shape, tokens, frames: framesFor(T) },
      ...{ width: X * TOKEN_PIXELS, height: Y * TOKEN_PIXELS, pictures: picturesOfTokens(tokens, shape) },
    };
  }

  const builder = new CellBuilder(source.shape);
  const { width, height, frames } = builder;
  const framePictures = new FramePictures(width, height);
  const onFrame = (rgb: Uint8Array, index: number) => {
    builder.push(rgb);
    framePictures.push(rgb, index);
    progress.advance(1 / frames);
  };
  if (source.kind === 'video') {
    await decodeVideo({ path: source.path, width, height, frames, onFrame });
  } else {
    const clip = new SyntheticClip(width, height, frames);
    const rgb = new Uint8Array(width * height * 3);
    for (let index = 0; index < frames; index++) {
      onFrame(clip.frame(index, rgb), index);
      if (index % 8 === 0) await new Promise((resume) => setImmediate(resume)); // lets progress be drawn
    }
  }
  const sourceName = source.kind === 'video' ? printable(basename(source.path)) : SyntheticClip.sourceName;
  const { shape, tokens } = builder;
  return { kind: source.kind, sourceName, shape, tokens, frames, width, height, pictures: framePictures.pictures };
}
