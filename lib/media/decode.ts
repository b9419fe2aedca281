/** Decodes a video file through ffmpeg's pipe. A file's name is only ever a file name, also where it looks like a URL. */
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Readable } from 'node:stream';

import { VsaError, show } from '../errors.js';
import { lastMessage, notStarted, startFfmpeg } from './ffmpeg.js';
import type { Exit, Ffmpeg } from './ffmpeg.js';
import { printable } from './text.js';

export interface DecodeOptions {
  /** Path of the video file. */
  path: string;
  /** Pixels of the frames that come out; the picture is scaled to cover them and cropped in the middle. */
  width: number;
  height: number;
  /** How many frames to decode. Infinity: all there are, at least one. */
  frames: number;
  /** Frames per second, a whole number: frame n is what is shown at n / fps seconds. Default: the file's own frames. */
  fps?: number;
  /** Number of the first frame. Other than 0 only with `fps`. Default 0. */
  start?: number;
  /** Ends ffmpeg, and the promise with ERR_VIDEO. */
  signal?: AbortSignal;
  /** Called for every frame in order with [height, width, 3] bytes, valid during the call only. */
  onFrame: (rgb: Uint8Array, index: number) => void;
  /** What error messages advise. */
  advice?: Advice;
}

export interface Advice {
  withoutFfmpeg: string;
  /** For a video of `count` frames, too few. */
  tooShort: (count: number) => string;
}

const ADVICE: Advice = {
  withoutFfmpeg: 'install ffmpeg, or name it in VSA_FFMPEG',
  tooShort: () => 'pass a longer video, or fewer frames',
};

/**
 * ffmpeg seeks to a whole second and no nearer than this many before the first frame. Whole seconds
 * leave every frame of the file where it was between the ticks of `fps`, so a clip holds the same pictures as when the
 * file is decoded from its start; what is shown before is known even where frames are up to a second long.
 */
const SEEK_MARGIN_S = 2;

/**
 * Decodes consecutive frames of a video as RGB. Reading waits for `onFrame`, so at most a frame and a pipe's worth of
 * pixels are in memory.
 * @throws VsaError ERR_FILE if the file cannot be read; ERR_VIDEO if ffmpeg is missing, fails or is killed, or the file
 *   is no video, has no video stream, or has fewer frames.
 */
export async function decodeVideo(options: DecodeOptions): Promise<void> {
  const { path, width, height, frames, signal } = options;
  const all = frames === Infinity;
  await checkReadable(path);
  const { args, skipped } = ffmpegArguments(options);
  const ffmpeg = startFfmpeg(args, 'ignore', 'pipe');
  const stop = (): void => void ffmpeg.child.kill('SIGKILL');
  if (signal?.aborted === true) stop();
  signal?.addEventListener('abort', stop);

  const stdout = ffmpeg.child.stdout as Readable;
  const frame = new Uint8Array(width * height * 3);
  let filled = 0;
  let read = 0; // whole frames, the skipped ones among them
  let drained = false;
  try {
    reading: for await (const chunk of stdout as AsyncIterable<Buffer>) {
      for (let from = 0; from < chunk.length;) {
        const part = chunk.subarray(from, from + frame.length - filled);
        frame.set(part, filled);
        filled += part.length;
        from += part.length;
        if (filled < frame.length) continue;
        if (read >= skipped) options.onFrame(frame, read - skipped);
        read++;
        filled = 0;
        if (read - skipped === frames) break reading;
      }
    }
    drained = read - skipped < frames;
  } finally {
    // All frames are here, or onFrame threw: ffmpeg has no more to say. Drained, it ends by itself, with its own code.
    if (!drained) stop();
    stdout.destroy();
    signal?.removeEventListener('abort', stop);
  }
  const end = await ffmpeg.ended;
  const count = Math.max(0, read - skipped);
  const complete = all ? count > 0 && end.code === 0 : count === frames;
  if (!complete) throw failure(options, ffmpeg, end, count);
}

/** Arguments, and how many frames come out before those that are wanted. */
function ffmpegArguments(options: DecodeOptions): { args: string[]; skipped: number } {
  const { path, width, height, frames, fps, start = 0 } = options;
  const second = fps === undefined ? 0 : Math.max(0, Math.floor(start / fps) - SEEK_MARGIN_S);
  const skipped = start - second * (fps ?? 0);
  const rate = fps === undefined ? '' : `fps=${fps}:start_time=0,`;
  const args = [
    // A playlist may name other files of this machine, never the network.
    ...['-protocol_whitelist', 'file,pipe'],
    ...(second === 0 ? [] : ['-ss', String(second)]),
    ...['-i', `file:${path}`],
    ...['-map', '0:V:0'], // V: no cover pictures
    ...(frames === Infinity ? [] : ['-frames:v', String(skipped + frames)]),
    ...[
      '-vf',
      `${rate}scale=${width}:${height}:force_original_aspect_ratio=increase:flags=area,crop=${width}:${height}`,
    ],
    ...['-f', 'rawvideo', '-pix_fmt', 'rgb24', 'pipe:1'],
  ];
  return { args, skipped };
}

async function checkReadable(path: string): Promise<void> {
  const unreadable = (reason: string, cause?: unknown): VsaError =>
    new VsaError({
      ...{ code: 'ERR_FILE', argument: 'video', got: `${show(path)}, which ${reason}`, wanted: 'a video file' },
      cause,
    });
  try {
    if (!(await stat(path)).isFile()) throw unreadable('is not a regular file');
    await access(path, constants.R_OK);
  } catch (cause) {
    if (cause instanceof VsaError) throw cause;
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw unreadable(missing ? 'does not exist' : 'cannot be read', cause);
  }
}

/** The sentence for a video that gave too few frames: who is at fault, and what to do. */
function failure(options: DecodeOptions, { command, messages }: Ffmpeg, end: Exit, count: number): VsaError {
  const { path, frames, start = 0, advice = ADVICE } = options;
  const name = show(printable(basename(path)));
  const video = (got: string, wanted: string, cause?: unknown) =>
    new VsaError({ code: 'ERR_VIDEO', argument: 'video', got, wanted, cause });

  if (end.error !== undefined) {
    const why = notStarted(command, end.error);
    return video(`${name}, but ${why}`, `ffmpeg to decode it: ${advice.withoutFfmpeg}`, end.error);
  }
  const of = frames === Infinity ? '' : ` of ${frames}`;
  if (end.signal !== null) {
    return video(`${name}, but ffmpeg was ended by ${end.signal} after ${count}${of} frames`, 'ffmpeg to finish');
  }
  const said = messages();
  if (/matches no streams|does not contain any stream/.test(said)) {
    return video(`${name}, which has no video stream`, 'a file with a video stream');
  }
  const last = lastMessage(said);
  if (count === 0 && start > 0 && last === '') {
    return video(`${name}, which has no frame ${start}`, `at least ${start + frames} frames`);
  }
  if (count === 0) {
    const reason = last || `ffmpeg ended with code ${end.code} and no message`;
    return video(`${name}, which does not decode: ${reason}`, 'a video that ffmpeg can decode');
  }
  const failed = end.code === 0 ? '' : ` (ffmpeg ended with code ${end.code}: ${last})`;
  const wanted =
    frames === Infinity ? 'a video that decodes to its end' : `at least ${frames}: ${advice.tooShort(count)}`;
  return video(`${name}, which has ${count} frames${failed}`, wanted);
}
