/** A report's input with made-up numbers, for tests of what only draws. */
import { TileGrid, device } from '../../lib/index.js';
import { framesFor } from '../../lib/demo/cells.js';
import type { Clip } from '../../lib/demo/clip.js';
import type { Measurement } from '../../lib/demo/measure.js';
import { parseDemoOptions } from '../../lib/demo/options.js';
import { picturesOfTokens } from '../../lib/demo/pictures.js';
import type { ReportInput } from '../../lib/demo/report/data.js';
import { noiseBytes } from './support.js';

const grid = new TileGrid({ tokens: [9, 6, 10] }); // 3 x 2 x 3 tiles, partial along every dim
const [N, K, heads] = [grid.tileCount, 5, 4];
export const FIXTURE = { grid, N, K, heads };

/** A measurement with numbers that can be told apart: nothing is computed. */
export function inputWith(name: string): ReportInput {
  const tokens = noiseBytes(grid.length * 64, 9);
  const clip: Clip = {
    ...{ kind: 'video' as const, sourceName: name, shape: grid.tokens, tokens, frames: framesFor(9) },
    ...{ width: 160, height: 96, pictures: picturesOfTokens(tokens, grid.tokens) },
  };
  const rows = heads * N;
  const mass = new Float32Array(rows * N);
  const lists = new Int32Array(rows * K);
  for (let row = 0; row < rows; row++) {
    for (let tile = 0; tile < N; tile++) mass[row * N + tile] = 1 / N;
    for (let i = 0; i < K; i++) lists[row * K + i] = (row + 3 * i) % N;
    lists.subarray(row * K, (row + 1) * K).sort();
  }
  const choice = (share: number) => ({
    held: new Float32Array(rows).map((_, row) => share + row / 1000),
    heldByHead: Array.from({ length: heads }, (_, head) => share + head / 100),
    errors: Array.from({ length: heads }, (_, head) => ({ relative: share / 10 + head, max: 1 + head })),
  });
  const timing = (ms: number) => ({ ms, runs: 3 });
  const measurement: Measurement = {
    ...{ vsa: choice(0.7), random: choice(0.1), best: choice(0.8), lists, mass },
    curve: {
      ranked: Array.from({ length: N + 1 }, (_, k) => k / N),
      best: Array.from({ length: N + 1 }, (_, k) => k / N),
    },
    times: {
      ...{ dense: timing(2000), vsa: timing(250), selection: timing(5), random: timing(260) },
      vsaWithBackward: timing(900),
    },
    flops: { dense: 4e9, vsa: 1e9 },
    memory: { numTensors: 7, numBytes: 12_345_678 },
  };
  return { clip, grid, topK: K, settings: parseDemoOptions(), device: device('cpu'), measurement };
}
