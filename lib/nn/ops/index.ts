/** Functional pairs: `forward(options)` gives `{ output, saved }`, `backward(saved, { output })` the gradients by name. */

export { type ActivationGradients, type ActivationOptions, geluTanh, silu } from './activation.js';
export { add, type AddOptions, multiply, type MultiplyOptions, scale, type ScaleOptions } from './arithmetic.js';
export { linear, type LinearGradients, type LinearOptions } from './linear.js';
export { mean, meanSquaredError, type MeanSquaredErrorOptions, sum, type SumOptions } from './loss.js';
export {
  layerNorm,
  type LayerNormGradients,
  type LayerNormOptions,
  rmsNorm,
  type RmsNormGradients,
  type RmsNormOptions,
} from './norm.js';
export { gatedResidual, type GatedResidualGradients, type GatedResidualOptions } from './residual.js';
export { rotaryEmbedding, type RotaryEmbeddingGradients, type RotaryEmbeddingOptions } from './rotary.js';
export { concat, type ConcatOptions, slice, type SliceOptions } from './shape.js';
