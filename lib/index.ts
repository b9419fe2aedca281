/**
 * Video Sparse Attention for Node: the operator, forward and backward, behind a typed tensor facade.
 *
 * @packageDocumentation
 */

export { type ErrorCode, OutOfMemoryError, VsaError, VsaRangeError, VsaTypeError } from './errors.js';
export {
  cpuThreads,
  Device,
  device,
  type DeviceMemory,
  type DeviceString,
  type DeviceType,
  memory,
  setCpuThreads,
} from './device/device.js';
export { Graph } from './device/graph.js';
export type { DType, TypedArray } from './tensor/dtype.js';
export { keep, tidy } from './tensor/scope.js';
export type { DevicePointer, NormalOptions, RandomOptions, TensorOptions } from './tensor/options.js';
export { Tensor } from './tensor/tensor.js';
export { type Backend, type BackendSupport, backends } from './attention/backends.js';
export { type Order, TileGrid, type TileGridOptions, type Triple } from './attention/grid.js';
export { type ListsOptions, type ListsShape, TileLists } from './attention/lists.js';
export { annealedSparsity, type AnnealOptions, topK } from './attention/schedules.js';
export { tilePooling, type PoolingOptions } from './attention/pooling.js';
export { coarseAttention, type CoarseOptions } from './attention/coarse.js';
export { type PrefixMode, type SelectionOptions, type SelectionRule, tileSelection } from './attention/selection.js';
export { type BlockSparseOptions, blockSparseAttention, denseAttention, type DenseOptions } from './attention/fine.js';
export { type CombinationGradients, type CombinationOptions, gatedCombination } from './attention/combination.js';
export { tile, type TilingOptions, untile } from './attention/tiling.js';
export {
  videoSparseAttention,
  type VideoSparseAttentionGradients,
  type VideoSparseAttentionOptions,
} from './attention/vsa.js';
export * from './files/index.js';
export * from './media/index.js';
export * from './data/index.js';
export {
  type BackwardOptions,
  checkpoint,
  differentiable,
  enableGrad,
  type FunctionalPair,
  gradEnabled,
  noGrad,
} from './autograd/index.js';
export * as nn from './nn/index.js';
export * from './models/index.js';
export * from './train/index.js';
