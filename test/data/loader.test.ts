import { ClipLoader } from '../../lib/data/loader.js';
import type { ClipBatch, ClipLoaderOptions } from '../../lib/data/loader.js';
import { MovingShapes } from '../../lib/data/moving-shapes.js';
import { patchify } from '../../lib/media/patches.js';
import { failureOf, sameBits } from '../demo/support.js';
import { Numbered } from './support.js';

const shapes = (count?: number): MovingShapes =>
  new MovingShapes({ frames: 2, height: 16, width: 24, seed: 11, ...(count && { count }) });

/** The first batches of a loader, which is then closed. */
async function batches(options: ClipLoaderOptions, count: number): Promise<ClipBatch[]> {
  const loader = new ClipLoader(options);
  const list: ClipBatch[] = [];
  for (let i = 0; i < count; i++) list.push(await loader.next());
  await loader.close();
  return list;
}

/** Everything of a batch but for its tokens. */
const plan = ({ tokens: _, ...rest }: ClipBatch): unknown => rest;

function expectSame(got: ClipBatch[], wanted: ClipBatch[]): void {
  expect(got.map(plan)).toEqual(wanted.map(plan));
  expect(got.map(({ tokens }, i) => sameBits(tokens, wanted[i]!.tokens))).toEqual(got.map(() => true));
}

test('a batch is the tokens of its clips, one after the other', async () => {
  const source = shapes(10);
  const patch = [1, 8, 4] as const;
  const [batch] = await batches({ source, batchSize: 3, patch, prefetch: 0 }, 1);
  expect(batch).toMatchObject({ shape: [3, 24, 96], position: { epoch: 0, index: 0 }, next: { epoch: 0, index: 3 } });
  for (const [at, index] of batch!.clips.entries()) {
    const wanted = patchify({ frames: await source.clip(index), shape: source.shape, patch });
    expect(sameBits(batch!.tokens.slice(at * wanted.length, (at + 1) * wanted.length), wanted)).toBe(true);
  }
});

describe.each([0, 1, 3])('prefetch: %p', (prefetch) => {
  test('the same batches as without a worker, over epochs that batches do not divide', async () => {
    const options = { source: shapes(7), batchSize: 3, seed: 5 };
    expectSame(await batches({ ...options, prefetch }, 6), await batches({ ...options, prefetch: 0 }, 6));
  });

  test('a loader that starts where another was goes on with exactly the same batches', async () => {
    const options = { source: shapes(5), batchSize: 2, seed: 5, prefetch };
    const whole = await batches(options, 6);
    for (const at of [1, 3, 4]) {
      const position = JSON.parse(JSON.stringify(whole[at - 1]!.next)) as ClipBatch['next'];
      expectSame(await batches({ ...options, position }, 6 - at), whole.slice(at));
    }
  });

  test('the position is where the next batch starts, however many are made ahead', async () => {
    const loader = new ClipLoader({ source: shapes(5), batchSize: 2, prefetch });
    expect(loader.position).toEqual({ epoch: 0, index: 0 });
    for (let i = 0; i < 4; i++) {
      const position = loader.position;
      const batch = await loader.next();
      expect([batch.position, batch.next]).toEqual([position, loader.position]);
    }
    expect(loader.position).toEqual({ epoch: 1, index: 3 });
    await loader.close();
  });

  test('calls that do not wait for each other get the batches in order', async () => {
    const options = { source: shapes(), batchSize: 2, prefetch };
    const loader = new ClipLoader(options);
    const got = await Promise.all([loader.next(), loader.next(), loader.next(), loader.next(), loader.next()]);
    await loader.close();
    expectSame(got, await batches({ ...options, prefetch: 0 }, 5));
  });

  test('close: a call that waits and every further one fail', async () => {
    const loader = new ClipLoader({ source: shapes(), batchSize: 2, prefetch });
    await loader.next();
    const waiting = failureOf(() => loader.next());
    await Promise.all([loader.close(), loader.close()]);
    expect(await waiting).toMatchObject({ code: 'ERR_DISPOSED', argument: 'ClipLoader' });
    expect(await failureOf(() => loader.next())).toMatchObject({ code: 'ERR_DISPOSED' });
    await loader.close();
  });
});

test('without shuffling clips come in order, epoch after epoch', async () => {
  const list = await batches({ source: new Numbered(5), batchSize: 3, shuffle: false, prefetch: 0 }, 4);
  expect(list.map(({ clips }) => clips)).toEqual([[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1]]); // prettier-ignore
  expect(list[1]!.tokens.filter((_, i) => i % 192 === 0)).toEqual(Float32Array.of(3, 4, 0));
});

test('for await gives the batches, and leaving the loop closes nothing', async () => {
  await using loader = new ClipLoader({ source: new Numbered(), batchSize: 1, shuffle: false, prefetch: 0 });
  const seen: number[] = [];
  for await (const { clips } of loader) {
    seen.push(clips[0]!);
    if (seen.length === 3) break;
  }
  expect([...seen, ...(await loader.next()).clips]).toEqual([0, 1, 2, 3]);
});

test('an error belongs to its batch; the call after it gives the next one', async () => {
  const source = new Numbered(6);
  source.clip = (index) => (index === 3 ? Promise.reject(new Error('three')) : Promise.resolve(new Float32Array(192)));
  const loader = new ClipLoader({ source, batchSize: 2, shuffle: false, prefetch: 0 });
  expect((await loader.next()).clips).toEqual([0, 1]);
  await expect(loader.next()).rejects.toThrow('three');
  expect((await loader.next()).clips).toEqual([4, 5]);
});

test('of several clips that fail the first of the batch is told, not the first in time', async () => {
  const source = new Numbered(4);
  source.clip = async (index) => {
    if (index === 0) await new Promise((resume) => setTimeout(resume, 20));
    throw new Error(`clip ${index}`);
  };
  const loader = new ClipLoader({ source, batchSize: 2, shuffle: false, prefetch: 0 });
  await expect(loader.next()).rejects.toThrow('clip 0');
});

test('a source that gives something else than its frames', async () => {
  for (const [value, code] of [
    [new Float32Array(191), 'ERR_SHAPE'],
    [new Float64Array(192), 'ERR_ARGUMENT'],
    [undefined, 'ERR_ARGUMENT'],
  ] as const) {
    const source = new Numbered();
    source.clip = () => Promise.resolve(value as Float32Array);
    const loader = new ClipLoader({ source, batchSize: 1, shuffle: false, prefetch: 0 });
    expect(await failureOf(() => loader.next())).toMatchObject({ code, argument: 'clip 0' });
  }
});

describe('bad options', () => {
  const source = new Numbered();
  const good = { source, batchSize: 2, prefetch: 0 };
  test.each([
    ['source', { source: undefined }, 'ERR_ARGUMENT'],
    ['source', { source: { count: 3 } }, 'ERR_ARGUMENT'],
    ['source.count', { source: Object.assign(new Numbered(), { count: 0 }) }, 'ERR_ARGUMENT'],
    ['source.count', { source: Object.assign(new Numbered(), { count: NaN }) }, 'ERR_ARGUMENT'],
    ['shape', { source: Object.assign(new Numbered(), { shape: [1, 8] }) }, 'ERR_SHAPE'],
    ['source', { prefetch: 1 }, 'ERR_ARGUMENT'], // a local source, which no worker can make
    ['source', { source: Object.assign(new Numbered(), { describe: undefined }), prefetch: 1 }, 'ERR_ARGUMENT'],
    ['batchSize', { batchSize: 0 }, 'ERR_ARGUMENT'],
    ['batchSize', { batchSize: undefined }, 'ERR_ARGUMENT'],
    ['patch', { patch: [1, 8] }, 'ERR_SHAPE'],
    ['shape', { patch: [1, 8, 3] }, 'ERR_SHAPE'],
    ['seed', { seed: -1 }, 'ERR_ARGUMENT'],
    ['shuffle', { shuffle: 1 }, 'ERR_ARGUMENT'],
    ['prefetch', { prefetch: 65 }, 'ERR_ARGUMENT'],
    ['prefetch', { prefetch: true }, 'ERR_ARGUMENT'],
    ['position', { position: { epoch: 0, batch: 1 } }, 'ERR_ARGUMENT'],
    ['position.epoch', { position: { epoch: -1, index: 0 } }, 'ERR_ARGUMENT'],
    ['position.index', { position: { epoch: 0, index: 100 } }, 'ERR_ARGUMENT'],
    ['position.epoch', { source: shapes(), position: { epoch: 1, index: 0 } }, 'ERR_ARGUMENT'],
    ['options', { batch: 2 }, 'ERR_ARGUMENT'],
  ])('%s: %p', async (argument, options, code) => {
    const bad = { ...good, ...options } as unknown as ClipLoaderOptions;
    expect(await failureOf(() => new ClipLoader(bad))).toMatchObject({ code, argument });
  });
});
