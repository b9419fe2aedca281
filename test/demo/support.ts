/** What the demo's tests share: temporary folders, programs that may be missing, a terminal that remembers. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';

import type { DemoIo } from '../../lib/demo/progress.js';
import { VsaError, VsaRangeError, VsaTypeError } from '../../lib/errors.js';

/** A folder for one test file, removed after it. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'vsa-demo-test-'));
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

function runs(program: string, ...args: string[]): boolean {
  try {
    execFileSync(program, args, { stdio: 'ignore', timeout: 30_000 });
    return true;
  } catch {
    return false;
  }
}

/** Tests that need ffmpeg: skipped by name where there is none. */
export const testWithFfmpeg = runs('ffmpeg', '-version') ? test : test.skip;

/** The first browser there is, or undefined. */
export const browser = ['chromium', 'chromium-browser', 'google-chrome'].find((name) => runs(name, '--version'));
export const testWithBrowser = browser === undefined ? test.skip : test;

/** Makes a clip of ffmpeg's test pattern. */
export function makeVideo(path: string, { frames = 9, size = '64x48', extra = [] as string[] } = {}): string {
  const source = `testsrc2=size=${size}:rate=10`;
  const args = ['-v', 'error', '-y', '-f', 'lavfi', '-i', source, ...extra, '-frames:v', String(frames)];
  execFileSync('ffmpeg', [...args, '-c:v', 'ffv1', '-f', 'matroska', `file:${path}`], { stdio: 'ignore' });
  return path;
}

/** The error that `work` ends with; the test fails if there is none, or none of ours. */
export async function failureOf(work: () => unknown): Promise<VsaError | VsaTypeError | VsaRangeError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof VsaError || error instanceof VsaTypeError || error instanceof VsaRangeError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

/** An io whose output can be read afterwards. */
export function memoryIo(isTTY = false): { io: DemoIo; out: () => string; err: () => string } {
  const sink = () => {
    let text = '';
    const stream = new Writable({
      write(chunk: Buffer, _encoding, done) {
        text += chunk.toString();
        done();
      },
    });
    return { stream: Object.assign(stream, isTTY && { isTTY, columns: 100 }), text: () => text };
  };
  const [stdout, stderr] = [sink(), sink()];
  return { io: { stdout: stdout.stream, stderr: stderr.stream, isTTY }, out: stdout.text, err: stderr.text };
}

/** Deterministic bytes that look like noise. */
export function noiseBytes(count: number, seed: number): Uint8Array {
  const { imul } = Math; // looking up a global in a loop is slow under Jest
  const bytes = new Uint8Array(count);
  let state = seed >>> 0;
  for (let at = 0; at < count; at++) {
    state = (imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

/** Whether two arrays hold the same bits; Jest's own comparison of long arrays takes seconds. */
export function sameBits(a: Float32Array | Uint8Array, b: Float32Array | Uint8Array): boolean {
  const bytes = (x: typeof a) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  return Buffer.compare(bytes(a), bytes(b)) === 0;
}
