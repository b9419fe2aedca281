import * as fc from 'fast-check';

import { patchGrid, patchify, unpatchify } from '../../lib/media/patches.js';
import { failureOf, sameBits } from '../demo/support.js';

/** 0, 1, 2, ...: a value tells where it was. */
const counted = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => i);

const dim = fc.integer({ min: 1, max: 4 });
const triples = fc.tuple(dim, dim, dim);

test('every number of a token is the pixel that the layout says', () => {
  const [T, Y, X] = [2, 3, 4];
  const [pt, py, px] = [2, 5, 3];
  const [F, H, W] = [T * pt, Y * py, X * px];
  const tokens = patchify({ frames: counted(F * H * W * 3), shape: [F, H, W], patch: [pt, py, px] });
  const channels = pt * py * px * 3;
  let wrong = 0;
  for (let f = 0; f < F; f++) {
    for (let y = 0; y < H; y++) {
      for (let x = 0; x < W; x++) {
        for (let c = 0; c < 3; c++) {
          const token = (Math.floor(f / pt) * Y + Math.floor(y / py)) * X + Math.floor(x / px);
          const channel = (((f % pt) * py + (y % py)) * px + (x % px)) * 3 + c;
          if (tokens[token * channels + channel] !== ((f * H + y) * W + x) * 3 + c) wrong++;
        }
      }
    }
  }
  expect(wrong).toBe(0);
});

test('unpatchify gives back the frames of any grid and patch', () => {
  fc.assert(
    fc.property(triples, triples, (grid, patch) => {
      const shape = [grid[0] * patch[0], grid[1] * patch[1], grid[2] * patch[2]] as const;
      const frames = counted(shape[0] * shape[1] * shape[2] * 3);
      const tokens = patchify({ frames, shape, patch });
      return sameBits(unpatchify({ tokens, shape, patch }), frames);
    }),
  );
});

test('a patch of one pixel leaves everything where it is, and a patch of the whole clip too', () => {
  const frames = counted(2 * 3 * 5 * 3);
  const shape = [2, 3, 5] as const;
  expect(sameBits(patchify({ frames, shape, patch: [1, 1, 1] }), frames)).toBe(true);
  expect(sameBits(patchify({ frames, shape, patch: [2, 3, 5] }), frames)).toBe(true);
});

test('patchGrid tells the grid, and takes 1x8x8 patches if none is given', () => {
  expect(patchGrid({ shape: [16, 64, 48] })).toEqual({
    ...{ shape: [16, 64, 48], patch: [1, 8, 8], tokens: [16, 8, 6], length: 768, channels: 192 },
  });
  expect(patchGrid({ shape: [16, 64, 48], patch: [4, 16, 8] })).toMatchObject({ tokens: [4, 4, 6], channels: 1536 });
});

describe('bad input', () => {
  const shape = [1, 8, 8] as const;
  const frames = new Float32Array(192);
  test.each([
    ['a shape that is no multiple', { shape: [1, 8, 9] }, 'ERR_SHAPE', 'shape'],
    ['a shape of two dims', { shape: [8, 8] }, 'ERR_SHAPE', 'shape'],
    ['a shape with 0', { shape: [0, 8, 8] }, 'ERR_SHAPE', 'shape'],
    ['a shape with a fraction', { shape: [1, 8.5, 8] }, 'ERR_SHAPE', 'shape'],
    ['a shape that is a string', { shape: '1x8x8' }, 'ERR_SHAPE', 'shape'],
    ['no shape', { shape: undefined }, 'ERR_SHAPE', 'shape'],
    ['a shape beyond memory', { shape: [2 ** 20, 2 ** 20, 8] }, 'ERR_SHAPE', 'shape'],
    ['a patch with 0', { shape, patch: [1, 0, 8] }, 'ERR_SHAPE', 'patch'],
    ['a patch that is a number', { shape, patch: 8 }, 'ERR_SHAPE', 'patch'],
    ['an unknown option', { shape, stride: 8 }, 'ERR_ARGUMENT', 'options'],
  ])('patchGrid, patchify and unpatchify refuse %s', async (_, options, code, argument) => {
    const bad = options as never;
    expect(await failureOf(() => patchGrid(bad))).toMatchObject({ code, argument });
    expect(await failureOf(() => patchify({ ...options, frames } as never))).toMatchObject({ code, argument });
    expect(await failureOf(() => unpatchify({ ...options, tokens: frames } as never))).toMatchObject({
      code,
      argument,
    });
  });

  test.each([
    ['too few numbers', new Float32Array(191), 'ERR_SHAPE'],
    ['too many', new Float32Array(193), 'ERR_SHAPE'],
    ['float64', new Float64Array(192), 'ERR_ARGUMENT'],
    ['an array', new Array(192).fill(0), 'ERR_ARGUMENT'],
    ['nothing', undefined, 'ERR_ARGUMENT'],
  ])('%s', async (_, values, code) => {
    const bad = values as Float32Array;
    expect(await failureOf(() => patchify({ frames: bad, shape }))).toMatchObject({ code, argument: 'frames' });
    expect(await failureOf(() => unpatchify({ tokens: bad, shape }))).toMatchObject({ code, argument: 'tokens' });
  });

  test('options that are none', async () => {
    for (const none of [undefined, null, 3, []]) {
      expect(await failureOf(() => patchify(none as never))).toMatchObject({ code: 'ERR_ARGUMENT' });
    }
  });
});
