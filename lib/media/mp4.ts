/** Clips as MP4, through ffmpeg. */
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';

import { VsaError, VsaTypeError, show } from '../errors.js';
import { writeFileAtomic } from '../files/atomic.js';
import { lastMessage, notStarted, startFfmpeg } from './ffmpeg.js';
import type { Exit, Ffmpeg } from './ffmpeg.js';
import { writeGif } from './gif.js';
import { framePixels } from './shape.js';
import { checkWriteOptions } from './writing.js';
import type { WriteClipOptions } from './writing.js';

/**
 * Writes a clip as an MP4 that browsers play: H.264 of good quality (libx264, 4:2:0, crf 16). A side of an odd number
 * of pixels gets one more, a copy of the last row or column. ffmpeg must be installed.
 * @throws VsaTypeError ERR_ARGUMENT, VsaRangeError ERR_SHAPE or ERR_ARGUMENT; VsaError ERR_VIDEO if ffmpeg is missing or
 *   fails, ERR_FILE if the file cannot be written. A previous file is then as it was.
 */
export async function writeMp4(path: string, options: WriteClipOptions): Promise<void> {
  const checked = checkWriteOptions(options);
  // ffmpeg goes back to the file's head to put its index there, so it writes to a file and not to a pipe.
  const folder = await mkdtemp(join(tmpdir(), 'vsa-mp4-'));
  try {
    const file = join(folder, 'clip.mp4');
    await encode(file, checked);
    await writeFileAtomic(path, createReadStream(file) as AsyncIterable<Uint8Array>);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Writes a clip as what the file's name says: .gif (`writeGif`) or .mp4 (`writeMp4`).
 * @throws VsaTypeError ERR_ARGUMENT for another name, and what the two throw.
 */
export function writeClip(path: string, options: WriteClipOptions): Promise<void> {
  if (typeof path === 'string' && /\.gif$/i.test(path)) return writeGif(path, options);
  if (typeof path === 'string' && /\.mp4$/i.test(path)) return writeMp4(path, options);
  const details = { argument: 'path', got: show(path), wanted: 'a file name that ends in .gif or .mp4' };
  return Promise.reject(new VsaTypeError({ code: 'ERR_ARGUMENT', ...details }));
}

async function encode(file: string, { frames, shape, fps, scale }: Required<WriteClipOptions>): Promise<void> {
  const [count, H, W] = shape;
  const even = (size: number): number => size + (size % 2);
  const [height, width] = [even(H * scale), even(W * scale)];
  const ffmpeg = startFfmpeg(
    [
      ...['-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', `${width}x${height}`, '-r', String(fps), '-i', 'pipe:0'],
      ...['-c:v', 'libx264', '-crf', '16', '-pix_fmt', 'yuv420p', '-movflags', '+faststart'],
      ...['-fflags', '+bitexact', '-f', 'mp4', `file:${file}`],
    ],
    'pipe',
    'ignore',
  );
  const stdin = ffmpeg.child.stdin as Writable;
  stdin.on('error', () => undefined); // a closed pipe: the program's end says why
  for (let frame = 0; frame < count && stdin.writable; frame++) {
    const rgb = framePixels({ frames, shape, scale, channels: 3, height, width }, frame);
    if (!stdin.write(rgb)) await Promise.race([new Promise((resume) => stdin.once('drain', resume)), ffmpeg.ended]);
  }
  stdin.end();
  const end = await ffmpeg.ended;
  if (end.code !== 0) throw failure(ffmpeg, end);
}

function failure({ command, messages }: Ffmpeg, end: Exit): VsaError {
  const error = (got: string, wanted: string): VsaError =>
    new VsaError({ code: 'ERR_VIDEO', argument: 'path', got, wanted, cause: end.error });
  if (end.error !== undefined) {
    const wanted = 'ffmpeg to write an MP4: install ffmpeg, name it in VSA_FFMPEG, or write a .gif';
    return error(notStarted(command, end.error), wanted);
  }
  if (end.signal !== null) return error(`ffmpeg ended by ${end.signal}`, 'ffmpeg to finish');
  const said = lastMessage(messages()) || 'no message';
  return error(
    `ffmpeg ended with code ${end.code}: ${said}`,
    'an ffmpeg that encodes H.264 (libx264), or write a .gif',
  );
}
