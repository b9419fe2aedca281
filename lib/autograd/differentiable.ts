/** Differentiable functions from functional pairs. */

import { show, VsaTypeError } from '../errors.js';
import type { Resource } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { noGrad } from './mode.js';
import { outputOf, record } from './tape.js';

/**
 * An operation as two functions: `forward` gives the output and what its backward needs, `backward` the gradients of
 * the inputs by name. `wanted` names those that will be used; others may be left out.
 */
export interface FunctionalPair<Options extends object, Saved extends Resource, Gradients extends object> {
  forward(options: Options): { output: Tensor; saved: Saved };
  backward(saved: Saved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): Gradients;
}

/**
 * A function of the same options that returns the output, and that `backward()` can go through.
 *
 * @param name Of the function, for error messages.
 * @param inputs For each gradient that the pair's backward returns, where its input is among the options.
 * @example
 * const attention = differentiable('videoSparseAttention', videoSparseAttention, {
 *   q: (o) => o.q,
 *   k: (o) => o.k,
 *   v: (o) => o.v,
 * });
 */
export function differentiable<Options extends object, Saved extends Resource, Gradients extends object>(
  name: string,
  pair: FunctionalPair<Options, Saved, Gradients>,
  inputs: Readonly<Partial<Record<keyof Gradients & string, (options: Options) => Tensor | undefined>>>,
): (options: Options) => Tensor {
  if (typeof pair?.forward !== 'function' || typeof pair.backward !== 'function') {
    const wanted = 'an object with forward and backward';
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'pair', got: show(pair), wanted });
  }
  const names = Object.keys(inputs) as (keyof Gradients & string)[];
  return (options) => {
    const { output: made, saved } = noGrad(() => pair.forward(options));
    const tensors = names.map((input) => inputs[input]!(options));
    const output = outputOf(made, tensors);
    record(name, tensors, output, [saved], (gradient, wanted) => {
      const used = new Set<string>(names.filter((_, index) => wanted[index]));
      const gradients = pair.backward(saved, { output: gradient }, used);
      return names.map((input) => (used.has(input) ? (gradients[input] as Tensor | undefined) : undefined));
    });
    return output;
  };
}
