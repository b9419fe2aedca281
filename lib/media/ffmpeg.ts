/**
 * ffmpeg, a program of its own: found on PATH (VSA_FFMPEG names another), started without a shell, its messages kept for
 * an error's sentence.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess, StdioOptions } from 'node:child_process';
import { show } from '../errors.js';
import { printable } from './text.js';

/** Bytes of ffmpeg's messages that are kept. */
const KEPT_MESSAGES = 4096;

/** How the program ended. */
export interface Exit {
  /** Set when it could not be started. */
  error?: NodeJS.ErrnoException;
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface Ffmpeg {
  /** What was started, for messages. */
  readonly command: string;
  readonly child: ChildProcess;
  /** Never rejects. */
  readonly ended: Promise<Exit>;
  /** The end of what it wrote to stderr so far. */
  readonly messages: () => string;
}

/** Starts ffmpeg. `stdin` and `stdout` are 'pipe' or 'ignore'; the caller reads, writes and ends it. */
export function startFfmpeg(args: readonly string[], stdin: 'pipe' | 'ignore', stdout: 'pipe' | 'ignore'): Ffmpeg {
  const command = process.env['VSA_FFMPEG'] || 'ffmpeg';
  const stdio: StdioOptions = [stdin, stdout, 'pipe'];
  const child = spawn(command, ['-hide_banner', '-nostdin', '-loglevel', 'error', ...args], { stdio });
  let messages = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    messages = (messages + text).slice(-KEPT_MESSAGES);
  });
  return { command, child, ended: exitOf(child), messages: () => messages };
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

/** Why it could not be started: "'ffmpeg' was not found". */
export function notStarted(command: string, error: NodeJS.ErrnoException): string {
  const why = error.code === 'ENOENT' ? 'was not found' : `could not be started (${error.code})`;
  return `${show(command)} ${why}`;
}

/** The last line that ffmpeg wrote, without control characters: names inside a video must not steer a terminal. */
export function lastMessage(messages: string): string {
  const lines = messages.split(/[\r\n]+/).filter((line) => line.trim() !== '');
  return printable((lines.at(-1) ?? '').trim());
}
