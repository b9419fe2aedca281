/**
 * Decodes a video file through ffmpeg's pipe. ffmpeg is a program of its own, found on PATH (VSA_FFMPEG names another),
 * started without a shell; a file's name is only ever a file name, also where it looks like an option or a URL.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { basename } from 'node:path';

import { VsaError, show } from '../errors.js';
import { cellsIn } from './cells.js';
import { printable } from './text.js';

export interface DecodeOptions {
  /** Path of the video file. */
  path: string;
  /** Pixels of the frames that come out; the picture is scaled to cover them and cropped in the middle. */
  width: number;
  height: number;
  /** How many frames to decode from the start. */
  frames: number;
  /** Called for every frame in order with [height, width, 3] bytes, valid during the call only. */
  onFrame: (rgb: Uint8Array, index: number) => void;
}

const WITHOUT_FFMPEG = 'install ffmpeg, name it in VSA_FFMPEG, or pass --tokens';
/** Bytes of ffmpeg's messages that are kept for an error's sentence. */
const KEPT_MESSAGES = 4096;

/**
 * Decodes the first `frames` frames of a video as RGB. Reading waits for `onFrame`, so at most a frame and a pipe's
 * worth of pixels are in memory.
 * @throws VsaError ERR_FILE if the file cannot be read; ERR_VIDEO if ffmpeg is missing, fails or is killed, or the file
 *   is no video, has no video stream, or has fewer frames.
 */
export async function decodeVideo(options: DecodeOptions): Promise<void> {
  const { path, width, height, frames, onFrame } = options;
  await checkReadable(path);
  const command = process.env['VSA_FFMPEG'] || 'ffmpeg';
  const child = spawn(command, ffmpegArguments(options), { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = exitOf(child);
  let messages = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    messages = (messages + text).slice(-KEPT_MESSAGES);
  });

  const frame = new Uint8Array(width * height * 3);
  let filled = 0;
  let count = 0;
  let drained = false;
  try {
    reading: for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
      for (let from = 0; from < chunk.length;) {
        const part = chunk.subarray(from, from + frame.length - filled);
        frame.set(part, filled);
        filled += part.length;
        from += part.length;
        if (filled < frame.length) continue;
        onFrame(frame, count++);
        filled = 0;
        if (count === frames) break reading;
      }
    }
    drained = count < frames;
  } finally {
    // All frames are here, or onFrame threw: ffmpeg has no more to say. Drained, it ends by itself, with its own code.
    if (!drained) child.kill('SIGKILL');
    child.stdout.destroy();
  }
  const end = await ended;
  if (count < frames) throw failure({ path, command, end, messages, count, frames });
}

function ffmpegArguments({ path, width, height, frames }: DecodeOptions): string[] {
  return [
    ...['-hide_banner', '-nostdin', '-loglevel', 'error'],
    // A playlist may name other files of this machine, never the network.
    ...['-protocol_whitelist', 'file,pipe', '-i', `file:${path}`],
    ...['-map', '0:V:0', '-frames:v', String(frames)], // V: no cover pictures
    ...['-vf', `scale=${width}:${height}:force_original_aspect_ratio=increase:flags=area,crop=${width}:${height}`],
    ...['-f', 'rawvideo', '-pix_fmt', 'rgb24', 'pipe:1'],
  ];
}

async function checkReadable(path: string): Promise<void> {
  try {
    const { isFile } = await stat(path).then((s) => ({ isFile: s.isFile() }));
    if (!isFile) {
      throw new VsaError({
        code: 'ERR_FILE',
        argument: 'video',
        got: `${show(path)}, which is not a regular file`,
        wanted: 'a video file',
      });
    }
    await access(path, constants.R_OK);
  } catch (cause) {
    if (cause instanceof VsaError) throw cause;
    const reason = (cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'which does not exist' : 'which cannot be read';
    throw new VsaError({
      code: 'ERR_FILE',
      argument: 'video',
      got: `${show(path)}, ${reason}`,
      wanted: 'a video file',
      cause,
    });
  }
}

interface Exit {
  /** Set when the program could not be started. */
  error?: NodeJS.ErrnoException;
  code: number | null;
  signal: NodeJS.Signals | null;
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    let error: NodeJS.ErrnoException | undefined;
    child.on('error', (cause: NodeJS.ErrnoException) => {
      error = cause;
      if (child.pid === undefined) resolve({ error, code: null, signal: null });
    });
    child.on('close', (code, signal) => resolve({ ...(error && { error }), code, signal }));
  });
}

interface Failure {
  path: string;
  command: string;
  end: Exit;
  messages: string;
  count: number;
  frames: number;
}

/** The sentence for a video that gave too few frames: who is at fault, and what to do. */
function failure({ path, command, end, messages, count, frames }: Failure): VsaError {
  const name = show(printable(basename(path)));
  const video = (got: string, wanted: string, cause?: unknown) =>
    new VsaError({ code: 'ERR_VIDEO', argument: 'video', got, wanted, cause });

  if (end.error !== undefined) {
    const why = end.error.code === 'ENOENT' ? 'was not found' : `could not be started (${end.error.code})`;
    return video(`${name}, but ${show(command)} ${why}`, `ffmpeg to decode it: ${WITHOUT_FFMPEG}`, end.error);
  }
  if (end.signal !== null) {
    return video(
      `${name}, but ffmpeg was ended by ${end.signal} after ${count} of ${frames} frames`,
      'ffmpeg to finish',
    );
  }
  const said = lastMessage(messages);
  if (/matches no streams|does not contain any stream/.test(messages)) {
    return video(`${name}, which has no video stream`, 'a file with a video stream');
  }
  if (count === 0) {
    const reason = said || `ffmpeg ended with code ${end.code} and no message`;
    return video(`${name}, which does not decode: ${reason}`, 'a video that ffmpeg can decode');
  }
  const failed = end.code === 0 ? '' : ` (ffmpeg ended with code ${end.code}: ${said})`;
  return video(
    `${name}, which has ${count} frames${failed}`,
    `at least ${frames}: pass a longer video, or a --grid of at most ${cellsIn(count)} in time`,
  );
}

/** The last line that ffmpeg wrote, without control characters: names inside a video must not steer a terminal. */
function lastMessage(messages: string): string {
  const lines = messages.split(/[\r\n]+/).filter((line) => line.trim() !== '');
  return printable((lines.at(-1) ?? '').trim());
}
