import { CellBuilder, cellsIn, framesFor, quadrantFeatures } from '../../lib/demo/cells.js';
import type { TokenShape } from '../../lib/demo/cells.js';
import { failureOf, noiseBytes } from './support.js';

/** Tokens by their definition: for each feature, the mean over exactly the pixels and frames that it stands for. */
function tokensByDefinition(frames: Uint8Array[], [T, Y, X]: TokenShape): number[] {
  const width = 16 * X;
  const pixel = (frame: number, y: number, x: number, c: number) => frames[frame]![(y * width + x) * 3 + c]!;
  const luma = (frame: number, y: number, x: number) =>
    Math.floor((77 * pixel(frame, y, x, 0) + 150 * pixel(frame, y, x, 1) + 29 * pixel(frame, y, x, 2)) / 256 + 0.5);
  const result: number[] = [];
  for (let t = 0; t < T; t++) {
    const [first, last] = t === 0 ? [0, 0] : [4 * t - 3, 4 * t];
    const average = (top: number, left: number, value: (frame: number, y: number, x: number) => number) => {
      const values: number[] = [];
      for (let f = first; f <= last; f++) {
        for (let y = top; y < top + 4; y++) for (let x = left; x < left + 4; x++) values.push(value(f, y, x));
      }
      return Math.floor(values.reduce((a, b) => a + b) / values.length + 0.5);
    };
    for (let y = 0; y < Y; y++) {
      for (let x = 0; x < X; x++) {
        for (const [cy, cx] of [
          [0, 0],
          [0, 8],
          [8, 0],
          [8, 8],
        ] as const) {
          const corners = [
            [0, 0],
            [0, 4],
            [4, 0],
            [4, 4],
          ].map(([qy, qx]) => [16 * y + cy + qy!, 16 * x + cx + qx!] as const);
          for (const [top, left] of corners) {
            for (const c of [0, 1, 2]) result.push(average(top, left, (f, py, px) => pixel(f, py, px, c)));
          }
          for (const [top, left] of corners) {
            result.push(
              average(top, left, (f, py, px) => (f === 0 ? 0 : Math.abs(luma(f, py, px) - luma(f - 1, py, px)))),
            );
          }
        }
      }
    }
  }
  return result;
}

describe('CellBuilder', () => {
  test.each<TokenShape>([
    [1, 1, 1],
    [3, 2, 3],
    [2, 3, 1],
  ])('gives the tokens of the definition on noise, %d x %d x %d', (...shape) => {
    const builder = new CellBuilder(shape);
    const frames = Array.from({ length: builder.frames }, (_, f) =>
      noiseBytes(builder.width * builder.height * 3, f + 1),
    );
    for (const frame of frames) builder.push(frame);
    expect([...builder.tokens]).toEqual(tokensByDefinition(frames, shape));
  });

  test('does not keep or change the frames it is given', () => {
    const builder = new CellBuilder([2, 1, 1]);
    const frame = new Uint8Array(16 * 16 * 3);
    for (let f = 0; f < 5; f++) {
      frame.fill(f * 10);
      builder.push(frame);
      expect(frame.every((value) => value === f * 10)).toBe(true);
    }
    // Grey: the first cell is frame 0, the second the mean of 10, 20, 30, 40; each frame differs by 10 from the last.
    const { color, change } = quadrantFeatures(0, 0);
    expect([builder.tokens[color], builder.tokens[change]]).toEqual([0, 0]);
    expect([builder.tokens[64 + color], builder.tokens[64 + change]]).toEqual([25, 10]);
  });

  test('the brightest clip with the greatest change fits into its sums and its bytes', () => {
    const builder = new CellBuilder([2, 1, 1]);
    for (let f = 0; f < 5; f++) builder.push(new Uint8Array(16 * 16 * 3).fill(f % 2 === 0 ? 255 : 0));
    const { color, change } = quadrantFeatures(3, 3);
    expect([builder.tokens[64 + color], builder.tokens[64 + change]]).toEqual([128, 255]);
  });

  test('refuses a frame of another size, and one too many', async () => {
    const builder = new CellBuilder([1, 1, 2]);
    const short = await failureOf(() => builder.push(new Uint8Array(10)));
    expect(short).toMatchObject({ code: 'ERR_SHAPE', argument: 'rgb', got: '10 bytes' });
    builder.push(new Uint8Array(32 * 16 * 3));
    const surplus = await failureOf(() => builder.push(new Uint8Array(32 * 16 * 3)));
    expect(surplus).toMatchObject({ code: 'ERR_SHAPE', got: 'frame 2' });
  });
});

test('every feature of a token belongs to one quadrant', () => {
  const used = new Set<number>();
  for (let row = 0; row < 4; row++) {
    for (let column = 0; column < 4; column++) {
      const { color, change } = quadrantFeatures(row, column);
      for (const feature of [color, color + 1, color + 2, change]) used.add(feature);
    }
  }
  expect([...used].sort((a, b) => a - b)).toEqual(Array.from({ length: 64 }, (_, feature) => feature));
});

test('frames and cells in time agree, as Wan2.1 counts them', () => {
  expect(framesFor(21)).toBe(81);
  expect([0, 1, 4, 5, 8, 9, 80, 81, 84].map(cellsIn)).toEqual([0, 1, 1, 2, 2, 3, 20, 21, 21]);
  for (let T = 1; T < 40; T++) expect(cellsIn(framesFor(T))).toBe(T);
});
