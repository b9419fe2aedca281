/** Clips that no run is trained on, and how wrong the velocities are that a model sees in them. */

import { noGrad } from '../autograd/index.js';
import { MovingShapes, type MovingShapesOptions } from '../data/index.js';
import type { Device } from '../device/device.js';
import { patchify } from '../media/index.js';
import { interpolate } from '../models/flow.js';
import type { VideoDiT } from '../models/video-dit.js';
import { meanSquaredError } from '../nn/functional.js';
import { keep, tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { loadCheckpoint } from './checkpoint.js';
import { samplerModel } from './sample.js';
import { channelsOf, tokenGrid, type TrainSettings } from './settings.js';

/** Added to a seed, which is below 2^32 as those of runs are, so that no run is trained on these clips. */
const CLIP_SEED = 2 ** 32;
const NOISE_SEED = 2 ** 33;

/** The seed of the noise of held-out clips; `clip` sets apart those that have noise of their own. */
export function heldOutNoiseSeed(seed: number, clip = 0): number {
  return NOISE_SEED * (1 + 2 * clip) + seed;
}

export interface HeldOutOptions extends Pick<MovingShapesOptions, 'shapes' | 'kinds'> {
  /** Clips of different seeds differ; 0 to 2^32 - 1. */
  seed: number;
  count: number;
}

export interface HeldOutClips {
  readonly seed: number;
  /** Pixels, float32 RGB, `[frames, height, width, 3]` each. */
  readonly frames: readonly Float32Array[];
  /** The same as tokens, `[count, L, channels]`. */
  readonly tokens: Float32Array;
}

/** Moving shapes of the size of a run's clips. */
export async function heldOutClips(
  { video, patch }: Pick<TrainSettings, 'video' | 'patch'>,
  { seed, count, ...shapes }: HeldOutOptions,
): Promise<HeldOutClips> {
  const [frames, height, width] = video;
  const source = new MovingShapes({ seed: CLIP_SEED + seed, frames, height, width, ...shapes });
  const clips = await Promise.all(Array.from({ length: count }, (_, index) => source.clip(index)));
  const size = tokenGrid({ video, patch }).length * channelsOf({ patch });
  const tokens = new Float32Array(count * size);
  clips.forEach((clip, at) => tokens.set(patchify({ frames: clip, shape: video, patch }), at * size));
  return { seed, frames: clips, tokens };
}

/**
 * Mean squared errors of a model's velocities, `[clip][time]`: what training minimises, but of clips, noise and times
 * that are the same for every model, so that two models can be told apart by few of them.
 */
export async function velocityErrors(
  model: VideoDiT,
  { seed, frames, tokens }: HeldOutClips,
  times: readonly number[],
): Promise<number[][]> {
  const { grid, config, device } = model;
  const size = grid.length * config.channels;
  const shape = [1, grid.length, config.channels];
  const found: number[][] = [];
  for (let clip = 0; clip < frames.length; clip++) {
    // All times are queued before the first is waited for.
    const errors = noGrad(() =>
      tidy(() => {
        const data = Tensor.from(tokens.subarray(clip * size, (clip + 1) * size), shape, { device });
        const noise = Tensor.randn(shape, { seed: heldOutNoiseSeed(seed, clip), device });
        return times.map((time) => tidy(() => errorAt(model, data, noise, time)));
      }),
    );
    keep(errors);
    try {
      found.push((await Promise.all(errors.map((one) => one.data()))).map((values) => values[0] as number));
    } finally {
      for (const one of errors) one.dispose();
    }
  }
  return found;
}

function errorAt(model: VideoDiT, data: Tensor, noise: Tensor, time: number): Tensor {
  const { noisy, target } = interpolate({ data, noise, times: [time] });
  const prediction = model.forward({ x: noisy, times: [time] }).cast('float32');
  return meanSquaredError({ prediction, target });
}

export interface CheckpointErrors {
  /** Of the moving averages of the weights; null where there are none. */
  readonly averages: number[][] | null;
  /** Of the weights after the last step. */
  readonly weights: number[][];
}

/**
 * The errors of a checkpoint's model on held-out clips.
 *
 * @param request.sparse Settings of a VSA model that takes a dense checkpoint's weights over and runs at its K at once,
 *   without a step of adaptation.
 * @throws VsaError ERR_FILE, ERR_FILE_FORMAT; VsaTypeError or VsaRangeError for weights of another model;
 *   OutOfMemoryError.
 */
export async function checkpointErrors(
  path: string,
  { device, clips, times, sparse }: CheckpointErrorsRequest,
): Promise<CheckpointErrors> {
  const { facts, tensors } = await loadCheckpoint(path, device, ['model', 'ema']);
  try {
    using model = samplerModel(sparse ?? facts.settings, device);
    const topK = model.topK;
    const errorsOf = (weights: ReadonlyMap<string, Tensor>): Promise<number[][]> => {
      if (sparse === undefined) model.load(weights);
      else model.adapt(weights).topK = topK;
      return velocityErrors(model, clips, times);
    };
    const averages = tensors.ema.size === 0 ? null : await errorsOf(tensors.ema);
    return { averages, weights: await errorsOf(tensors.model) };
  } finally {
    for (const part of Object.values(tensors)) for (const tensor of part.values()) tensor.dispose();
  }
}

export interface CheckpointErrorsRequest {
  device: Device;
  clips: HeldOutClips;
  times: readonly number[];
  sparse?: TrainSettings;
}
