/** Automatic differentiation: a tape over tensors, strung from functional pairs. */

import './tensor.js';

export { checkpoint } from './checkpoint.js';
export { differentiable, type FunctionalPair } from './differentiable.js';
export { enableGrad, gradEnabled, noGrad } from './mode.js';
export type { BackwardOptions } from './tensor.js';
