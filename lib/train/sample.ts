/** `vsa sample`: clips drawn from a checkpoint. */

import type { Device } from '../device/device.js';
import { VsaError, VsaRangeError, VsaTypeError } from '../errors.js';
import { unpatchify } from '../media/index.js';
import { eulerSample } from '../models/flow.js';
import { type LayerState, VideoDiT } from '../models/video-dit.js';
import { tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { loadCheckpoint } from './checkpoint.js';
import { channelsOf, tokenGrid, type TrainSettings } from './settings.js';

export interface SampleOptions {
  /** Of the noise. Clips of different seeds differ. */
  seed: number;
  /** Euler steps. */
  steps: number;
  /** Of the times: above 1 more steps are spent where the clip is mostly noise. */
  shift: number;
  /** Is shown every layer's attention, once, at the first time below one half. */
  observe?: ((state: LayerState) => void) | undefined;
}

/** A model for sampling, with the settings of its run. */
export interface Sampler extends Disposable {
  readonly model: VideoDiT;
  readonly settings: TrainSettings;
  /** Steps that it was trained for. */
  readonly step: number;
}

/** The model of a run with the given weights. */
export function samplerModel(settings: TrainSettings, device: Device): VideoDiT {
  const { width, heads, layers, ffn, attention, sparsity, fineGate, dtype } = settings;
  return new VideoDiT({
    ...{ tokens: tokenGrid(settings).tokens, channels: channelsOf(settings) },
    ...{ width, heads, layers, ffn, attention, dtype, device },
    ...(attention === 'vsa' && { sparsity, fineGate }),
  });
}

/**
 * Loads a checkpoint's model: its moving averages, unless `ema` is false or there are none.
 *
 * @throws VsaError ERR_FILE, ERR_FILE_FORMAT; OutOfMemoryError.
 */
export async function loadSampler(path: string, device: Device, ema = true): Promise<Sampler> {
  const { facts, tensors } = await loadCheckpoint(path, device, ['model', 'ema']);
  let model: VideoDiT | undefined;
  try {
    const { settings, step } = facts;
    const made = (model = samplerModel(settings, device));
    made.load(ema && tensors.ema.size > 0 ? tensors.ema : tensors.model);
    return { model: made, settings, step, [Symbol.dispose]: () => made.dispose() };
  } catch (cause) {
    model?.dispose();
    if (!(cause instanceof VsaTypeError || cause instanceof VsaRangeError)) throw cause;
    const wanted = 'the weights of the model that its settings describe';
    throw new VsaError({ code: 'ERR_FILE_FORMAT', argument: path, got: cause.message, wanted, cause });
  } finally {
    for (const part of Object.values(tensors)) for (const tensor of part.values()) tensor.dispose();
  }
}

/**
 * One clip: noise carried along the model's velocities to t = 0 (rectified flow, arXiv 2209.03003).
 *
 * @returns Pixels, float32 RGB in about [-1, 1], `[frames, height, width, 3]`.
 */
export async function sampleClip(
  model: VideoDiT,
  { video, patch }: Pick<TrainSettings, 'video' | 'patch'>,
  { seed, steps, shift, observe }: SampleOptions,
): Promise<Float32Array> {
  let shown = false;
  const tokens = tidy(() => {
    const { grid, config, device } = model;
    const noise = Tensor.randn([1, grid.length, config.channels], { seed, device });
    const velocity = (x: Tensor, times: readonly number[]): Tensor => {
      const looking = observe !== undefined && !shown && times[0]! < 0.5;
      if (looking) shown = true;
      return model.forward({ x, times, ...(looking && { observe }) }).cast('float32');
    };
    return eulerSample({ velocity, noise, steps, shift });
  });
  try {
    const values = (await tokens.data()) as Float32Array;
    return unpatchify({ tokens: values, shape: video, patch });
  } finally {
    tokens.dispose();
  }
}
