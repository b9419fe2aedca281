/** `vsa train`: the loop around the steps, with everything that must survive it. */

import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClipLoader, LoaderPosition } from '../data/index.js';
import type { Device } from '../device/device.js';
import { VsaError } from '../errors.js';
import { writeFileAtomic } from '../files/atomic.js';
import { loadCheckpoint, readCheckpointFacts, saveCheckpoint } from './checkpoint.js';
import { openClips } from './clips.js';
import { type LogRow, LogWriter } from './log.js';
import type { TrainProgress } from './progress.js';
import type { TrainSettings } from './settings.js';
import { Steps } from './steps.js';
import { Trainer } from './trainer.js';

/** What lies in the folder of a run. */
export const FILES = {
  checkpoint: 'checkpoint.safetensors',
  log: 'log.jsonl',
  settings: 'settings.json',
  report: 'report.html',
  sample: 'sample.gif',
} as const;

export interface TrainRequest {
  /** Folder of the run. */
  out: string;
  /** Of a new run; a resumed one has its own. */
  settings: TrainSettings | undefined;
  device: Device;
  progress: TrainProgress;
  /** Ends the run after the step that is running, with a checkpoint. */
  signal?: AbortSignal | undefined;
}

export interface TrainResult {
  /** Steps taken, those before a resume included. */
  step: number;
  /** Of the last step; null where none was taken. */
  loss: number | null;
  interrupted: boolean;
  settings: TrainSettings;
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

interface Begun {
  trainer: Trainer;
  step: number;
  position: unknown;
}

/** A new run: its folder must not hold another one. */
async function begin(out: string, settings: TrainSettings, device: Device): Promise<Begun> {
  for (const name of [FILES.checkpoint, FILES.log]) {
    if (!(await exists(join(out, name)))) continue;
    throw new VsaError({
      code: 'ERR_FILE',
      argument: 'out',
      got: `'${out}', which holds a run`,
      wanted: 'a folder without one, or --resume',
    });
  }
  const dense = settings.adapt === null ? undefined : await loadCheckpoint(settings.adapt, device, ['model']);
  const trainer = new Trainer(settings, device);
  try {
    if (dense !== undefined) trainer.adapt(dense.tensors.model);
    await mkdir(out, { recursive: true });
    await writeFileAtomic(join(out, FILES.settings), `${JSON.stringify(settings, null, 2)}\n`);
    return { trainer, step: 0, position: undefined };
  } catch (error) {
    trainer.dispose();
    throw error;
  } finally {
    for (const tensor of dense?.tensors.model.values() ?? []) tensor.dispose();
  }
}

/** A run that goes on where its checkpoint left it. */
async function resume(out: string, device: Device): Promise<Begun> {
  const path = join(out, FILES.checkpoint);
  if (!(await exists(path))) {
    const got = `'${out}', which holds no ${FILES.checkpoint}`;
    throw new VsaError({ code: 'ERR_FILE', argument: 'out', got, wanted: 'the folder of a run that was saved' });
  }
  const { settings } = await readCheckpointFacts(path);
  const trainer = new Trainer(settings, device);
  try {
    const { facts, tensors } = await loadCheckpoint(path, device);
    try {
      trainer.load(tensors);
    } finally {
      for (const part of Object.values(tensors)) for (const tensor of part.values()) tensor.dispose();
    }
    return { trainer, step: facts.step, position: facts.position };
  } catch (error) {
    trainer.dispose();
    throw error;
  }
}

class Run {
  #loss: number | null = null;
  /** Steps in the last checkpoint. */
  #saved: number;
  readonly #steps: Steps;

  constructor(
    private readonly request: TrainRequest,
    private readonly trainer: Trainer,
    private readonly loader: ClipLoader,
    private readonly log: LogWriter,
    start: number,
  ) {
    this.#saved = start;
    this.#steps = new Steps(trainer, log.flop, () => this.#advice());
  }

  /** Steps from `start` on; how many there are in the end. */
  async steps(start: number): Promise<{ step: number; loss: number | null; interrupted: boolean }> {
    const { steps, checkpointEvery } = this.trainer.settings;
    let step = start;
    this.#steps.startClock();
    while (step < steps && this.request.signal?.aborted !== true) {
      const { tokens } = await this.loader.next();
      await this.#note(this.#steps.take(tokens, step));
      step += 1;
      if (step % checkpointEvery === 0 || step === steps) await this.#save(step);
    }
    await this.#note(this.#steps.settle());
    if (this.#saved !== step) await this.#save(step);
    return { step, loss: this.#loss, interrupted: step < steps };
  }

  /** Logs what a step came to. */
  async #note(step: Promise<LogRow | undefined>): Promise<void> {
    const row = await step;
    if (row === undefined) return;
    this.#loss = row.loss;
    await this.log.write(row);
    this.request.progress.step(row);
  }

  /** For a run whose loss is no number. */
  #advice(): string {
    const kept =
      this.#saved === 0 ? 'no checkpoint was written yet' : `the checkpoint is of step ${String(this.#saved)}`;
    return `${kept}; a lower learning rate or a longer warm-up may help`;
  }

  /** A checkpoint of `step` steps, whose losses are all known to be numbers. */
  async #save(step: number): Promise<void> {
    await this.#note(this.#steps.settle());
    const position = this.loader.position;
    const { settings } = this.trainer;
    const path = join(this.request.out, FILES.checkpoint);
    await this.trainer.withTensors((tensors) => saveCheckpoint(path, { step, settings, position }, tensors));
    this.#saved = step;
    this.#steps.startClock(); // saving is no part of a step
  }
}

/**
 * Trains until the last step, or until the signal; either way a checkpoint holds all that was done. A crash loses the
 * steps since the last checkpoint, and `settings: undefined` goes on from there with the bits of a run that was never
 * interrupted.
 *
 * @throws VsaError ERR_LOSS when a loss is no number, ERR_FILE, ERR_FILE_FORMAT, ERR_VIDEO; OutOfMemoryError.
 */
export async function train(request: TrainRequest): Promise<TrainResult> {
  const { out, device, progress } = request;
  const begun = request.settings === undefined ? await resume(out, device) : await begin(out, request.settings, device);
  const { trainer, step: start } = begun;
  try {
    const { settings } = trainer;
    const clips = await openClips(settings, begun.position as LoaderPosition | undefined);
    try {
      const log = await LogWriter.open(join(out, FILES.log), start);
      try {
        progress.begin(trainer.model, settings, start);
        const run = new Run(request, trainer, clips.loader, log, start);
        return { ...(await run.steps(start)), settings };
      } finally {
        progress.end();
        await log.close();
      }
    } finally {
      await clips.close();
    }
  } finally {
    trainer.dispose();
  }
}
