/** The functions that layers are made of: `backward()` goes through all that take a tensor. */

import { differentiable } from '../autograd/index.js';
import * as activation from './ops/activation.js';
import * as product from './ops/linear.js';
import * as norm from './ops/norm.js';
import * as residual from './ops/residual.js';
import * as rotary from './ops/rotary.js';

export * from './functional-arithmetic.js';
export { sinusoidalEmbedding, type SinusoidalEmbeddingOptions } from './ops/embedding.js';
export { rotaryTable, type RotaryTableOptions } from './ops/rotary.js';

/** See lib/nn/ops/norm.ts. */
export const layerNorm = differentiable('layerNorm', norm.layerNorm, {
  x: (o) => o.x,
  weight: (o) => o.weight,
  bias: (o) => o.bias,
  scale: (o) => o.scale,
  shift: (o) => o.shift,
});

/** See lib/nn/ops/norm.ts. */
export const rmsNorm = differentiable('rmsNorm', norm.rmsNorm, { x: (o) => o.x, weight: (o) => o.weight });

/** See lib/nn/ops/rotary.ts; the table has no gradient. */
export const rotaryEmbedding = differentiable('rotaryEmbedding', rotary.rotaryEmbedding, { x: (o) => o.x });

/** See lib/nn/ops/activation.ts. */
export const silu = differentiable('silu', activation.silu, { x: (o) => o.x });

/** See lib/nn/ops/activation.ts. */
export const geluTanh = differentiable('geluTanh', activation.geluTanh, { x: (o) => o.x });

/** See lib/nn/ops/residual.ts. */
export const gatedResidual = differentiable('gatedResidual', residual.gatedResidual, {
  x: (o) => o.x,
  branch: (o) => o.branch,
  gate: (o) => o.gate,
});

/** See lib/nn/ops/linear.ts. */
export const linear = differentiable('linear', product.linear, {
  x: (o) => o.x,
  weight: (o) => o.weight,
  bias: (o) => o.bias,
});
