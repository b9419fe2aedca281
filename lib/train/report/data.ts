/** What the report shows of a run. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { topK as topKOf } from '../../attention/schedules.js';
import type { TileGrid } from '../../attention/grid.js';
import type { Device } from '../../device/device.js';
import { VsaError } from '../../errors.js';
import { writeClip } from '../../media/index.js';
import { type LogRow, readLog } from '../log.js';
import { FILES } from '../run.js';
import { loadSampler, sampleClip } from '../sample.js';
import type { TrainSettings } from '../settings.js';
import { AttentionStudy, type LayerStudy } from '../study.js';

export interface RunReport {
  /** Of the run's folder. */
  name: string;
  settings: TrainSettings;
  grid: TileGrid;
  parameterCount: number;
  /** Tiles that a query tile keeps in the study of the layers. */
  topK: number;
  rows: LogRow[];
  /** A GIF, base64. */
  sample: string;
  layers: LayerStudy[];
}

/** Of the sample in the report. */
const SAMPLE = { seed: 1, steps: 30, shift: 1 } as const;
/** Pixels of a sample's larger side, about. */
const SAMPLE_SIDE = 256;

/**
 * Reads a run, draws a clip from its checkpoint and looks at its layers on the way.
 *
 * @throws VsaError ERR_FILE, ERR_FILE_FORMAT for a folder that holds no run; OutOfMemoryError.
 */
export async function readRun(folder: string, device: Device): Promise<RunReport> {
  const sampler = await loadSampler(join(folder, FILES.checkpoint), device);
  try {
    const { model, settings } = sampler;
    const { grid } = model;
    const topK = model.topK ?? topKOf(grid, { sparsity: settings.sparsity });
    const study = new AttentionStudy(grid, topK);
    try {
      const frames = await sampleClip(model, settings, { ...SAMPLE, observe: study.observe });
      const path = join(folder, FILES.sample);
      const [, height, width] = settings.video;
      const scale = Math.max(1, Math.round(SAMPLE_SIDE / Math.max(height, width)));
      await writeClip(path, { frames, shape: settings.video, scale });
      return {
        name: folder,
        settings,
        grid,
        parameterCount: model.parameterCount,
        topK,
        rows: await readRows(join(folder, FILES.log)),
        sample: (await readFile(path)).toString('base64'),
        layers: await study.finish(),
      };
    } finally {
      study.dispose();
    }
  } finally {
    sampler[Symbol.dispose]();
  }
}

async function readRows(path: string): Promise<LogRow[]> {
  try {
    return await readLog(path);
  } catch (cause) {
    const got = (cause as Error).message;
    throw new VsaError({ code: 'ERR_FILE', argument: path, got, wanted: "the log of a run of 'vsa train'", cause });
  }
}

/** A point of a curve: the mean of some steps' losses. */
export interface CurvePoint {
  step: number;
  flop: number;
  loss: number;
}

/** Most points of a curve. */
const POINTS = 240;

/** Losses in as many means of neighbouring steps as a curve can show; one step's loss depends on the times it drew. */
export function lossCurve(rows: readonly LogRow[]): CurvePoint[] {
  const size = Math.max(1, Math.ceil(rows.length / POINTS), Math.min(20, Math.floor(rows.length / 12)));
  const points: CurvePoint[] = [];
  for (let from = 0; from < rows.length; from += size) {
    const some = rows.slice(from, from + size);
    const { step, flop } = some.at(-1)!;
    points.push({ step, flop, loss: some.reduce((sum, row) => sum + row.loss, 0) / some.length });
  }
  return points;
}

/** Steps that a run's loss is the mean of, where one number is to stand for it: a tenth of them, at least 10. */
export function lossWindow(steps: number): number {
  return Math.max(10, Math.floor(steps / 10));
}

/** Mean loss of a run's last steps. */
export function finalLoss(rows: readonly LogRow[]): number {
  const last = rows.slice(-lossWindow(rows.length));
  return last.reduce((sum, row) => sum + row.loss, 0) / last.length;
}

/** The middle of some numbers; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}
