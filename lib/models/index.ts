/** Models. */

export type { VideoDiTConfig, VideoDiTOptions } from './config.js';
export type { Flops, FlopsOptions } from './flops.js';
export { type LayerState, VideoDiT, type VideoDiTInputs } from './video-dit.js';
export {
  eulerSample,
  type EulerSampleOptions,
  type EulerStep,
  interpolate,
  type InterpolateOptions,
  samplingTimes,
  shiftTime,
  trainingTimes,
  type TrainingTimesOptions,
  type Velocity,
} from './flow.js';
