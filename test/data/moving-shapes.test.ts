import { join } from 'node:path';

import { colorOf, distanceOf, REACH, SHAPE_KINDS } from '../../lib/data/drawing.js';
import { MovingShapes, movingShapes } from '../../lib/data/moving-shapes.js';
import type { MovingShapesOptions } from '../../lib/data/moving-shapes.js';
import { ROOT, runNode } from '../binding/node.js';
import { failureOf, sameBits } from '../demo/support.js';
import { checksum } from './support.js';

const SMALL = { frames: 4, height: 24, width: 32 };

/** If these change, every run that was saved goes on with other clips than it began with. */
test.each([
  ['5f05d72a8c06fae0', {}],
  ['0e44b848ac237e77', { seed: 1 }],
  ['6e7892ff83c8800f', { index: 1 }],
  ['4131ca9d3148c937', { seed: 2 ** 53 - 1, index: 2 ** 40 }],
  ['66950ca90b35711a', { seed: 7, index: 3, frames: 5, height: 24, width: 40, shapes: [6, 6] as const }],
  ['4c7edf115e95eebb', { frames: 1, height: 1, width: 1 }],
])('clip %s', (wanted, options) => {
  expect(checksum(movingShapes(options))).toBe(wanted);
});

test('a clip depends on its seed and its index alone', () => {
  const forwards = Array.from({ length: 6 }, (_, index) => movingShapes({ ...SMALL, seed: 3, index }));
  const backwards = Array.from({ length: 6 }, (_, i) => movingShapes({ ...SMALL, seed: 3, index: 5 - i })).reverse();
  expect(forwards.every((clip, index) => sameBits(clip, backwards[index]!))).toBe(true);
  expect(new Set(forwards.map(checksum)).size).toBe(6);
  expect(sameBits(movingShapes({ ...SMALL, seed: 4 }), forwards[0]!)).toBe(false);
});

test('the first frames of a longer clip are those of a shorter one', () => {
  const long = movingShapes({ ...SMALL, frames: 9 });
  const short = movingShapes(SMALL);
  expect(sameBits(long.slice(0, short.length), short)).toBe(true);
});

test('values are in [-1, 1], every frame differs from the one before, and edges are soft', () => {
  for (let index = 0; index < 6; index++) {
    const clip = movingShapes({ index, height: 32, width: 32 });
    expect(clip.every((value) => value >= -1 && value <= 1)).toBe(true);
    const frames = Array.from({ length: 16 }, (_, f) => clip.slice(f * 3072, (f + 1) * 3072));
    const still = frames.filter((frame, f) => f > 0 && sameBits(frame, frames[f - 1]!));
    expect([index, still.length]).toEqual([index, 0]);
    // A gradient has one colour a row, shapes have one each: all others are mixed at edges.
    const colours = new Set(Array.from({ length: 1024 }, (_, at) => frames[0]!.slice(at * 3, at * 3 + 3).join()));
    expect(colours.size).toBeGreaterThan(32 + 4);
  }
});

test('shapes stay inside the frame', () => {
  const [height, width] = [40, 56];
  for (let index = 0; index < 10; index++) {
    const clip = movingShapes({ index, frames: 60, height, width, shapes: [1, 1] });
    // Outside of shapes the rows have one colour: the first and last pixel are never covered.
    for (let row = 0; row < 60 * height; row++) {
      const [first, last] = [row * width * 3, (row * width + width - 1) * 3];
      if (clip[first] !== clip[last]) throw new Error(`clip ${index}, row ${row}: a shape touches the edge`);
    }
  }
});

describe.each(SHAPE_KINDS)('a %s', (kind) => {
  test('is drawn, of a share of the frame', () => {
    const clip = movingShapes({ frames: 1, height: 64, width: 64, kinds: [kind], shapes: [1, 1], seed: 5 });
    let covered = 0;
    for (let pixel = 0; pixel < 4096; pixel++) {
      const edge = Math.floor(pixel / 64) * 64 * 3; // the background of the row
      if ([0, 1, 2].some((c) => clip[pixel * 3 + c] !== clip[edge + c])) covered++;
    }
    expect(covered / 4096).toBeGreaterThan(0.01);
    expect(covered / 4096).toBeLessThan(0.2);
  });

  test('changes by at most a pixel from a pixel to the next, and ends where it says', () => {
    let [steepest, farthest] = [0, 0];
    for (let digit = 0; digit < (kind === 'digit' ? 10 : 1); digit++) {
      const distance = distanceOf(kind, 10, digit);
      for (let y = -15; y <= 15; y++) {
        for (let x = -15; x <= 15; x++) {
          const here = distance(x, y);
          steepest = Math.max(steepest, Math.abs(distance(x + 1, y) - here), Math.abs(distance(x, y + 1) - here));
          if (here < 0) farthest = Math.max(farthest, Math.sqrt(x * x + y * y));
        }
      }
    }
    expect(steepest).toBeLessThanOrEqual(1 + 1e-9);
    expect(farthest).toBeLessThanOrEqual(10 * REACH);
  });
});

test('the ten digits differ', () => {
  const draw = (digit: number): string => {
    const distance = distanceOf('digit', 10, digit);
    return Array.from({ length: 400 }, (_, i) => distance((i % 20) - 10, Math.floor(i / 20) - 10) < 0).join();
  };
  expect(new Set(Array.from({ length: 10 }, (_, digit) => draw(digit))).size).toBe(10);
});

test('colours: hue, saturation, value', () => {
  expect(colorOf(0, 1, 1)).toEqual([1, -1, -1]);
  expect(colorOf(1 / 3, 1, 1)).toEqual([-1, 1, -1]);
  expect(colorOf(2 / 3, 1, 1)).toEqual([-1, -1, 1]);
  expect(colorOf(0.7, 0, 1)).toEqual([1, 1, 1]);
  expect(colorOf(0.4, 0.5, 0)).toEqual([-1, -1, -1]);
});

test('as a source: clip i is that of index i, and its description makes it again', async () => {
  const source = new MovingShapes({ ...SMALL, seed: 9, shapes: [1, 2], kinds: ['digit'], count: 3 });
  expect([source.count, source.shape]).toEqual([3, [4, 24, 32]]);
  const again = new MovingShapes(structuredClone(source.describe().options));
  const wanted = movingShapes({ ...SMALL, seed: 9, shapes: [1, 2], kinds: ['digit'], index: 2 });
  expect(sameBits(await source.clip(2), wanted)).toBe(true);
  expect(sameBits(await again.clip(2), wanted)).toBe(true);
  expect([new MovingShapes().count, new MovingShapes(new MovingShapes().describe().options).count]).toEqual([
    Infinity,
    Infinity,
  ]);
  for (const index of [3, -1, 0.5, '0']) {
    expect(await failureOf(() => source.clip(index as number))).toMatchObject({
      ...{ code: 'ERR_ARGUMENT', argument: 'index' },
    });
  }
});

describe('bad input', () => {
  test.each([
    ['seed', { seed: -1 }, 'ERR_ARGUMENT'],
    ['seed', { seed: 2 ** 53 }, 'ERR_ARGUMENT'],
    ['frames, height, width', { frames: 0 }, 'ERR_SHAPE'],
    ['frames, height, width', { height: 1.5 }, 'ERR_SHAPE'],
    ['frames, height, width', { width: '64' }, 'ERR_SHAPE'],
    ['shapes', { shapes: 3 }, 'ERR_ARGUMENT'],
    ['shapes', { shapes: [1] }, 'ERR_ARGUMENT'],
    ['shapes[0]', { shapes: [0, 2] }, 'ERR_ARGUMENT'],
    ['shapes[1]', { shapes: [3, 2] }, 'ERR_ARGUMENT'],
    ['shapes[1]', { shapes: [3, 33] }, 'ERR_ARGUMENT'],
    ['kinds', { kinds: [] }, 'ERR_ARGUMENT'],
    ['kinds', { kinds: ['star'] }, 'ERR_ARGUMENT'],
    ['kinds', { kinds: 'disc' }, 'ERR_ARGUMENT'],
    ['options', { kind: 'disc' }, 'ERR_ARGUMENT'],
  ])('%s: %p', async (argument, options, code) => {
    const bad = options as MovingShapesOptions;
    expect(await failureOf(() => movingShapes(bad))).toMatchObject({ code, argument });
    expect(await failureOf(() => new MovingShapes(bad))).toMatchObject({ code, argument });
  });

  test('index and count', async () => {
    expect(await failureOf(() => movingShapes({ index: -1 }))).toMatchObject({ argument: 'index' });
    for (const count of [0, 1.5, 2 ** 40, NaN]) {
      expect(await failureOf(() => new MovingShapes({ count }))).toMatchObject({ argument: 'count' });
    }
  });
});

test('a clip of 16 frames of 64x64 takes less than 10 ms', async () => {
  const { code, stdout, stderr } = await runNode(`
    const { movingShapes } = require(${JSON.stringify(join(ROOT, 'dist', 'data', 'moving-shapes.js'))});
    let best = Infinity;
    for (let index = 0; index < 60; index++) {
      const start = performance.now();
      movingShapes({ index });
      best = Math.min(best, performance.now() - start);
    }
    console.log(best);`);
  expect([code, stderr]).toEqual([0, '']);
  expect(Number(stdout)).toBeLessThan(10);
});
