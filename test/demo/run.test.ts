import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { memory } from '../../lib/index.js';
import { runDemo } from '../../lib/demo/run.js';
import type { DemoOptions, DemoResult } from '../../lib/demo/run.js';
import { failureOf, makeVideo, memoryIo, temporaryFolder, testWithFfmpeg } from './support.js';
import { here } from '../under-test.js';

const folder = temporaryFolder();
const file = (name: string) => join(folder, name);
const SMALL: DemoOptions = { grid: '5x6x9', out: file('report.html'), device: here.toString() };

/** What does not depend on how long things took. */
function numbers({ heads, mass, flops, topK, grid }: DemoResult) {
  return { heads, mass, flops, topK, grid };
}

/** The last line of a terminal's output is erased. */
function expectCleared(output: string): void {
  const line = output.slice(output.lastIndexOf('\n') + 1);
  const erase = Math.max(line.lastIndexOf('\u001b[K'), line.lastIndexOf('\u001b[2K'), line.lastIndexOf('\u001b[0K'));
  expect(erase).toBeGreaterThan(line.lastIndexOf('%'));
}

test('runs on the synthetic clip and leaves a report, a summary and no tensor', async () => {
  const before = memory();
  const { io, out, err } = memoryIo();
  const result = await runDemo(SMALL, io);
  expect(memory()).toEqual(before);
  expect(result).toMatchObject({
    source: { kind: 'synthetic', frames: 17, width: 144, height: 96 },
    grid: { tokens: [5, 6, 9], length: 270, tiles: 12, paddedSlots: 12 * 64 - 270 },
    topK: 2,
  });
  expect(result.mass.best).toBeGreaterThan(result.mass.selected);
  expect(result.mass.selected).toBeGreaterThan(result.mass.random);
  expect(readFileSync(file('report.html'), 'utf8')).toMatch(/^<!doctype html>[^]*<\/html>\n$/);
  expect(readFileSync(file('report.html')).length).toBe(result.reportBytes);
  expect(readdirSync(folder)).toEqual(['report.html']);
  expect(out()).toContain(`Report: ${file('report.html')}`);
  expect(out()).toContain('5x6x9 = 270, 12 tiles');
  expect(err()).toMatch(/^clip: .* s\nprojection: .* s\nvideo sparse attention: .* s\n/);
});

test('prints one JSON object and nothing else with json', async () => {
  const { io, out } = memoryIo();
  const result = await runDemo({ ...SMALL, json: true }, io);
  expect(out().trim().split('\n')).toHaveLength(1);
  expect(JSON.parse(out())).toEqual(JSON.parse(JSON.stringify(result)));
});

test('the same seed gives the same, another seed something else', async () => {
  const run = (seed: number) => runDemo({ ...SMALL, seed }, memoryIo().io).then(numbers);
  const [one, same, other] = [await run(1), await run(1), await run(2)];
  expect(same).toEqual(one);
  expect(other.mass).not.toEqual(one.mass);
});

test('draws a bar on a terminal and removes it', async () => {
  const { io, err } = memoryIo(true);
  await runDemo(SMALL, io);
  expect(err()).toMatch(/ 9\d% {2}report/); // faster stages may come and go between two drawings
  expect(err()).toContain('█');
  expectCleared(err());
});

test('exported tokens give the same result without the video', async () => {
  const path = file('tokens.safetensors');
  const one = await runDemo({ ...SMALL, exportTokens: path }, memoryIo().io);
  const { grid: _grid, ...rest } = SMALL;
  const other = await runDemo({ ...rest, tokens: path }, memoryIo().io);
  expect(numbers(other)).toEqual(numbers(one));
  expect(other.source).toEqual({ ...one.source, kind: 'tokens' });
});

test.each(['bfloat16', 'float16'])('runs in %s', async (dtype) => {
  const [half, full] = [await runDemo({ ...SMALL, dtype }, memoryIo().io), await runDemo(SMALL, memoryIo().io)];
  expect(half.dtype).toBe(dtype);
  expect(half.mass.best).toBeCloseTo(full.mass.best, 1);
});

testWithFfmpeg('runs on a video', async () => {
  const video = makeVideo(file('pattern.mkv'), { frames: 20, size: '160x96' });
  const result = await runDemo({ ...SMALL, video, heads: 5, headDim: 96 }, memoryIo().io);
  expect(result.source).toEqual({ kind: 'video', name: 'pattern.mkv', frames: 17, width: 144, height: 96 });
  expect(result.heads.map(({ kind }) => kind)).toEqual(['content', 'local', 'temporal', 'mixed', 'content']);
  expect(JSON.stringify(result)).not.toContain(`${folder}/pattern`);
  expect(readFileSync(file('report.html'), 'utf8')).not.toContain(folder);
});

testWithFfmpeg('a video of one colour is no reason to fail', async () => {
  const video = file('black.mkv');
  const args = ['-v', 'error', '-y', '-f', 'lavfi', '-i', 'color=black:size=64x64:rate=5', '-frames:v', '17', video];
  expect(spawnSync('ffmpeg', args).status).toBe(0);
  const result = await runDemo({ ...SMALL, video }, memoryIo().io);
  for (const { error, mass } of result.heads) {
    expect(error.selected.relative).toBe(0);
    expect(Number.isFinite(mass.selected)).toBe(true);
  }
});

test('the smallest grid is one token', async () => {
  const result = await runDemo({ ...SMALL, grid: '1x1x1' }, memoryIo().io);
  expect(result).toMatchObject({ topK: 1, grid: { tiles: 1 } });
  expect(result.mass.selected).toBeCloseTo(1, 6);
});

describe('what fails says so, and leaves no file and no tensor', () => {
  test.each<[string, DemoOptions, string]>([
    ['a wrong option', { sparsity: 2 }, 'ERR_ARGUMENT'],
    ['an unknown device', { device: 'abacus' }, 'ERR_DEVICE'],
    ['a missing video', { video: file('nowhere.mp4') }, 'ERR_FILE'],
    ['a missing tokens file', { tokens: file('nowhere.safetensors'), grid: undefined }, 'ERR_FILE'],
    ['a report in a missing folder', { out: file('nowhere/report.html') }, 'ERR_FILE'],
    ['a report in place of a folder', { out: folder }, 'ERR_FILE'],
    ['tokens to a missing folder', { exportTokens: file('nowhere/t.safetensors') }, 'ERR_FILE'],
  ])('%s', async (_name, options, code) => {
    const before = memory();
    const inside = file('empty');
    mkdirSync(inside, { recursive: true });
    const { io, out } = memoryIo();
    const error = await failureOf(() => runDemo({ ...SMALL, out: join(inside, 'report.html'), ...options }, io));
    expect(error.code).toBe(code);
    expect(out()).toBe('');
    expect(readdirSync(inside)).toEqual([]);
    expect(memory()).toEqual(before);
  });

  test('an older report stays as it was', async () => {
    const out = file('old.html');
    writeFileSync(out, 'old');
    await failureOf(() => runDemo({ ...SMALL, out, video: file('nowhere.mp4') }, memoryIo().io));
    expect(readFileSync(out, 'utf8')).toBe('old');
  });

  test('a bar is removed from the terminal', async () => {
    const { io, err } = memoryIo(true);
    await failureOf(() => runDemo({ ...SMALL, video: file('nowhere.mp4') }, io));
    expectCleared(err());
  });
});

test('files that could not be written are found out before the work', async () => {
  const { io, err } = memoryIo();
  await failureOf(() => runDemo({ ...SMALL, out: file('nowhere/report.html') }, io));
  expect(err()).toBe('');
  expect(existsSync(file('nowhere'))).toBe(false);
});
