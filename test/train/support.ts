/** What the suites of training share: runs small enough to take a second. */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type LogRow, parseLog } from '../../lib/train/log.js';
import type { TrainProgress } from '../../lib/train/progress.js';
import { FILES, train, type TrainResult } from '../../lib/train/run.js';
import { parseTrainOptions, type TrainOptions } from '../../lib/train/settings.js';
import { here } from '../under-test.js';

/** A folder for one test file, removed after it. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'vsa-train-test-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** 4 x 8 x 8 tokens in 4 tiles, one head, two layers. */
export const SMALL = {
  ...{ video: [4, 64, 64], patch: [1, 8, 8], width: 64, heads: 1, layers: 2, ffn: 128 },
  ...{ sparsity: 0.5, steps: 6, warmup: 2, checkpointEvery: 3, learningRate: 2e-3 },
} as const satisfies TrainOptions;

/** Runs on the device under test; `onStep` is told of every row. */
export function run(
  out: string,
  options: TrainOptions | undefined,
  onStep?: (row: LogRow, abort: () => void) => void,
): Promise<TrainResult> {
  const controller = new AbortController();
  const progress: TrainProgress = {
    begin: () => undefined,
    step: (row) => onStep?.(row, () => controller.abort()),
    end: () => undefined,
  };
  const settings = options === undefined ? undefined : parseTrainOptions(options);
  return train({ out, settings, device: here, progress, signal: controller.signal });
}

export function rowsOf(out: string): LogRow[] {
  return parseLog(readFileSync(join(out, FILES.log), 'utf8'));
}

export function checkpointOf(out: string): string {
  return join(out, FILES.checkpoint);
}
