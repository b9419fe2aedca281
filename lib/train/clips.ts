/** The clips that a run trains on. */

import { ClipLoader, type ClipSource, type LoaderPosition, MovingShapes, videoFolder } from '../data/index.js';
import type { TrainSettings } from './settings.js';

/** Frames per second that videos are read at: Wan2.1's. */
const FPS = 16;

export interface Clips {
  readonly loader: ClipLoader;
  close(): Promise<void>;
}

function sourceOf({ data, video: shape, seed }: TrainSettings): Promise<ClipSource> {
  const [frames, height, width] = shape;
  if (data === 'shapes') return Promise.resolve(new MovingShapes({ seed, frames, height, width }));
  return videoFolder(data, { frames, height, width, fps: FPS });
}

/**
 * Batches of a run's clips from a position on; undefined is the beginning.
 *
 * @throws VsaError ERR_VIDEO, ERR_FILE for a folder without videos that decode.
 */
export async function openClips(settings: TrainSettings, position: LoaderPosition | undefined): Promise<Clips> {
  const { batch: batchSize, patch, seed } = settings;
  const source = await sourceOf(settings);
  const loader = new ClipLoader({ source, batchSize, patch, seed, ...(position !== undefined && { position }) });
  return {
    loader,
    async close() {
      await loader.close();
      await source.close?.();
    },
  };
}
