/** What test/demo/video.test.ts does not show of decodeVideo: rates, starts, all frames, an end by signal. */
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { decodeVideo } from '../../lib/media/decode.js';
import type { DecodeOptions } from '../../lib/media/decode.js';
import { failureOf, makeVideo, temporaryFolder, testWithFfmpeg } from '../demo/support.js';

const folder = temporaryFolder();
const SIZE = { width: 16, height: 12 };

async function frames(options: Partial<DecodeOptions> & { path: string }): Promise<Buffer[]> {
  const list: Buffer[] = [];
  await decodeVideo({ ...SIZE, frames: Infinity, ...options, onFrame: (rgb) => list.push(Buffer.from(rgb)) });
  return list;
}

const same = (a: Buffer[], b: Buffer[]): boolean => Buffer.concat(a).equals(Buffer.concat(b));

/** Waits for a value that is neither false nor 0. */
async function until<T>(value: () => T | false | 0): Promise<T> {
  for (;;) {
    const now = value();
    if (now !== false && now !== 0) return now;
    await new Promise((resume) => setTimeout(resume, 5));
  }
}

testWithFfmpeg('all frames, and those of another rate', async () => {
  const path = makeVideo(join(folder, 'ten.mkv'), { frames: 20 }); // 10 a second
  const own = await frames({ path });
  expect(own).toHaveLength(20);
  const half = await frames({ path, fps: 5 });
  expect(half).toHaveLength(10);
  expect(half.every((frame) => own.some((one) => one.equals(frame)))).toBe(true);
  const double = await frames({ path, fps: 20 });
  expect(double).toHaveLength(40);
  expect(
    same(
      double.filter((_, at) => at % 2 === 0),
      own,
    ),
  ).toBe(true);
});

// Seeking in a file whose frames refer to others, before and after them, at a rate that halves its own.
testWithFfmpeg('a start in the middle gives what decoding from the beginning does', async () => {
  const path = join(folder, 'long.mp4');
  const source = 'testsrc2=size=64x48:rate=30:duration=6';
  const h264 = ['-c:v', 'libx264', '-g', '40', '-bf', '3', '-pix_fmt', 'yuv420p'];
  execFileSync('ffmpeg', ['-v', 'error', '-y', '-f', 'lavfi', '-i', source, ...h264, path]);
  for (const fps of [15, 16]) {
    const all = await frames({ path, fps });
    expect(all).toHaveLength(6 * fps);
    for (const start of [1, 3 * fps - 1, 3 * fps, 4 * fps + 7, 6 * fps - 4]) {
      const some = await frames({ path, fps, start, frames: 4 });
      expect([fps, start, same(some, all.slice(start, start + 4))]).toEqual([fps, start, true]);
    }
  }
});

testWithFfmpeg('a start behind the end', async () => {
  const path = makeVideo(join(folder, 'short.mkv'), { frames: 9 });
  const error = await failureOf(() => frames({ path, fps: 10, start: 30, frames: 4 }));
  expect(error).toMatchObject({ code: 'ERR_VIDEO' });
  expect(error.message).toContain("'short.mkv', which has no frame 30, wanted at least 34 frames");
});

test('a signal ends ffmpeg at once', async () => {
  const program = join(folder, 'endless');
  const pidFile = join(folder, 'pid');
  writeFileSync(program, `#!/bin/sh\necho $$ > '${pidFile}'\nexec sleep 60\n`);
  chmodSync(program, 0o755);
  process.env['VSA_FFMPEG'] = program;
  try {
    const abort = new AbortController();
    const failure = failureOf(() => frames({ path: program, signal: abort.signal }));
    const pid = await until(() => existsSync(pidFile) && Number(readFileSync(pidFile, 'utf8')));
    abort.abort();
    expect((await failure).message).toContain('ended by SIGKILL');
    const early = await failureOf(() => frames({ path: program, signal: abort.signal }));
    expect(early.message).toContain('ended by SIGKILL');
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  } finally {
    delete process.env['VSA_FFMPEG'];
  }
});
