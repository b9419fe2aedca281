import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import { ClipLoader } from '../../lib/data/loader.js';
import { VideoFolder, videoFolder } from '../../lib/data/video-folder.js';
import { decodeVideo } from '../../lib/media/decode.js';
import { VsaError } from '../../lib/errors.js';
import { ROOT } from '../binding/node.js';
import { failureOf, makeVideo, sameBits, temporaryFolder, testWithFfmpeg } from '../demo/support.js';

const root = temporaryFolder();
const SIZE = { frames: 4, height: 12, width: 16, fps: 10 };

function folderOf(name: string): string {
  const folder = join(root, name);
  mkdirSync(folder);
  return folder;
}

afterEach(() => {
  delete process.env['VSA_FFMPEG'];
});

/** Makes a video of 10 frames a second; another hue makes other pictures. */
function video(folder: string, name: string, frames: number, hue: number): string {
  return makeVideo(join(folder, name), { frames, extra: ['-vf', `hue=h=${hue}`] });
}

/** All frames of a video at 10 a second as float32 in [-1, 1]. */
async function framesOf(path: string): Promise<Float32Array[]> {
  const list: Float32Array[] = [];
  const onFrame = (rgb: Uint8Array): void => void list.push(Float32Array.from(rgb, (byte) => byte / 127.5 - 1));
  await decodeVideo({ path, height: 12, width: 16, frames: Infinity, fps: 10, onFrame });
  return list;
}

const joined = (frames: Float32Array[]): Float32Array => Float32Array.from(frames.flatMap((frame) => [...frame]));

describe('a folder', () => {
  testWithFfmpeg('has the clips of its videos, by name, cut one after the other', async () => {
    const folder = folderOf('two');
    const b = await framesOf(video(folder, 'b.mkv', 13, 90));
    const a = await framesOf(video(folder, 'a.MKV', 7, 0));
    writeFileSync(join(folder, 'notes.txt'), 'no video, by its name');
    writeFileSync(join(folder, '.hidden.mkv'), 'nor this');
    mkdirSync(join(folder, 'folder.mkv'));
    const source = await videoFolder(folder, SIZE);
    expect(source.videos).toEqual([
      { name: 'a.MKV', frames: 7, clips: 1 },
      { name: 'b.mkv', frames: 13, clips: 3 },
    ]);
    expect([source.count, source.shape, source.skipped]).toEqual([4, [4, 12, 16], []]);
    const wanted = [a.slice(0, 4), b.slice(0, 4), b.slice(4, 8), b.slice(8, 12)].map(joined);
    for (const index of [3, 0, 2, 1, 3]) {
      expect([index, sameBits(await source.clip(index), wanted[index]!)]).toEqual([index, true]);
    }
    const first = await source.clip(0);
    first.fill(7); // the caller's own: the kept clip stays as it was
    expect(sameBits(await source.clip(0), wanted[0]!)).toBe(true);
  });

  testWithFfmpeg('with a stride has clips that overlap, or gaps', async () => {
    const folder = folderOf('strides');
    const frames = await framesOf(video(folder, 'a.mkv', 10, 0));
    const dense = await videoFolder(folder, { ...SIZE, stride: 3 });
    expect(dense.count).toBe(3);
    expect(sameBits(await dense.clip(2), joined(frames.slice(6, 10)))).toBe(true);
    const sparse = await videoFolder(folder, { ...SIZE, stride: 6 });
    expect(sparse.count).toBe(2);
    expect(sameBits(await sparse.clip(1), joined(frames.slice(6, 10)))).toBe(true);
  });

  testWithFfmpeg('keeps what fits, and decodes the rest again', async () => {
    const folder = folderOf('cache');
    video(folder, 'a.mkv', 12, 0);
    const bytes = 4 * 12 * 16 * 3;
    const source = await videoFolder(folder, { ...SIZE, cacheBytes: 2 * bytes });
    const clips = [await source.clip(0), await source.clip(1), await source.clip(2)];
    rmSync(join(folder, 'a.mkv'));
    expect(sameBits(await source.clip(0), clips[0]!)).toBe(true);
    expect(sameBits(await source.clip(1), clips[1]!)).toBe(true);
    expect(await failureOf(() => source.clip(2))).toMatchObject({ code: 'ERR_FILE' });
  });

  testWithFfmpeg('gives the same batches through a worker', async () => {
    const folder = folderOf('worker');
    video(folder, 'a.mkv', 9, 0);
    video(folder, 'b.mkv', 8, 120);
    const source = await videoFolder(folder, SIZE);
    const options = { source, batchSize: 3, patch: [2, 4, 4] as const, seed: 3 };
    await using ahead = new ClipLoader({ ...options, prefetch: 2 });
    await using here = new ClipLoader({ ...options, prefetch: 0 });
    for (let batch = 0; batch < 3; batch++) {
      const [got, wanted] = [await ahead.next(), await here.next()];
      expect([got.clips, got.shape]).toEqual([wanted.clips, [3, 24, 96]]);
      expect(sameBits(got.tokens, wanted.tokens)).toBe(true);
    }
  });

  testWithFfmpeg('follows links to videos', async () => {
    const folder = folderOf('links');
    symlinkSync(video(root, 'linked.mkv', 4, 0), join(folder, 'link.mkv'));
    expect((await videoFolder(folder, SIZE)).videos).toEqual([{ name: 'link.mkv', frames: 4, clips: 1 }]);
  });

  testWithFfmpeg('whose video grew shorter says so, and closed says that', async () => {
    const folder = folderOf('changed');
    video(folder, 'a.mkv', 8, 0);
    const source = await videoFolder(folder, SIZE);
    video(folder, 'a.mkv', 6, 0);
    const error = await failureOf(() => source.clip(1));
    expect(error).toMatchObject({ code: 'ERR_VIDEO' });
    expect(error.message).toContain("'a.mkv', which has 2 frames");
    await source.close();
    expect(await failureOf(() => source.clip(0))).toMatchObject({ code: 'ERR_DISPOSED', argument: 'VideoFolder' });
  });
});

describe('files that do not decode', () => {
  const folder = join(root, 'bad');

  testWithFfmpeg('are an error with their name, unless they are to be skipped', async () => {
    mkdirSync(folder);
    writeFileSync(join(folder, 'broken.mp4'), 'this is no video\n'.repeat(50));
    video(folder, 'short.mkv', 3, 0);
    video(folder, 'whole.mkv', 9, 0);
    execFileSync('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', 'sine=duration=0.2', join(folder, 'sound.mkv')]);
    symlinkSync(join(folder, 'nowhere'), join(folder, 'link.mkv'));

    const error = await failureOf(() => videoFolder(folder, SIZE));
    expect(error).toMatchObject({ code: 'ERR_VIDEO' });
    expect(error.message).toContain("'broken.mp4', which does not decode");

    const { videos, skipped, count } = await videoFolder(folder, { ...SIZE, onError: 'skip' });
    expect([count, videos.map(({ name }) => name)]).toEqual([2, ['whole.mkv']]);
    expect(skipped.map(({ name, error: { code } }) => [name, code])).toEqual([
      ['broken.mp4', 'ERR_VIDEO'],
      ['link.mkv', 'ERR_FILE'],
      ['short.mkv', 'ERR_VIDEO'],
      ['sound.mkv', 'ERR_VIDEO'],
    ]);
    expect(skipped.every(({ error: one }) => one instanceof VsaError)).toBe(true);
    expect(skipped[2]!.error.message).toContain("short.mkv', which has 3 frames at 10 a second, wanted at least 4");
  });

  testWithFfmpeg('leave nothing', async () => {
    const none = folderOf('none left');
    copyFileSync(join(folder, 'broken.mp4'), join(none, 'broken.mp4'));
    const error = await failureOf(() => videoFolder(none, { onError: 'skip' }));
    expect(error).toMatchObject({ code: 'ERR_VIDEO', argument: 'path' });
    expect(error.message).toMatch(/no video that can be used; .*'broken\.mp4'/);
  });
});

describe('without a video or ffmpeg', () => {
  test('an empty folder', async () => {
    const folder = folderOf('empty');
    writeFileSync(join(folder, 'README.md'), '# Videos');
    for (const onError of ['throw', 'skip'] as const) {
      const error = await failureOf(() => videoFolder(folder, { onError }));
      expect(error).toMatchObject({ code: 'ERR_VIDEO', argument: 'path' });
      expect(error.message).toMatch(/with no video in it, wanted files named \.mp4/);
    }
  });

  test('a folder that is not there, or no folder', async () => {
    expect(await failureOf(() => videoFolder(join(root, 'nowhere')))).toMatchObject({ code: 'ERR_FILE' });
    writeFileSync(join(root, 'file'), '');
    expect(await failureOf(() => videoFolder(join(root, 'file')))).toMatchObject({ code: 'ERR_FILE' });
  });

  test('no ffmpeg is the fault of no file: nothing is skipped', async () => {
    const folder = folderOf('no ffmpeg');
    writeFileSync(join(folder, 'a.mp4'), 'a');
    process.env['VSA_FFMPEG'] = join(root, 'no-such-program');
    for (const onError of ['throw', 'skip'] as const) {
      const error = await failureOf(() => videoFolder(folder, { onError }));
      expect(error.message).toMatch(/no-such-program' was not found.*install ffmpeg, or name it in VSA_FFMPEG/);
    }
  });

  test('clips of a folder need ffmpeg only once', async () => {
    const program = join(root, 'ffmpeg');
    writeFileSync(join(root, 'v.mp4'), 'v');
    writeFileSync(program, `#!/bin/sh\necho once >> '${program}.log'\nhead -c 24 /dev/zero\n`);
    chmodSync(program, 0o755);
    process.env['VSA_FFMPEG'] = program;
    const videos = [{ name: 'v.mp4', frames: 2, clips: 1 }];
    const source = new VideoFolder({ folder: root, shape: [2, 2, 2], fps: 8, stride: 2, cacheBytes: 24, videos });
    expect([...(await source.clip(0)), ...(await source.clip(0))]).toEqual(new Array(48).fill(-1));
    expect(readFileSync(`${program}.log`, 'utf8')).toBe('once\n');
  });

  test.each([
    ['path', [7]],
    ['frames, height, width', ['.', { frames: 0 }]],
    ['fps', ['.', { fps: 23.976 }]],
    ['fps', ['.', { fps: 0 }]],
    ['stride', ['.', { stride: 0 }]],
    ['onError', ['.', { onError: 'ignore' }]],
    ['cacheBytes', ['.', { cacheBytes: -1 }]],
    ['options', ['.', { path: '.' }]],
  ])('bad %s: %p', async (argument, args) => {
    const [path, options] = args as [string, object | undefined];
    expect(await failureOf(() => videoFolder(path, options))).toMatchObject({ argument });
  });
});

const shared = join(ROOT, '..', 'shared', 'data');
const testWithShared = existsSync(shared) ? testWithFfmpeg : test.skip;

testWithShared('the clip in ../shared/data: real footage', async () => {
  const source = await videoFolder(shared, { frames: 8, height: 32, width: 56 });
  expect(source.videos).toEqual([{ name: 'ride-832x480-81f.mp4', frames: 64, clips: 8 }]);
  const clip = await source.clip(5);
  const mean = clip.reduce((sum, value) => sum + value, 0) / clip.length;
  const deviation = Math.sqrt(clip.reduce((sum, value) => sum + (value - mean) ** 2, 0) / clip.length);
  expect(clip.every((value) => value >= -1 && value <= 1)).toBe(true);
  expect(deviation).toBeGreaterThan(0.2);
  const first = clip.slice(0, clip.length / 8);
  expect(sameBits(clip.slice(-clip.length / 8), first)).toBe(false); // it moves
});
