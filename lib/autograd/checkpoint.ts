/** Memory for time: a function whose insides are not kept but computed again. */

import { show, VsaTypeError } from '../errors.js';
import { share, Tensor } from '../tensor/tensor.js';
import { enableGrad, gradEnabled, noGrad } from './mode.js';
import { gradientsWithin } from './backward.js';
import { isTracked, outputOf, record, setRequiresGrad } from './tape.js';
import { tidy } from '../tensor/scope.js';

/**
 * Calls `fn(...inputs)` and keeps the inputs only: the backward runs the function again, with recording, and goes
 * through that. The function must give the same when it is called again, and must name every tensor that gradients
 * flow through as an input, but for leaves (parameters), which it may use freely. Source: Chen et al., Training Deep
 * Nets with Sublinear Memory Cost (arXiv 1604.06174).
 *
 * @returns What the function returns: one tensor.
 * @throws VsaTypeError ERR_ARGUMENT where it returns anything else.
 */
export function checkpoint<Inputs extends readonly Tensor[]>(
  fn: (...inputs: Inputs) => Tensor,
  ...inputs: Inputs
): Tensor {
  const call = (given: Inputs): Tensor => {
    const output = fn(...given);
    if (output instanceof Tensor) return output;
    const got = `a function that returns ${show(output)}`;
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'fn', got, wanted: 'one that returns a Tensor' });
  };
  if (!gradEnabled()) return call(inputs);
  const made = noGrad(() => tidy(() => call(inputs)));
  const output = outputOf(made, inputs);
  const saved = inputs.map((input) => share(input));
  record(
    'checkpoint',
    inputs,
    output,
    saved,
    (gradient, wanted) => {
      const again = saved.map((input) => share(input));
      again.forEach((input, index) => {
        if (wanted[index]) setRequiresGrad(input, true);
      });
      // What the function makes on its way lives no longer than the graph needs it.
      const repeated = enableGrad(() => tidy(() => call(again as unknown as Inputs)));
      // Nothing to do for a function that turned out to use nothing that wants a gradient.
      return isTracked(repeated) ? gradientsWithin(repeated, gradient, again) : [];
    },
    true,
  );
  return output;
}
