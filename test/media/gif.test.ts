import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { GifReader } from 'omggif';

import { movingShapes } from '../../lib/data/moving-shapes.js';
import { writeGif } from '../../lib/media/gif.js';
import type { WriteClipOptions } from '../../lib/media/writing.js';
import { failureOf, temporaryFolder } from '../demo/support.js';
import { clipOf, STRIPES } from './support.js';

const folder = temporaryFolder();
const file = join(folder, 'clip.gif');

/** Writes a GIF and decodes it again: its frames' RGBA, delays in hundredths of a second, and repeats (0: for ever). */
async function written(options: WriteClipOptions) {
  await writeGif(file, options);
  const reader = new GifReader(readFileSync(file));
  const { width, height } = reader;
  const frames = Array.from({ length: reader.numFrames() }, (_, frame) => {
    const rgba = new Uint8Array(width * height * 4);
    reader.decodeAndBlitFrameRGBA(frame, rgba);
    return rgba;
  });
  const delays = frames.map((_, frame) => reader.frameInfo(frame).delay);
  return { width, height, frames, delays, repeats: reader.loopCount() };
}

/** Largest difference of a pixel from the colour that it should have, over a whole clip. */
function worst(decoded: Uint8Array[], { frames, shape: [F, H, W] }: WriteClipOptions, scale = 1): number {
  let most = 0;
  for (let f = 0; f < F; f++) {
    for (let y = 0; y < H * scale; y++) {
      for (let x = 0; x < W * scale; x++) {
        for (let c = 0; c < 3; c++) {
          const value = frames[((f * H + Math.floor(y / scale)) * W + Math.floor(x / scale)) * 3 + c]!;
          const wanted = Math.min(255, Math.max(0, Math.round((value + 1) * 127.5)));
          most = Math.max(most, Math.abs(decoded[f]![(y * W * scale + x) * 4 + c]! - wanted));
        }
      }
    }
  }
  return most;
}

test('few colours come back as they were, frame by frame, for ever', async () => {
  const clip = { frames: clipOf([3, 6, 10], STRIPES), shape: [3, 6, 10] as const };
  const { width, height, frames, delays, repeats } = await written({ ...clip, fps: 10 });
  expect({ width, height, delays, repeats }).toEqual({ width: 10, height: 6, delays: [10, 10, 10], repeats: 0 });
  expect(worst(frames, clip)).toBeLessThanOrEqual(1);
});

test('a clip of moving shapes keeps its colours but for what 256 of them allow', async () => {
  const clip = { frames: movingShapes({ frames: 4, height: 48, width: 64 }), shape: [4, 48, 64] as const };
  const { frames } = await written(clip);
  let sum = 0;
  for (let i = 0; i < clip.frames.length; i++) {
    const pixel = Math.floor(i / 3);
    const frame = frames[Math.floor(pixel / (48 * 64))]!;
    sum += Math.abs(frame[(pixel % (48 * 64)) * 4 + (i % 3)]! - (clip.frames[i]! + 1) * 127.5);
  }
  expect(sum / clip.frames.length).toBeLessThan(4);
  expect(worst(frames, clip)).toBeLessThan(48);
});

test('delays are hundredths of a second that add up to the clip', async () => {
  const frames = clipOf([33, 2, 2], STRIPES);
  const { delays } = await written({ frames, shape: [33, 2, 2], fps: 16 });
  const starts = delays.map((_, frame) => delays.slice(0, frame).reduce((sum, delay) => sum + delay, 0));
  expect(Math.max(...starts.map((start, frame) => Math.abs(start - (frame * 100) / 16)))).toBeLessThanOrEqual(0.5);
  expect(new Set(delays)).toEqual(new Set([6, 7]));
});

test('scale makes squares of pixels', async () => {
  const clip = { frames: clipOf([2, 3, 5], STRIPES), shape: [2, 3, 5] as const };
  const { width, height, frames } = await written({ ...clip, scale: 4 });
  expect([width, height]).toEqual([20, 12]);
  expect(worst(frames, clip, 4)).toBeLessThanOrEqual(1);
});

test('what is beyond [-1, 1] is clamped, and NaN is black', async () => {
  const frames = Float32Array.of(7, -7, NaN, Infinity, -Infinity, 1);
  const { frames: decoded } = await written({ frames, shape: [1, 1, 2] });
  expect([...decoded[0]!]).toEqual([255, 0, 0, 255, 255, 0, 255, 255]);
});

test('one pixel, one frame, one colour', async () => {
  const { frames, width, height } = await written({ frames: Float32Array.of(1, 1, 1), shape: [1, 1, 1] });
  expect([width, height, [...frames[0]!]]).toEqual([1, 1, [255, 255, 255, 255]]);
});

test('noise of every colour', async () => {
  const frames = Float32Array.from({ length: 2 * 31 * 33 * 3 }, (_, i) => (((i + 1) * 2654435761) % 2048) / 1024 - 1);
  const { frames: decoded } = await written({ frames, shape: [2, 31, 33] });
  expect(worst(decoded, { frames, shape: [2, 31, 33] })).toBeLessThan(96);
});

test('the same clip gives the same bytes', async () => {
  const clip = { frames: movingShapes({ frames: 2, height: 16, width: 16 }), shape: [2, 16, 16] as const };
  await writeGif(file, clip);
  const first = readFileSync(file);
  await writeGif(file, clip);
  expect(readFileSync(file).equals(first)).toBe(true);
});

describe('bad input leaves what was there', () => {
  const good = { frames: new Float32Array(12), shape: [1, 2, 2] };
  test.each([
    ['frames of another length', { ...good, frames: new Float32Array(11) }, 'ERR_SHAPE', 'frames'],
    ['frames of bytes', { ...good, frames: new Uint8Array(12) }, 'ERR_ARGUMENT', 'frames'],
    ['a shape of two dims', { ...good, shape: [2, 2] }, 'ERR_SHAPE', 'shape'],
    ['too wide a picture', { frames: new Float32Array(3 * 65536), shape: [1, 1, 65536] }, 'ERR_SHAPE', 'shape'],
    ['fps 0', { ...good, fps: 0 }, 'ERR_ARGUMENT', 'fps'],
    ['fps 51', { ...good, fps: 51 }, 'ERR_ARGUMENT', 'fps'],
    ['fps NaN', { ...good, fps: NaN }, 'ERR_ARGUMENT', 'fps'],
    ['fps that is a string', { ...good, fps: '8' }, 'ERR_ARGUMENT', 'fps'],
    ['scale 0', { ...good, scale: 0 }, 'ERR_ARGUMENT', 'scale'],
    ['scale 1.5', { ...good, scale: 1.5 }, 'ERR_ARGUMENT', 'scale'],
    ['a scale beyond the largest picture', { ...good, scale: 32768 }, 'ERR_ARGUMENT', 'scale'],
    ['an unknown option', { ...good, loop: true }, 'ERR_ARGUMENT', 'options'],
  ])('%s', async (_, options, code, argument) => {
    writeFileSync(file, 'before');
    const error = await failureOf(() => writeGif(file, options as unknown as WriteClipOptions));
    expect(error).toMatchObject({ code, argument });
    expect(readFileSync(file, 'utf8')).toBe('before');
  });

  test('a folder that is not there, or a path that is none', async () => {
    const options = { frames: new Float32Array(12), shape: [1, 2, 2] as const };
    const nowhere = join(folder, 'nowhere', 'clip.gif');
    expect(await failureOf(() => writeGif(nowhere, options))).toMatchObject({ code: 'ERR_FILE', argument: nowhere });
    expect(await failureOf(() => writeGif(7 as never, options))).toMatchObject({ code: 'ERR_ARGUMENT' });
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });
});
