import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { movingShapes } from '../../lib/data/moving-shapes.js';
import { decodeVideo } from '../../lib/media/decode.js';
import { writeClip, writeMp4 } from '../../lib/media/mp4.js';
import type { ClipShape } from '../../lib/media/shape.js';
import { failureOf, temporaryFolder, testWithFfmpeg } from '../demo/support.js';
import { clipOf, STRIPES } from './support.js';

const folder = temporaryFolder();
const file = join(folder, 'clip.mp4');
const clip = { frames: clipOf([3, 4, 6], STRIPES), shape: [3, 4, 6] as const };

afterEach(() => {
  delete process.env['VSA_FFMPEG'];
});

/** A program in ffmpeg's place. */
function asFfmpeg(script: string): void {
  const path = join(folder, 'ffmpeg');
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  process.env['VSA_FFMPEG'] = path;
}

const leftInTmp = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('vsa-mp4-'));

async function decoded(path: string, [frames, height, width]: ClipShape): Promise<Buffer> {
  const list: Buffer[] = [];
  await decodeVideo({ path, frames, height, width, onFrame: (rgb) => list.push(Buffer.from(rgb)) });
  return Buffer.concat(list);
}

describe('with ffmpeg', () => {
  testWithFfmpeg('a clip comes back nearly as it was', async () => {
    const shape = [5, 48, 64] as const;
    const frames = movingShapes({ frames: 5, height: 48, width: 64 });
    await writeMp4(file, { frames, shape, fps: 8 });
    const bytes = await decoded(file, shape);
    const squares = bytes.reduce((sum, byte, i) => sum + (byte - (frames[i]! + 1) * 127.5) ** 2, 0);
    // 4:2:0 halves the resolution of colours: their edges differ.
    expect(Math.sqrt(squares / bytes.length)).toBeLessThan(12);
    const count = { read: 0 };
    await decodeVideo({ path: file, width: 2, height: 2, frames: Infinity, fps: 8, onFrame: () => count.read++ });
    expect(count.read).toBe(5);
  });

  testWithFfmpeg('an odd side gets one pixel more, scale makes squares', async () => {
    const white = { frames: new Float32Array(2 * 5 * 7 * 3).fill(1), shape: [2, 5, 7] as const };
    await writeMp4(file, white);
    // Decoded at the size that it must have, so that ffmpeg neither scales nor crops.
    expect(Math.min(...(await decoded(file, [2, 6, 8])))).toBeGreaterThan(250);
    await writeClip(join(folder, 'CLIP.MP4'), { ...clip, scale: 8 });
    const [height, width] = [32, 48];
    const bytes = await decoded(join(folder, 'CLIP.MP4'), [3, height, width]);
    // Brightness, where nothing is lost but by rounding: the middle of a square is as bright as its pixel.
    const light = (rgb: ArrayLike<number>, at: number): number =>
      rgb[at]! * 0.299 + rgb[at + 1]! * 0.587 + rgb[at + 2]! * 0.114;
    for (let y = 0; y < 4; y++) {
      for (let x = 0; x < 6; x++) {
        const wanted = light(
          clip.frames.map((value) => (value + 1) * 127.5),
          (y * 6 + x) * 3,
        );
        const got = light(bytes, ((y * 8 + 4) * width + x * 8 + 4) * 3);
        expect(Math.abs(got - wanted)).toBeLessThan(40);
      }
    }
  });

  testWithFfmpeg('frames larger than a pipe', async () => {
    const shape = [4, 256, 320] as const;
    await writeMp4(file, { frames: movingShapes({ frames: 4, height: 256, width: 320 }), shape });
    expect((await decoded(file, shape)).length).toBe(4 * 256 * 320 * 3);
    expect(leftInTmp()).toEqual([]);
  });

  testWithFfmpeg('a folder that is not there', async () => {
    const nowhere = join(folder, 'nowhere', 'clip.mp4');
    expect(await failureOf(() => writeMp4(nowhere, clip))).toMatchObject({ code: 'ERR_FILE', argument: nowhere });
  });
});

describe('with another program in ffmpeg’s place', () => {
  beforeEach(() => writeFileSync(file, 'before'));
  afterEach(() => {
    expect(readFileSync(file, 'utf8')).toBe('before');
    expect(leftInTmp()).toEqual([]);
  });

  test('that does not exist: what to do is said', async () => {
    process.env['VSA_FFMPEG'] = join(folder, 'no-such-program');
    const error = await failureOf(() => writeMp4(file, clip));
    expect(error).toMatchObject({ code: 'ERR_VIDEO', argument: 'path' });
    expect(error.message).toMatch(/was not found.*install ffmpeg, name it in VSA_FFMPEG, or write a \.gif/);
  });

  test('that has no encoder', async () => {
    asFfmpeg(`echo "Unknown encoder 'libx264'" >&2; exit 8`);
    const error = await failureOf(() => writeMp4(file, clip));
    expect(error.message).toContain("ffmpeg ended with code 8: Unknown encoder 'libx264'");
  });

  test('that reads nothing and fails while much is to be written', async () => {
    asFfmpeg('exit 3');
    const shape = [8, 256, 256] as const;
    const error = await failureOf(() => writeMp4(file, { frames: new Float32Array(8 * 256 * 256 * 3), shape }));
    expect(error.message).toContain('ffmpeg ended with code 3: no message');
  });

  test('that is killed', async () => {
    asFfmpeg('kill -9 $$');
    expect((await failureOf(() => writeMp4(file, clip))).message).toContain('ffmpeg ended by SIGKILL');
  });

  test('bad options do not start it', async () => {
    asFfmpeg(`touch '${join(folder, 'started')}'`);
    expect(await failureOf(() => writeMp4(file, { ...clip, fps: -1 }))).toMatchObject({ argument: 'fps' });
    expect(await failureOf(() => writeMp4(file, { ...clip, frames: new Float32Array(3) }))).toMatchObject({
      ...{ code: 'ERR_SHAPE', argument: 'frames' },
    });
    expect(existsSync(join(folder, 'started'))).toBe(false);
  });
});

describe('writeClip', () => {
  test('takes a GIF by its name', async () => {
    const gif = join(folder, 'clip.gif');
    await writeClip(gif, clip);
    expect(readFileSync(gif).subarray(0, 6).toString()).toBe('GIF89a');
  });

  test.each([join(folder, 'clip.avi'), join(folder, 'gif'), '', 5, undefined])('refuses %p', async (path) => {
    const error = await failureOf(() => writeClip(path as string, clip));
    expect(error).toMatchObject({ code: 'ERR_ARGUMENT', argument: 'path' });
    expect(error.message).toContain('.gif or .mp4');
  });
});
