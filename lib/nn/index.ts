/**
 * Training: layers, the functions they are made of (`backward()` goes through them), and optimizers. `ops` are the same
 * functions as functional pairs, without a tape.
 */

export * from './functional.js';
export {
  type AttentionState,
  blockSparseAttention,
  coarseAttention,
  denseAttention,
  gatedCombination,
  type ObserveOption,
  tile,
  tilePooling,
  untile,
  videoSparseAttention,
} from './attention.js';
export { Linear, type LinearOptions } from './linear.js';
export { type LoadOptions, Module } from './module.js';
export { LayerNorm, type NormOptions, RMSNorm } from './norm.js';
export * from './optim/index.js';
export * as ops from './ops/index.js';
