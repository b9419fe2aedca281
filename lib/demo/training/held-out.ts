/** Clips that no step has seen: with noise, and what a model makes of that in one step. */
import { noGrad } from '../../autograd/index.js';
import type { ClipShape, Patch } from '../../media/index.js';
import { unpatchify } from '../../media/index.js';
import { interpolate } from '../../models/flow.js';
import type { VideoDiT } from '../../models/video-dit.js';
import { combine } from '../../tensor/arithmetic.js';
import { tidy } from '../../tensor/scope.js';
import { Tensor } from '../../tensor/tensor.js';
import { heldOutClips, heldOutNoiseSeed } from '../../train/held-out.js';
import type { TrainSettings } from '../../train/settings.js';
import { AttentionStudy, type LayerStudy } from '../../train/study.js';
import type { Job } from './settings.js';

/** Pixels, float32 RGB, `[frames, height, width, 3]`. */
export type Frames = Float32Array;

/** Some clips as they were made of others. */
export interface Likeness {
  readonly clips: readonly Frames[];
  /** Mean squared error to the clips they were made of; colours go from -1 to 1. */
  readonly error: number;
}

export class HeldOut {
  private constructor(
    readonly clips: readonly Frames[],
    private readonly tokens: Float32Array,
    private readonly seed: number,
    private readonly shape: ClipShape,
    private readonly patch: Patch,
  ) {}

  /** The clips of a job's run. */
  static async load({ shapes, heldOut }: Job, { seed, video, patch }: TrainSettings): Promise<HeldOut> {
    const { frames, tokens } = await heldOutClips({ video, patch }, { seed, count: heldOut, ...shapes });
    return new HeldOut(frames, tokens, seed, video, patch);
  }

  /** The clips with noise of time `time`, and that less the velocity that a model sees in it, times `time`. */
  async look(model: VideoDiT, time: number): Promise<{ noisy: Likeness; denoised: Likeness }> {
    const { noisy, denoised } = this.#compute(() => {
      const noisy = this.#noisyAt(model, time, this.clips.length);
      const velocity = model.forward({ x: noisy, times: this.clips.map(() => time) }).cast('float32');
      return { noisy, denoised: combine(noisy, 1, velocity, -time) };
    });
    try {
      return { noisy: await this.#likeness(noisy), denoised: await this.#likeness(denoised) };
    } finally {
      noisy.dispose();
      denoised.dispose();
    }
  }

  /** What the layers of a model attend to in the first clip with noise of time `time`. */
  async study(model: VideoDiT, time: number): Promise<LayerStudy[]> {
    const study = new AttentionStudy(model.grid, model.topK!);
    try {
      this.#compute(() => {
        model.forward({ x: this.#noisyAt(model, time, 1), times: [time], observe: study.observe });
      });
      return await study.finish();
    } finally {
      study.dispose();
    }
  }

  #compute<T>(work: () => T): T {
    return noGrad(() => tidy(work));
  }

  /** The first clips with noise, float32 `[count, L, channels]`. */
  #noisyAt({ grid, config, device }: VideoDiT, time: number, count: number): Tensor {
    const shape = [count, grid.length, config.channels];
    const size = grid.length * config.channels;
    const data = Tensor.from(this.tokens.subarray(0, count * size), shape, { device });
    const noise = Tensor.randn(shape, { seed: heldOutNoiseSeed(this.seed), device });
    return interpolate({ data, noise, times: new Array<number>(count).fill(time) }).noisy;
  }

  async #likeness(tensor: Tensor): Promise<Likeness> {
    const tokens = (await tensor.data()) as Float32Array;
    const wanted = this.tokens;
    let squares = 0;
    for (let i = 0; i < wanted.length; i++) squares += (tokens[i]! - wanted[i]!) ** 2;
    const size = tokens.length / this.clips.length;
    const { shape, patch } = this;
    const clips = this.clips.map((_, at) =>
      unpatchify({ tokens: tokens.subarray(at * size, (at + 1) * size), shape, patch }),
    );
    return { clips, error: squares / wanted.length };
  }
}
