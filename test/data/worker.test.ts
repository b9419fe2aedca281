/** The loader's thread: how far ahead it goes, how its errors arrive, and how it ends. It runs what is built in dist. */
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { ClipLoader } from '../../lib/data/loader.js';
import type { ClipLoaderOptions } from '../../lib/data/loader.js';
import { VsaRangeError } from '../../lib/errors.js';
import { ROOT, runNode } from '../binding/node.js';
import { failureOf, temporaryFolder } from '../demo/support.js';
import { Fixture, until } from './support.js';
import type { FixtureOptions } from './support.js';

const folder = temporaryFolder();
const loaders: ClipLoader[] = [];
afterEach(async () => {
  await Promise.all(loaders.splice(0).map((loader) => loader.close()));
});

/** A loader of the fixture's clips, in order, closed after the test. */
function open(fixture: FixtureOptions, options: Partial<ClipLoaderOptions> = {}): ClipLoader {
  const source = new Fixture(fixture);
  const loader = new ClipLoader({ source, batchSize: 2, shuffle: false, prefetch: 2, ...options });
  loaders.push(loader);
  return loader;
}

test('the clips are made by the worker, from what the source tells of itself', async () => {
  const loader = open({});
  for (let batch = 0; batch < 5; batch++) {
    const { tokens, clips } = await loader.next();
    expect([clips, tokens[0], tokens[192], tokens.length]).toEqual([[2 * batch, 2 * batch + 1], ...clips, 384]);
  }
});

test('it makes as many batches ahead as it may, and no more', async () => {
  const asked = new SharedArrayBuffer(4);
  const count = (): number => Atomics.load(new Int32Array(asked), 0);
  const loader = open({ asked }, { prefetch: 3 });
  expect(count()).toBe(0); // nothing before somebody asks
  for (let batch = 1; batch <= 3; batch++) {
    await loader.next();
    const most = 2 * (batch + 3);
    await until(() => count() === most);
    await new Promise((resume) => setTimeout(resume, 30));
    expect(count()).toBe(most);
  }
});

describe('an error', () => {
  test('of the source arrives at its batch, as it was thrown, and the batches after it come', async () => {
    const loader = open({ fault: { at: 5, does: 'throw' } });
    expect((await loader.next()).clips).toEqual([0, 1]);
    expect((await loader.next()).clips).toEqual([2, 3]);
    const error = await loader.next().catch((thrown: unknown) => thrown as Error);
    expect(error).toMatchObject({ name: 'SyntaxError', message: 'clip 5 is bad', cause: expect.anything() as unknown });
    expect((error as Error).stack).toContain('source.cjs');
    expect((await loader.next()).clips).toEqual([6, 7]);
  });

  test('of this package keeps its class, fields and cause', async () => {
    const loader = open({ fault: { at: 0, does: 'throw ours' } });
    const error = await failureOf(() => loader.next());
    expect(error).toBeInstanceOf(VsaRangeError);
    expect(error).toMatchObject({ code: 'ERR_GRID', argument: 'clip', got: 'a bad one', wanted: 'a good one' });
    expect(error).toMatchObject({ message: 'clip: got a bad one, wanted a good one', name: 'VsaRangeError' });
    expect(error.cause).toMatchObject({ code: 'ENOENT', message: 'no such file' });
  });

  test('frames of another length', async () => {
    const loader = open({ fault: { at: 1, does: 'short' } });
    expect(await failureOf(() => loader.next())).toMatchObject({ code: 'ERR_SHAPE', argument: 'clip 1' });
  });

  test('of a source that cannot be made arrives at every batch', async () => {
    const loader = open({ broken: true });
    await expect(loader.next()).rejects.toThrow('no source today');
    await expect(loader.next()).rejects.toThrow('no source today');
    const nowhere = new Fixture();
    nowhere.describe = () => ({ kind: 'module', file: join(folder, 'nowhere.mjs') });
    await expect(open({}, { source: nowhere }).next()).rejects.toThrow(/nowhere\.mjs/);
  });

  test('of a description that cannot be copied to a worker, and the worker that is made after it', async () => {
    const source = new Fixture();
    const describe = source.describe.bind(source);
    source.describe = () => ({ kind: 'module', file: 'any.cjs', options: { draw: () => 0 } });
    const loader = open({}, { source });
    const error = await failureOf(() => loader.next());
    expect(error).toMatchObject({ code: 'ERR_ARGUMENT', argument: 'source' });
    expect(error.message).toMatch(/cannot be copied: .*could not be cloned/);
    source.describe = describe;
    expect((await loader.next()).clips).toEqual([0, 1]);
  });

  test.each([
    ['crash', /worker that ended with code 1: .*JSON/],
    ['exit', /worker that ended with code 7/],
  ] as const)('a worker that ends (%s) fails what is waited for and every further call', async (does, message) => {
    const loader = open({ fault: { at: 3, does } }, { prefetch: 1 });
    expect((await loader.next()).clips).toEqual([0, 1]);
    const failures = await Promise.all([failureOf(() => loader.next()), failureOf(() => loader.next())]);
    failures.push(await failureOf(() => loader.next()));
    for (const error of failures) {
      expect(error).toMatchObject({ code: 'ERR_WORKER', argument: 'source' });
      expect(error.message).toMatch(message);
    }
  });
});

describe('close', () => {
  test.each(['hang', 'spin'] as const)('ends a worker whose clip never comes (%s)', async (does) => {
    const asked = new SharedArrayBuffer(4);
    const loader = open({ asked, fault: { at: 0, does } }, { batchSize: 1 });
    const waiting = failureOf(() => loader.next());
    await until(() => Atomics.load(new Int32Array(asked), 0) > 0);
    await loader.close();
    expect(await waiting).toMatchObject({ code: 'ERR_DISPOSED' });
  });

  test('before anything was asked starts nothing', async () => {
    const asked = new SharedArrayBuffer(4);
    const loader = open({ asked });
    await loader.close();
    expect(await failureOf(() => loader.next())).toMatchObject({ code: 'ERR_DISPOSED' });
    expect(Atomics.load(new Int32Array(asked), 0)).toBe(0);
  });

  test('after a crash', async () => {
    const loader = open({ fault: { at: 0, does: 'exit' } });
    await failureOf(() => loader.next());
    await loader.close();
    expect(await failureOf(() => loader.next())).toMatchObject({ code: 'ERR_DISPOSED' });
  });
});

describe('a process', () => {
  const DATA = JSON.stringify(join(ROOT, 'dist', 'data', 'index.js'));

  test('ends while the worker is ahead, and waits for a batch that is waited for', async () => {
    const outcome = await runNode(`
      const { ClipLoader, MovingShapes } = require(${DATA});
      const loader = new ClipLoader({ source: new MovingShapes(), batchSize: 2 });
      loader.next().then(({ shape }) => console.log(shape.join()));`);
    expect(outcome).toEqual({ code: 0, signal: null, stdout: '2,1024,192\n', stderr: '' });
  });

  test('of an ES module given as text, whose options are not for the worker', async () => {
    const source = `
      import data from ${DATA};
      const loader = new data.ClipLoader({ source: new data.MovingShapes(), batchSize: 2 });
      console.log((await loader.next()).clips.join());`;
    const outcome = await runNode(source, { flags: ['--input-type=module'] });
    expect(outcome).toEqual({ code: 0, signal: null, stdout: '0,1\n', stderr: '' });
  });

  describe('whose worker reads videos', () => {
    /** In ffmpeg's place: gives the first clip; for the others it writes a byte now and then, without an end. */
    const program = join(folder, 'ffmpeg');
    const pidFile = join(folder, 'pid');
    const SOURCE = `
      const { ClipLoader, VideoFolder } = require(${DATA});
      const videos = [{ name: 'any.mp4', frames: 8, clips: 4 }];
      const source = new VideoFolder({
        folder: ${JSON.stringify(folder)}, shape: [2, 8, 8], fps: 8, stride: 2, cacheBytes: 0, videos });
      const loader = new ClipLoader({ source, batchSize: 1, shuffle: false, prefetch: 1 });
      const until = async (file) => {
        while (!require('node:fs').existsSync(file)) await new Promise((resume) => setTimeout(resume, 5));
      };`;

    beforeEach(() => {
      rmSync(pidFile, { force: true });
      writeFileSync(join(folder, 'any.mp4'), 'anything');
      const text = `#!${process.execPath}
        const { renameSync, writeFileSync } = require('node:fs');
        if (!process.argv.includes('-frames:v')) process.exit(1);
        if (process.argv[process.argv.indexOf('-frames:v') + 1] === '2') {
          process.stdout.write(Buffer.alloc(2 * 8 * 8 * 3));
        } else {
          writeFileSync('${pidFile}.new', String(process.pid));
          renameSync('${pidFile}.new', '${pidFile}');
          setInterval(() => process.stdout.write('x'), 20);
        }`;
      writeFileSync(program, text);
      chmodSync(program, 0o755);
    });

    /** Runs a program to its end; the ffmpeg that it left behind must end, too. */
    async function run(body: string): Promise<string> {
      const outcome = await runNode(`${SOURCE}\n(async () => { ${body} })();`, { env: { VSA_FFMPEG: program } });
      expect(outcome).toMatchObject({ code: 0, stderr: '' });
      const pid = readFileSync(pidFile, 'utf8');
      await until(() => !existsSync(`/proc/${pid}`));
      return outcome.stdout;
    }

    // The first clip is complete, the second starts at frame 2: two frames are skipped, and four read.
    test('gets bytes as numbers in [-1, 1]; close ends the ffmpeg that is under way', async () => {
      const stdout = await run(`
        const { tokens } = await loader.next();
        const waiting = loader.next().catch((error) => error);
        await until(${JSON.stringify(pidFile)});
        await loader.close();
        const black = tokens.every((value) => value === -1);
        console.log(JSON.stringify([tokens.length, black, (await waiting).code]));`);
      expect(JSON.parse(stdout)).toEqual([384, true, 'ERR_DISPOSED']);
    });

    test('may end in the middle of a clip, and its ffmpeg ends, too', async () => {
      await run(`await loader.next(); await until(${JSON.stringify(pidFile)});`);
    });
  });
});
