/** One training step: noise, forward, backward, optimizer. No files, no clock. */

import { annealedSparsity, topK } from '../attention/schedules.js';
import { noGrad } from '../autograd/index.js';
import type { Device } from '../device/device.js';
import { interpolate, trainingTimes } from '../models/flow.js';
import { VideoDiT } from '../models/video-dit.js';
import { meanSquaredError } from '../nn/functional.js';
import { AdamW, gradientNorm, MovingAverage, warmupConstant, warmupCosine } from '../nn/optim/index.js';
import { combine } from '../tensor/arithmetic.js';
import { keep, tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import type { RunTensors } from './checkpoint.js';
import { RecordedStep, type StepInputs, type StepOutputs } from './recorded-step.js';
import { channelsOf, tokenGrid, type TrainSettings } from './settings.js';

/** Of AdamW, as in VSA's recipe (arXiv 2505.13389). */
const BETAS = [0.9, 0.95] as const;

export interface StepResult extends StepOutputs {
  readonly learningRate: number;
  readonly topK: number | null;
}

/** Sets the noise apart from the other numbers that a seed stands for. */
const NOISE = 1n << 60n;

/** The seed of one step's noise: no two steps of a run share it. */
function noiseSeed(seed: number, step: number): bigint {
  return NOISE ^ (BigInt(step) << 32n) ^ BigInt(seed);
}

/**
 * What gradients are multiplied by on their way: those of a mean over many numbers are below what float16 resolves. This
 * makes those of the prediction about an eighth, far from both ends; a power of two, so it rounds nothing itself.
 */
function lossScale(dtype: TrainSettings['dtype'], size: number): number {
  return dtype === 'float16' ? 2 ** (Math.round(Math.log2(size)) - 4) : 1;
}

/** A model, its optimizer and moving averages, and how a step changes them. Owns their memory. */
export class Trainer implements Disposable {
  readonly model: VideoDiT;
  readonly #optimizer: AdamW;
  readonly #ema: MovingAverage | undefined;
  readonly #rate: (step: number) => number;
  /** The step of `#topK`, once it has been recorded. */
  #recorded: RecordedStep | undefined;
  /** Of the last step; undefined: there was none, or what it left has been overwritten. */
  #topK: number | null | undefined;

  /**
   * @param record Whether steps are recorded and replayed, which gives the same bits. Default: on GPUs.
   * @throws VsaRangeError, VsaTypeError for settings that no model has; OutOfMemoryError.
   */
  constructor(
    readonly settings: TrainSettings,
    device: Device,
    private readonly record = device.type === 'cuda',
  ) {
    const { width, heads, layers, ffn, attention, sparsity, fineGate, dtype, checkpointing, seed } = settings;
    const { learningRate: peak, warmup, schedule, steps, weightDecay, ema } = settings;
    const { tokens } = tokenGrid(settings);
    this.#rate =
      schedule === 'cosine'
        ? warmupCosine({ peak, warmup, steps, floor: 0.1 * peak })
        : warmupConstant({ peak, warmup });
    this.model = new VideoDiT({
      ...{ tokens, channels: channelsOf(settings), width, heads, layers, ffn },
      ...{ attention, dtype, checkpointing, seed, device },
      ...(attention === 'vsa' && { sparsity, fineGate }),
    });
    const owned: Disposable[] = [this.model];
    try {
      const parameters = this.model.parameters();
      owned.push((this.#optimizer = new AdamW(parameters, { learningRate: peak, betas: BETAS, weightDecay })));
      this.#ema = ema === 0 ? undefined : new MovingAverage(parameters, { decay: ema });
    } catch (error) {
      for (const one of owned) one[Symbol.dispose]();
      throw error;
    }
  }

  /** What a checkpoint holds, shared with the trainer, for the time of `use`. */
  async withTensors<T>(use: (tensors: RunTensors) => Promise<T>): Promise<T> {
    const optimizer = this.#optimizer.state();
    try {
      return await use({
        model: this.model.parameters(),
        optimizer,
        ema: this.#ema?.averages ?? new Map<string, Tensor>(),
      });
    } finally {
      for (const tensor of optimizer.values()) tensor.dispose();
    }
  }

  /** Takes the values of a checkpoint over. */
  load({ model, optimizer, ema }: RunTensors): void {
    this.#forget();
    this.model.load(model);
    this.#optimizer.loadState(optimizer);
    this.#setAverages(ema);
  }

  /** Begins from a dense model's weights: new gates at zero, K at all tiles. */
  adapt(dense: ReadonlyMap<string, Tensor>): void {
    this.#forget();
    this.model.adapt(dense);
    this.#setAverages(this.model.parameters());
  }

  #setAverages(values: ReadonlyMap<string, Tensor>): void {
    noGrad(() => {
      for (const [name, average] of this.#ema?.averages ?? []) average.copyFrom(values.get(name)!);
    });
  }

  /** K at a step; null for full attention. */
  topKAt(step: number): number | null {
    const { adapt, sparsity, adaptInterval: interval, adaptRate: rate } = this.settings;
    if (this.model.topK === undefined) return null;
    const now = adapt === null ? sparsity : annealedSparsity(step, { target: sparsity, interval, rate });
    return topK(this.model.grid, { sparsity: now });
  }

  /**
   * Step `step`, counted from 0, on clips `[B, L, channels]`. Returns at once where the device has a queue.
   *
   * @returns Tensors for the caller to dispose.
   */
  step(clips: Float32Array, step: number): StepResult {
    const learningRate = this.#rate(step);
    const topK = this.topKAt(step);
    if (topK !== this.#topK) this.#forget();
    if (topK !== null) this.model.topK = topK;
    return tidy(() => {
      const inputs = this.#inputsOf(clips, step);
      const { loss, norm } = this.#run(inputs, topK, learningRate);
      return { loss: keep(loss), norm: keep(norm), learningRate, topK };
    });
  }

  #inputsOf(clips: Float32Array, step: number): StepInputs {
    const { model, settings } = this;
    const { batch, seed } = settings;
    const { device, grid, config } = model;
    const shape = [batch, grid.length, config.channels];
    const data = Tensor.from(clips, shape, { device });
    const noise = Tensor.randn(shape, { seed: noiseSeed(seed, step), device });
    const times = trainingTimes({ seed, step, count: batch });
    return { ...interpolate({ data, noise, times }), waves: model.timeWaves(times) };
  }

  /** The first step with a K runs as it is, and makes what recording may not: moments, libraries, plans. */
  #run(inputs: StepInputs, topK: number | null, learningRate: number): StepOutputs {
    if (!this.record || this.#topK !== topK) {
      this.#topK = topK;
      return this.#work(inputs, learningRate);
    }
    this.#recorded ??= new RecordedStep(this.model.device, inputs, (own) => this.#work(own, learningRate));
    this.#optimizer.prepareReplay({ learningRate });
    return this.#recorded.replay(inputs);
  }

  #work({ noisy, target, waves }: StepInputs, learningRate: number): StepOutputs {
    const { model, settings } = this;
    const prediction = model.forwardAt(waves, { x: noisy });
    const loss = meanSquaredError({ prediction: prediction.cast('float32'), target });
    const scale = lossScale(settings.dtype, prediction.size);
    loss.backward(scale === 1 ? undefined : Tensor.full([], scale, { device: model.device }));
    const maxNorm = scale * (settings.clip === 0 ? Infinity : settings.clip);
    const scaled = gradientNorm(model.parameters(), { maxNorm });
    const norm = scale === 1 ? scaled : combine(scaled, 1 / scale);
    this.#optimizer.step({ learningRate, gradientScale: norm });
    this.#optimizer.zeroGrad();
    this.#ema?.update();
    return { loss: loss.detach(), norm };
  }

  #forget(): void {
    this.#recorded?.dispose();
    this.#recorded = undefined;
    this.#topK = undefined;
  }

  dispose(): void {
    this.#forget();
    this.#ema?.dispose();
    this.#optimizer.dispose();
    this.model.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
