/** What changes parameters: the optimizer, the norm it is clipped by, averages, and learning rates by step. */

export { AdamW, type AdamWOptions, type AdamWStepOptions } from './adamw.js';
export { gradientNorm, type GradientNormOptions } from './gradient-norm.js';
export { MovingAverage, type MovingAverageOptions } from './moving-average.js';
export type { Parameters } from './parameters.js';
export {
  type Schedule,
  warmupConstant,
  type WarmupConstantOptions,
  warmupCosine,
  type WarmupCosineOptions,
} from './schedules.js';
