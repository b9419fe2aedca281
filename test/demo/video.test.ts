import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { decodeVideo } from '../../lib/demo/video.js';
import { failureOf, makeVideo, temporaryFolder, testWithFfmpeg } from './support.js';

const folder = temporaryFolder();
const file = (name: string) => join(folder, name);
const FRAME = { width: 32, height: 16 };

function decode(path: string, frames: number, onFrame: (rgb: Uint8Array, index: number) => void = () => undefined) {
  return decodeVideo({ path, ...FRAME, frames, onFrame });
}

/** A program in ffmpeg's place. */
function asFfmpeg(name: string, script: string): void {
  const path = file(name);
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  process.env['VSA_FFMPEG'] = path;
}

/** What stands for a video where ffmpeg's place is taken. */
const anyFile = file('any.bin');
beforeAll(() => writeFileSync(anyFile, 'anything'));
afterEach(() => {
  delete process.env['VSA_FFMPEG'];
});

describe('decodeVideo with ffmpeg', () => {
  testWithFfmpeg('gives the first frames in order, with the bytes that ffmpeg itself writes', async () => {
    const path = makeVideo(file('pattern.mkv'), { frames: 9, size: '32x16' });
    const frames: Uint8Array[] = [];
    await decode(path, 5, (rgb, index) => {
      expect(index).toBe(frames.length);
      frames.push(Uint8Array.from(rgb));
    });
    const raw = file('pattern.rgb');
    spawnSync('ffmpeg', [
      '-v',
      'error',
      '-y',
      '-i',
      path,
      '-frames:v',
      '5',
      '-f',
      'rawvideo',
      '-pix_fmt',
      'rgb24',
      raw,
    ]);
    expect(Buffer.concat(frames).equals(readFileSync(raw))).toBe(true);
    expect(frames).toHaveLength(5);
    expect(frames[0]).not.toEqual(frames[4]);
  });

  testWithFfmpeg('covers the frame with a picture of another shape instead of squeezing it', async () => {
    // Left third red, middle green, right blue, three times as wide as high: a square shows only green.
    const path = file('flag.mkv');
    const parts = ['red', 'lime', 'blue'].map((color, at) => `color=${color}:size=64x64:rate=5[c${at}]`);
    const graph = `${parts.join(';')};[c0][c1][c2]hstack=3`;
    const args = ['-v', 'error', '-y', '-f', 'lavfi', '-i', graph, '-frames:v', '1', '-c:v', 'ffv1', path];
    expect(spawnSync('ffmpeg', args).status).toBe(0);
    let frame = new Uint8Array();
    await decodeVideo({ path, width: 16, height: 16, frames: 1, onFrame: (rgb) => (frame = Uint8Array.from(rgb)) });
    const middle = [0, 1, 2].map((c) => frame[(8 * 16 + 8) * 3 + c]!);
    const corner = [0, 1, 2].map((c) => frame[c]!);
    for (const [red, green, blue] of [middle, corner]) {
      expect(green).toBeGreaterThan(240);
      expect(Math.max(red!, blue!)).toBeLessThan(30);
    }
  });

  testWithFfmpeg('takes any name for a file name', async () => {
    const names = [
      '-i.mkv',
      'a b; touch pwned.mkv',
      'http:x.mkv',
      'concat:a|b.mkv',
      '$(touch pwned).mkv',
      'frame%d.mkv',
    ];
    const original = makeVideo(file('plain.mkv'), { frames: 1 });
    const inside = file('names');
    mkdirSync(inside);
    const before = process.cwd();
    process.chdir(inside); // relative names: nothing but the name itself
    try {
      for (const name of names) {
        copyFileSync(original, join(inside, name));
        let count = 0;
        await decode(name, 1, () => count++);
        expect([name, count]).toEqual([name, 1]);
      }
      expect(existsSync(join(inside, 'pwned.mkv')) || existsSync(join(inside, 'pwned'))).toBe(false);
    } finally {
      process.chdir(before);
    }
  });

  testWithFfmpeg('says how many frames a short video has, and which grid fits', async () => {
    const path = makeVideo(file('short.mkv'), { frames: 9 });
    const error = await failureOf(() => decode(path, 81));
    expect(error).toMatchObject({ code: 'ERR_VIDEO', argument: 'video' });
    expect(error.message).toContain("'short.mkv', which has 9 frames");
    expect(error.message).toContain('at least 81');
    expect(error.message).toContain('at most 3 in time');
  });

  testWithFfmpeg('says that a file is no video', async () => {
    const path = file('text.mp4');
    writeFileSync(path, 'this is no video\n'.repeat(100));
    const error = await failureOf(() => decode(path, 1));
    expect(error.code).toBe('ERR_VIDEO');
    expect(error.message).toMatch(/'text.mp4', which does not decode: .*Invalid data/);
  });

  testWithFfmpeg('says that a truncated video does not decode', async () => {
    const whole = makeVideo(file('whole.mkv'), { frames: 20 });
    const path = file('cut.mkv');
    writeFileSync(path, readFileSync(whole).subarray(0, 300));
    const error = await failureOf(() => decode(path, 20));
    expect(error.code).toBe('ERR_VIDEO');
  });

  testWithFfmpeg('says that a file has sound only', async () => {
    const path = file('sound.wav');
    spawnSync('ffmpeg', ['-v', 'error', '-y', '-f', 'lavfi', '-i', 'sine=duration=0.2', path]);
    const error = await failureOf(() => decode(path, 1));
    expect(error).toMatchObject({ code: 'ERR_VIDEO', got: "'sound.wav', which has no video stream" });
  });

  testWithFfmpeg('lets the error of its callback through', async () => {
    const path = makeVideo(file('throwing.mkv'), { frames: 9 });
    const work = decode(path, 9, () => {
      throw new Error('enough');
    });
    await expect(work).rejects.toThrow('enough');
  });
});

describe('decodeVideo with a file that cannot be read', () => {
  test('which does not exist', async () => {
    const error = await failureOf(() => decode(file('nowhere.mp4'), 1));
    expect(error).toMatchObject({ code: 'ERR_FILE', argument: 'video' });
    expect(error.message).toContain('does not exist');
    expect((error.cause as NodeJS.ErrnoException).code).toBe('ENOENT');
  });

  test('which is a folder', async () => {
    const error = await failureOf(() => decode(folder, 1));
    expect(error).toMatchObject({ code: 'ERR_FILE' });
    expect(error.message).toContain('not a regular file');
  });
});

describe('decodeVideo with another program in ffmpeg’s place', () => {
  const frameBytes = FRAME.width * FRAME.height * 3;

  test('that does not exist', async () => {
    process.env['VSA_FFMPEG'] = file('no-such-program');
    const error = await failureOf(() => decode(anyFile, 1));
    expect(error).toMatchObject({ code: 'ERR_VIDEO', argument: 'video' });
    expect(error.message).toContain('was not found');
    expect(error.message).toContain('install ffmpeg, name it in VSA_FFMPEG, or pass --tokens');
  });

  test('that may not be run', async () => {
    writeFileSync(file('plain-text'), 'no program');
    process.env['VSA_FFMPEG'] = file('plain-text');
    const error = await failureOf(() => decode(anyFile, 1));
    expect(error.message).toContain('could not be started (EACCES)');
  });

  test('that is killed in the middle', async () => {
    asFfmpeg('dies', `head -c ${2 * frameBytes} /dev/zero; kill -9 $$`);
    const error = await failureOf(() => decode(anyFile, 5));
    expect(error).toMatchObject({ code: 'ERR_VIDEO' });
    expect(error.message).toContain('ended by SIGKILL after 2 of 5 frames');
  });

  test('that fails without a word', async () => {
    asFfmpeg('silent', 'exit 3');
    const error = await failureOf(() => decode(anyFile, 1));
    expect(error.message).toContain('ffmpeg ended with code 3 and no message');
  });

  test('that stops inside a frame', async () => {
    asFfmpeg('partial', `head -c ${frameBytes + 7} /dev/zero; echo 'disk on fire' >&2; exit 1`);
    const error = await failureOf(() => decode(anyFile, 5));
    expect(error.message).toContain('which has 1 frames (ffmpeg ended with code 1: disk on fire)');
  });

  test('whose messages would steer a terminal', async () => {
    asFfmpeg('colours', `printf '\\033[2Jgone\\007\\n' >&2; exit 1`);
    const error = await failureOf(() => decode(anyFile, 1));
    expect(error.message).toContain('?[2Jgone?');
    // eslint-disable-next-line no-control-regex
    expect(error.message).not.toMatch(/[\u0000-\u001f]/);
  });

  test('that never stops writing is stopped after the last frame', async () => {
    asFfmpeg('endless', `echo $$ > '${file('pid')}'; exec cat /dev/zero`);
    let count = 0;
    await decode(anyFile, 3, () => count++);
    expect(count).toBe(3);
    const pid = Number(readFileSync(file('pid'), 'utf8'));
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });

  test('that floods its messages', async () => {
    asFfmpeg('talks', `yes 'frame error' | head -c 3000000 >&2; exit 1`);
    const error = await failureOf(() => decode(anyFile, 1));
    expect(error.message.length).toBeLessThan(400);
  });

  test('gets the name as one argument, as a file, and no network', async () => {
    asFfmpeg('args', `for a in "$@"; do printf '%s\\n' "$a"; done > '${file('args')}'; exit 1`);
    await failureOf(() => decode(anyFile, 1));
    const args = readFileSync(file('args'), 'utf8').split('\n');
    expect(args).toContain(`file:${anyFile}`);
    expect(args[args.indexOf('-protocol_whitelist') + 1]).toBe('file,pipe');
  });
});
