import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { memory } from '../../../lib/index.js';
import type { DemoIo } from '../../../lib/demo/progress.js';
import { runTrainingDemo } from '../../../lib/demo/training/run.js';
import { type Job, JOBS, type TrainingDemoOptions } from '../../../lib/demo/training/settings.js';
import type { TrainingDemoResult } from '../../../lib/demo/training/summary.js';
import { openPage } from '../browser-page.js';
import { browser, failureOf, memoryIo, temporaryFolder, testWithBrowser } from '../support.js';
import { here } from '../../under-test.js';

const folder = temporaryFolder();
const file = (name: string) => join(folder, name);

/** 256 tokens in 4 tiles, two layers of one head. */
const JOB: Job = {
  ...JOBS.cpu,
  model: {
    ...{ video: [4, 32, 32], patch: [1, 4, 4], width: 64, heads: 1, layers: 2, ffn: 128, sparsity: 0.5 },
    ...{ learningRate: 3e-3, warmup: 5 },
  },
  ...{ heldOut: 2, samples: 2, samplingSteps: 4 },
};
const jobs = { cpu: JOB, cuda: JOB };
const SMALL: TrainingDemoOptions = { steps: 5, device: here.toString() };

async function run(options: TrainingDemoOptions, io: DemoIo = memoryIo().io): Promise<TrainingDemoResult> {
  return (await runTrainingDemo({ ...SMALL, ...options }, io, { jobs }))!;
}

/** What does not depend on how long things took. */
function numbers({
  time: _time,
  seconds: _seconds,
  report: _report,
  reportBytes: _bytes,
  ...rest
}: TrainingDemoResult) {
  return rest;
}
const pictures = (path: string) => readFileSync(path, 'utf8').match(/data:image\/png;base64,iVBOR[^"]*/g)!;

describe('a few steps', () => {
  const path = file('report.html');
  let result: TrainingDemoResult;
  let said: { out: string; err: string };
  let html = '';
  beforeAll(async () => {
    const before = memory();
    const { io, out, err } = memoryIo();
    result = await run({ out: path }, io);
    expect(memory()).toEqual(before);
    said = { out: out(), err: err() };
    html = readFileSync(path, 'utf8');
  });

  test('leave a page and a summary', () => {
    expect(readdirSync(folder)).toEqual(['report.html']);
    expect(html).toMatch(/^<!doctype html>[^]*<\/html>\n$/);
    expect(result).toMatchObject({
      ...{ report: path, reportBytes: Buffer.byteLength(html), seed: 1, steps: 5 },
      model: { layers: 2, heads: 1, width: 64, dtype: 'float32' },
      clips: { video: [4, 32, 32], tokens: [4, 8, 8], length: 256, batch: 1 },
      selection: { topK: 2, tiles: 4, sparsity: 0.5 },
      denoising: [{ time: 0.5 }, { time: 0.75 }],
    });
    for (const text of ['2 of 4 tiles', `Report: ${path}`, '5 in']) expect(said.out).toContain(text);
    expect(said.err).toMatch(/parameters, 2 layers, 4x8x8 = 256 tokens.*\nstep 5 of 5: loss .*\npictures: .* s\n/);
  });

  test('begin with a model that changes nothing, on clips with the noise that belongs to the time', () => {
    const [half, most] = result.denoising;
    for (const { noisy, before } of [half!, most!]) expect(before).toBe(noisy);
    expect(most!.noisy / half!.noisy).toBeCloseTo((0.75 / 0.5) ** 2, 3); // the same noise
    expect(result.flops.attention.vsa).toBeGreaterThan(result.flops.attention.dense / 2); // and the coarse stage
    expect(result.flops.attention.vsa).toBeLessThan(result.flops.attention.dense);
    expect(result.selection.held).toBeGreaterThan(0);
  });

  test('are shown on one page that loads nothing and says nothing odd', () => {
    // Two clips: as they are, and twice with noise, untrained, trained; two that were drawn.
    expect(pictures(path)).toHaveLength(2 * 7 + 2);
    expect(html.match(/<img/g)).toHaveLength(2 * 7 + 2);
    expect(html).toContain("default-src 'none'");
    const words = html.replace(/base64,[^"]*/g, '').replace(/<style>[^]*<\/style>/, '');
    expect(words).not.toMatch(/<script|https?:|NaN|undefined|Infinity|\[object/);
    for (const text of ['2 of 4 tiles', '4×4×4', result.denoising[0]!.after.toFixed(3), 'time 0.75']) {
      expect(words).toContain(text);
    }
  });

  testWithBrowser('open in a browser without an error: pictures decoded, curve drawn, nothing too wide', async () => {
    const page = await openPage(browser!, path);
    try {
      const seen = await page.evaluate(`({
        pictures: [...document.images].filter((i) => i.naturalWidth === 4 * 32 && i.naturalHeight === 32 && i.alt).length,
        large: [...document.querySelectorAll('.clip')].every((c) => c.clientWidth > 64 && Math.abs(c.clientWidth - c.clientHeight) < 2),
        moving: document.getAnimations().filter((a) => a.playState === 'running').length,
        curves: [...document.querySelectorAll('.chart path')].map((p) => p.getTotalLength() > 100),
        layers: document.querySelectorAll('.meter.vsa').length,
        maps: document.querySelectorAll('.offsets figure').length,
        wide: document.documentElement.scrollWidth <= window.innerWidth,
      })`);
      expect(seen).toEqual({ pictures: 16, large: true, moving: 16, curves: [true], layers: 2, maps: 2, wide: true });
      expect(page.errors()).toEqual([]);
    } finally {
      await page.close();
    }
  });

  test('come out the same for the same seed, and otherwise for another', async () => {
    const [same, other] = [file('same.html'), file('other.html')];
    expect(numbers(await run({ out: same }))).toEqual(numbers(result));
    expect(pictures(same)).toEqual(pictures(path));
    expect((await run({ out: other, seed: 2 })).loss).not.toEqual(result.loss);
    expect(pictures(other)[0]).not.toBe(pictures(path)[0]);
  });
});

test('prints one JSON object and nothing else with json', async () => {
  const { io, out } = memoryIo();
  const result = await run({ out: file('json.html'), json: true }, io);
  expect(out().trim().split('\n')).toHaveLength(1);
  expect(JSON.parse(out())).toEqual(JSON.parse(JSON.stringify(result)));
});

test('learns to take noise off clips that it has never seen', async () => {
  const { denoising, loss } = await run({ out: file('learning.html'), steps: 100 });
  expect(loss.last).toBeLessThan(0.5 * loss.first);
  for (const { noisy, after } of denoising) expect(after).toBeLessThan(0.5 * noisy);
});

test('takes as many steps as fit into the minutes, by the clock of the first', async () => {
  const result = await run({ out: file('minutes.html'), steps: undefined, minutes: 0.01 });
  expect(result.steps).toBeGreaterThanOrEqual(20);
  expect(result.time.seconds).toBeLessThan(30);
});

describe('what does not end well leaves no file and no tensor', () => {
  const inside = file('empty');
  beforeAll(() => mkdirSync(inside));

  test.each([0, 1])('a signal, %i lines after the start', async (lines) => {
    const before = memory();
    const controller = new AbortController();
    if (lines === 0) controller.abort();
    const { io, out } = memoryIo();
    const write = io.stderr.write.bind(io.stderr);
    io.stderr.write = (text: string | Uint8Array) => {
      controller.abort();
      return write(text);
    };
    const options = { ...SMALL, steps: 100_000, out: join(inside, 'report.html') };
    expect(await runTrainingDemo(options, io, { jobs, signal: controller.signal })).toBeUndefined();
    expect(out()).toBe('');
    expect(readdirSync(inside)).toEqual([]);
    expect(memory()).toEqual(before);
  });

  test.each<[string, TrainingDemoOptions, string]>([
    ['a wrong option', { steps: -1 }, 'ERR_ARGUMENT'],
    ['an unknown device', { device: 'abacus' }, 'ERR_DEVICE'],
    ['a page in a missing folder', { out: file('nowhere/report.html') }, 'ERR_FILE'],
    ['a page in place of a folder', { out: folder }, 'ERR_FILE'],
  ])('%s, found out before the work', async (_name, options, code) => {
    const { io, out, err } = memoryIo();
    const error = await failureOf(() => run({ out: join(inside, 'report.html'), ...options }, io));
    expect({ code: error.code, out: out(), err: err() }).toEqual({ code, out: '', err: '' });
    expect(readdirSync(inside)).toEqual([]);
    expect(existsSync(file('nowhere'))).toBe(false);
  });

  test('an older page stays as it was', async () => {
    const out = file('old.html');
    writeFileSync(out, 'old');
    const signal = AbortSignal.abort();
    await runTrainingDemo({ ...SMALL, out }, memoryIo().io, { jobs, signal });
    expect(readFileSync(out, 'utf8')).toBe('old');
  });
});
