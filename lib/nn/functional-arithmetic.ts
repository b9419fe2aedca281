/** Arithmetic, losses and parts of tensors as differentiable functions. */

import { differentiable } from '../autograd/differentiable.js';
import { noGrad } from '../autograd/mode.js';
import { record } from '../autograd/tape.js';
import type { Tensor } from '../tensor/tensor.js';
import * as arithmetic from './ops/arithmetic.js';
import * as loss from './ops/loss.js';
import * as shape from './ops/shape.js';

export const add = differentiable('add', arithmetic.add, { a: (o) => o.a, b: (o) => o.b });
export const multiply = differentiable('multiply', arithmetic.multiply, { a: (o) => o.a, b: (o) => o.b });
export const scale = differentiable('scale', arithmetic.scale, { x: (o) => o.x });
export const sum = differentiable('sum', loss.sum, { x: (o) => o.x });
export const mean = differentiable('mean', loss.mean, { x: (o) => o.x });
export const meanSquaredError = differentiable('meanSquaredError', loss.meanSquaredError, {
  prediction: (o) => o.prediction,
  target: (o) => o.target,
});
export const slice = differentiable('slice', shape.slice, { x: (o) => o.x });

/** As `concat.forward`, and `backward()` can go through it: it has a list of inputs, not names. */
export function concat(options: shape.ConcatOptions): Tensor {
  const { output, saved } = noGrad(() => shape.concat.forward(options));
  record('concat', options.tensors, output, [saved], (gradient, wanted) => {
    const used = new Set([...wanted.keys()].filter((i) => wanted[i]).map(String));
    return shape.concat.backward(saved, { output: gradient }, used).tensors;
  });
  return output;
}
