/** What the page about a demo's training shows. */
import type { TileGrid } from '../../../attention/grid.js';
import type { Device } from '../../../device/device.js';
import type { VideoDiTConfig } from '../../../models/config.js';
import { forwardFlops } from '../../../models/flops.js';
import type { LogRow } from '../../../train/log.js';
import { finalLoss, median } from '../../../train/report/data.js';
import type { TrainSettings } from '../../../train/settings.js';
import type { LayerStudy } from '../../../train/study.js';
import type { Frames, Likeness } from '../held-out.js';

/** Held-out clips at one time between clip and noise. */
export interface View {
  /** 0 is the clip, 1 is noise. */
  time: number;
  noisy: Likeness;
  /** What the model makes of them in one step, untrained and trained. */
  before: Likeness;
  after: Likeness;
}

export interface TrainingReport {
  settings: TrainSettings;
  device: Device;
  config: VideoDiTConfig;
  grid: TileGrid;
  parameterCount: number;
  /** Of every step. */
  rows: readonly LogRow[];
  /** Held-out clips. */
  clips: readonly Frames[];
  views: readonly View[];
  /** Clips drawn from noise. */
  samples: readonly Frames[];
  layers: readonly LayerStudy[];
}

/** Numbers of a report that both its page and the command line say. */
export function numbersOf({ rows, config, layers }: TrainingReport) {
  const seconds = rows.reduce((sum, row) => sum + row.ms, 0) / 1000;
  const middle = (of: (row: LogRow) => number) => median(rows.map(of));
  const [vsa, dense] = [forwardFlops(config), forwardFlops({ ...config, attention: 'full' })];
  const held = layers.flatMap((layer) => layer.held);
  return {
    loss: { first: rows[0]!.loss, last: finalLoss(rows) },
    time: {
      seconds,
      msPerStep: middle((row) => row.ms),
      tokensPerSecond: middle((row) => row.tokensPerSecond),
      tflops: middle((row) => row.tflops),
      mfu: rows[0]!.mfu === null ? null : middle((row) => row.mfu!),
    },
    /** Of one forward of one clip, coarse stage included. */
    attentionFlops: { vsa: vsa.attention + vsa.coarse, dense: dense.attention },
    modelFlops: { vsa: vsa.total, dense: dense.total },
    /** Share of dense attention that the selected tiles hold. */
    held: held.reduce((sum, one) => sum + one, 0) / held.length,
  };
}
