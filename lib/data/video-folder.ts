/** The videos of a folder as clips, decoded through ffmpeg. */
import { readdir } from 'node:fs/promises';
import { extname, join, resolve } from 'node:path';
import { VsaError, show } from '../errors.js';
import { checkPath, systemError } from '../files/io.js';
import { decodeVideo } from '../media/decode.js';
import { checkTriple, FROM_BYTE } from '../media/shape.js';
import type { ClipShape } from '../media/shape.js';
import { printable } from '../media/text.js';
import { DEFAULT_FPS } from '../media/writing.js';
import { checkChoice, checkInteger, checkOptions } from '../validate.js';
import { checkClipIndex, closedError } from './source.js';
import type { ClipSource } from './source.js';

export interface VideoFolderOptions {
  /** Frames of a clip. Default 16. */
  frames?: number;
  /** Pixels; pictures are scaled to cover them and cropped in the middle. Default 64. */
  height?: number;
  width?: number;
  /** Frames per second that the videos are read at, a whole number from 1 to 240, whatever their own rate. Default 16. */
  fps?: number;
  /** Frames from the start of a clip to that of the next. Default `frames`: clips do not overlap. */
  stride?: number;
  /** What becomes of a file that does not decode, or is too short for one clip. Default 'throw'. */
  onError?: 'throw' | 'skip';
  /** Bytes of decoded clips to keep, so that later epochs do not start ffmpeg. Default 256 MiB. */
  cacheBytes?: number;
}

export interface FolderVideo {
  /** Name in the folder. */
  readonly name: string;
  /** Frames at the folder's `fps`. */
  readonly frames: number;
  readonly clips: number;
}

export interface SkippedVideo {
  readonly name: string;
  /** ERR_VIDEO or ERR_FILE */
  readonly error: VsaError;
}

/** Names of files that are taken for videos. */
const EXTENSIONS = new Set(
  'mp4 m4v mov mkv webm avi mpg mpeg ts mts m2ts ogv wmv flv 3gp gif y4m'.split(' ').map((name) => `.${name}`),
);

interface Settings {
  folder: string;
  shape: ClipShape;
  fps: number;
  stride: number;
  cacheBytes: number;
  videos: readonly FolderVideo[];
}

/** Made by `videoFolder`. */
export class VideoFolder implements ClipSource {
  /** All clips of all videos: those of the first video in order, then those of the second. */
  readonly count: number;
  readonly shape: ClipShape;
  /** Ordered by name (code units). */
  readonly videos: readonly FolderVideo[];
  /** What `onError: 'skip'` left out. */
  readonly skipped: readonly SkippedVideo[];
  readonly #settings: Settings;
  readonly #cache = new Map<number, Uint8Array>();
  readonly #closing = new AbortController();
  #cached = 0;

  /** @internal Use `videoFolder`. */
  constructor(settings: Settings, skipped: readonly SkippedVideo[] = []) {
    this.#settings = settings;
    this.shape = settings.shape;
    this.videos = settings.videos;
    this.skipped = skipped;
    this.count = settings.videos.reduce((sum, video) => sum + video.clips, 0);
  }

  /**
   * Decodes a clip: frames k * stride to k * stride + frames of its video, frame n being what is shown at n / fps.
   * @returns float32 RGB in [-1, 1], [frames, height, width, 3]
   * @throws VsaRangeError ERR_ARGUMENT for an index that is not there; VsaError ERR_VIDEO or ERR_FILE if the file has
   *   changed or ffmpeg fails, ERR_DISPOSED after `close`.
   */
  async clip(index: number): Promise<Float32Array> {
    let at = checkClipIndex(index, this.count); // then among the clips of its video
    const rgb = this.#cache.get(index);
    if (rgb !== undefined) return toFloats(rgb);
    let video = 0;
    for (; at >= this.videos[video]!.clips; video++) at -= this.videos[video]!.clips;
    const decoded = await this.#decode(this.videos[video]!.name, at * this.#settings.stride);
    // Of more clips than fit the first to come stay: shuffled epochs would push out all of them before they come again.
    if (this.#cached + decoded.length <= this.#settings.cacheBytes && !this.#cache.has(index)) {
      this.#cache.set(index, decoded);
      this.#cached += decoded.length;
    }
    return toFloats(decoded);
  }

  async #decode(name: string, start: number): Promise<Uint8Array> {
    const { folder, shape, fps } = this.#settings;
    const { signal } = this.#closing;
    const [frames, height, width] = shape;
    const rgb = new Uint8Array(frames * height * width * 3);
    const onFrame = (frame: Uint8Array, at: number): void => rgb.set(frame, at * frame.length);
    try {
      if (signal.aborted) throw closedError('VideoFolder');
      await decodeVideo({ path: join(folder, name), frames, height, width, fps, start, signal, onFrame });
    } catch (error) {
      throw signal.aborted ? closedError('VideoFolder') : error;
    }
    return rgb;
  }

  describe(): { readonly kind: 'videoFolder'; readonly options: Settings } {
    return { kind: 'videoFolder', options: this.#settings };
  }

  /** Ends every ffmpeg that is under way. */
  close(): Promise<void> {
    this.#closing.abort();
    this.#cache.clear();
    return Promise.resolve();
  }
}

function toFloats(rgb: Uint8Array): Float32Array {
  const values = new Float32Array(rgb.length);
  for (let i = 0; i < rgb.length; i++) values[i] = FROM_BYTE[rgb[i]!]!;
  return values;
}

/**
 * The videos of a folder (not of folders in it) as clips. Every video is decoded once to count its frames; files whose
 * names do not end like a video's (.mp4, .mkv, .webm, .mov, .avi, .gif and the like), or start with a dot, are ignored.
 * ffmpeg must be installed.
 * @throws VsaTypeError, VsaRangeError ERR_ARGUMENT or ERR_SHAPE; VsaError ERR_FILE if the folder cannot be read, ERR_VIDEO
 *   if it holds no video, if none is left, or (`onError: 'throw'`) if one does not decode or is too short: by its name.
 */
export async function videoFolder(path: string, options: VideoFolderOptions = {}): Promise<VideoFolder> {
  checkPath(path);
  const known = ['frames', 'height', 'width', 'fps', 'stride', 'onError', 'cacheBytes'];
  checkOptions('options', options, known);
  const { frames = 16, height = 64, width = 64 } = options;
  const shape = checkTriple('frames, height, width', [frames, height, width], 'frames, height, width');
  const fps = checkInteger('fps', options.fps ?? DEFAULT_FPS, 1, 240);
  const stride = checkInteger('stride', options.stride ?? frames, 1);
  const cacheBytes = checkInteger('cacheBytes', options.cacheBytes ?? 2 ** 28, 0);
  const onError = checkChoice('onError', options.onError ?? 'throw', ['throw', 'skip']);

  const folder = resolve(path);
  const videos: FolderVideo[] = [];
  const skipped: SkippedVideo[] = [];
  const names = await videoNames(folder);
  if (names.length === 0)
    throw empty(path, 'no video in it', `files named ${[...EXTENSIONS].slice(0, 4).join(', ')} ...`);
  for (const name of names) {
    try {
      const count = await countFrames(join(folder, name), frames, fps);
      videos.push({ name, frames: count, clips: 1 + Math.floor((count - frames) / stride) });
    } catch (error) {
      const withoutFfmpeg = error instanceof VsaError && error.code === 'ERR_VIDEO' && error.cause !== undefined;
      if (onError === 'throw' || !(error instanceof VsaError) || withoutFfmpeg) throw error; // not the file's fault
      skipped.push({ name, error });
    }
  }
  if (videos.length === 0) throw empty(path, `no video that can be used; ${skipped[0]!.error.message}`, 'one at least');
  return new VideoFolder({ folder, shape, fps, stride, cacheBytes, videos }, skipped);
}

function empty(path: string, got: string, wanted: string): VsaError {
  return new VsaError({ code: 'ERR_VIDEO', argument: 'path', got: `${show(printable(path))} with ${got}`, wanted });
}

async function videoNames(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries
      .filter((entry) => !entry.isDirectory() && !entry.name.startsWith('.'))
      .map((entry) => entry.name)
      .filter((name) => EXTENSIONS.has(extname(name).toLowerCase()))
      .sort((a, b) => (a < b ? -1 : 1)); // by code units: the same in every locale
  } catch (cause) {
    throw systemError(folder, 'a folder of videos', cause);
  }
}

/** @throws VsaError ERR_VIDEO for a video that does not decode, or has fewer than `least` frames. */
async function countFrames(path: string, least: number, fps: number): Promise<number> {
  let count = 0;
  await decodeVideo({ path, width: 2, height: 2, frames: Infinity, fps, onFrame: () => count++ });
  if (count >= least) return count;
  const got = `${show(printable(path))}, which has ${count} frames at ${fps} a second`;
  throw new VsaError({ code: 'ERR_VIDEO', argument: 'video', got, wanted: `at least ${least}, one clip` });
}
