/** Steps of a run, one after the other: each is looked at while the next one runs, so that the device never waits. */

import { machineOf } from '../device/machine.js';
import { VsaError } from '../errors.js';
import type { LogRow } from './log.js';
import type { StepResult, Trainer } from './trainer.js';

/** A step whose loss is not known yet. */
interface Pending {
  step: number;
  result: Pick<StepResult, 'learningRate' | 'topK'>;
  /** Loss and norm, asked for right after the step: reads come in the order of all other work. */
  values: Promise<readonly ArrayLike<number>[]>;
}

/** Milliseconds between two looks at the device's memory: a GPU's driver is asked. */
const MEMORY_INTERVAL = 1000;

/** Begins to read what a step came to. */
function pendingOf(step: number, { loss, norm, ...result }: StepResult): Pending {
  const values = Promise.all([loss.data(), norm.data()]);
  values.catch(() => undefined); // told to who looks at the step
  loss.dispose();
  norm.dispose();
  return { step, result, values };
}

export class Steps {
  #pending: Pending | undefined;
  #settled = performance.now();
  #flop: number;
  #memory = { bytes: 0, until: -Infinity };
  readonly #peak: number | undefined;

  /**
   * @param flop Of the steps that were taken before.
   * @param advice What to say when a loss is no number, after 'a finite number: '.
   */
  constructor(
    private readonly trainer: Trainer,
    flop: number,
    private readonly advice: () => string,
  ) {
    this.#flop = flop;
    this.#peak = machineOf(trainer.model.device)?.bf16;
  }

  /** Begins the clock anew: what was done since the last step is no part of the next one. */
  startClock(): void {
    this.#settled = performance.now();
  }

  /**
   * Takes step `step`, counted from 0, and waits for the one before.
   *
   * @returns What the step before came to, if there was one.
   * @throws VsaError ERR_LOSS when its loss is no number.
   */
  async take(clips: Float32Array, step: number): Promise<LogRow | undefined> {
    const result = this.trainer.step(clips, step);
    const before = this.#pending;
    this.#pending = pendingOf(step + 1, result);
    return this.#look(before);
  }

  /**
   * Waits for the step that is running, if there is one.
   *
   * @throws VsaError ERR_LOSS when its loss is no number.
   */
  async settle(): Promise<LogRow | undefined> {
    const pending = this.#pending;
    this.#pending = undefined;
    return this.#look(pending);
  }

  async #look(pending: Pending | undefined): Promise<LogRow | undefined> {
    if (pending === undefined) return undefined;
    const { step, result, values } = pending;
    const [loss, norm] = (await values) as [ArrayLike<number>, ArrayLike<number>];
    const now = performance.now();
    const ms = now - this.#settled;
    this.#settled = now;
    this.#check(step, loss[0]!);
    const { model, settings } = this.trainer;
    const topK = result.topK;
    const flop = model.trainingFlops({ batch: settings.batch, ...(topK !== null && { topK }) }).total;
    this.#flop += flop;
    const tflops = flop / ms / 1e9;
    return {
      step,
      loss: loss[0]!,
      gradientNorm: norm[0]!,
      learningRate: result.learningRate,
      topK,
      ms,
      tokensPerSecond: (settings.batch * model.grid.length * 1000) / ms,
      tflops,
      mfu: this.#peak === undefined ? null : tflops / this.#peak,
      flop: this.#flop,
      memory: this.#peakBytes(now),
      date: new Date().toISOString(),
    };
  }

  /** The most bytes in use at once: what a device must have, activations and a recorded step's among them. */
  #peakBytes(now: number): number {
    if (now >= this.#memory.until) {
      const bytes = this.trainer.model.device.memory().peakBytes;
      this.#memory = { bytes, until: now + MEMORY_INTERVAL };
    }
    return this.#memory.bytes;
  }

  #check(step: number, loss: number): void {
    if (Number.isFinite(loss)) return;
    throw new VsaError({
      code: 'ERR_LOSS',
      argument: 'loss',
      got: `${String(loss)} at step ${String(step)}`,
      wanted: `a finite number: ${this.advice()}`,
    });
  }
}
