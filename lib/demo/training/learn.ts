/** The steps of the demo: how many there are, and what they come to. */
import { ClipLoader, MovingShapes } from '../../data/index.js';
import type { Device } from '../../device/device.js';
import type { LogRow } from '../../train/log.js';
import type { TrainProgress } from '../../train/progress.js';
import { median } from '../../train/report/data.js';
import type { TrainSettings } from '../../train/settings.js';
import { Steps } from '../../train/steps.js';
import { Trainer } from '../../train/trainer.js';
import { type Job, trainSettings } from './settings.js';

function openLoader({ shapes }: Job, { seed, video, batch: batchSize, patch }: TrainSettings): ClipLoader {
  const [frames, height, width] = video;
  const source = new MovingShapes({ seed, frames, height, width, ...shapes });
  return new ClipLoader({ source, batchSize, patch, seed });
}

/**
 * Takes a trainer's steps, or those before the signal.
 *
 * @throws VsaError ERR_LOSS when a loss is no number; OutOfMemoryError.
 */
export async function learn(
  job: Job,
  trainer: Trainer,
  progress: Pick<TrainProgress, 'step'>,
  signal: AbortSignal | undefined,
): Promise<LogRow[]> {
  const { settings } = trainer;
  const rows: LogRow[] = [];
  const note = (row: LogRow | undefined) => {
    if (row === undefined) return;
    rows.push(row);
    progress.step(row);
  };
  const loader = openLoader(job, settings);
  try {
    const steps = new Steps(trainer, 0, () => 'another --seed may help');
    for (let step = 0; step < settings.steps && signal?.aborted !== true; step++) {
      const { tokens } = await loader.next();
      if (step === 0) steps.startClock(); // the loader's thread has started by now
      note(await steps.take(tokens, step));
    }
    note(await steps.settle());
    return rows;
  } finally {
    await loader.close();
  }
}

/** Steps that are taken to time the last of them: the first compile, fill caches, load libraries, record. */
const [TIMED, FIRST] = [60, 40];
/** Fewest steps of a run, however slow. */
const LEAST = 20;

/** Steps of a job that take so many minutes here: some are taken with a model of their own, and timed. */
export async function stepsWithin(
  minutes: number,
  job: Job,
  seed: number,
  device: Device,
  signal: AbortSignal | undefined,
): Promise<number> {
  using trainer = new Trainer(trainSettings(job, TIMED, seed), device);
  const rows = await learn(job, trainer, { step: () => undefined }, signal);
  const ms = median(rows.slice(FIRST).map((row) => row.ms));
  return rows.length === TIMED ? Math.max(LEAST, Math.floor((minutes * 60_000) / ms)) : LEAST;
}
