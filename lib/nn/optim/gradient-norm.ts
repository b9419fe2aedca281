/** The norm of all gradients, for clipping and for logs. */

import { native } from '../../binding.js';
import { show, VsaRangeError } from '../../errors.js';
import { tidy } from '../../tensor/scope.js';
import { emptyTensor, handleOf, type Tensor } from '../../tensor/tensor.js';
import { checkOptions } from '../../validate.js';
import { checkParameters, type Parameters } from './parameters.js';

export interface GradientNormOptions {
  /** Above this norm gradients are to be scaled down to it. Default Infinity: never. */
  maxNorm?: number;
}

/**
 * The norm of all gradients together, `sqrt(sum of all squares)`, and the factor `min(1, maxNorm / (norm + 1e-6))` that
 * `AdamW.step` multiplies them by if it is given this tensor as `gradientScale`. Nothing is read back, and no gradient
 * is changed. Parameters without a gradient count as 0. Squares are summed in float64 and in a fixed order.
 *
 * NaN and infinity are as in `torch.nn.utils.clip_grad_norm_`: a NaN gradient gives a NaN norm and a NaN factor, and a
 * step with it makes every parameter NaN; an infinite gradient gives an infinite norm and the factor 0, which leaves
 * finite gradients 0 and makes infinite ones NaN. With `maxNorm: Infinity` the factor is 1 whatever the norm. To skip
 * such a step, look at the norm first: `Number.isFinite((await norm.data())[0])`.
 *
 * @returns float32 `[2]`: norm, factor.
 * @throws VsaRangeError ERR_ARGUMENT; VsaTypeError ERR_ARGUMENT, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED. Source: Pascanu et al., arXiv 1211.5063.
 */
export function gradientNorm(parameters: Parameters, options: GradientNormOptions = {}): Tensor {
  const { named, device } = checkParameters(parameters);
  checkOptions('options', options, ['maxNorm']);
  const maxNorm: unknown = options.maxNorm ?? Infinity;
  if (typeof maxNorm !== 'number' || !(maxNorm > 0)) {
    const wanted = 'a number above 0';
    throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'maxNorm', got: show(maxNorm), wanted });
  }
  const gradients = [...named].flatMap(([name, { grad }]) => (grad === undefined ? [] : [{ name, grad }]));
  return tidy(() => {
    const output = emptyTensor([2], 'float32', device);
    native().gradientNorm({
      counts: gradients.map(({ grad }) => grad.size),
      gradients: gradients.map(({ name, grad }) => handleOf(grad, `parameters.${name}.grad`)),
      maxNorm,
      output: handleOf(output, 'output'),
    });
    return output;
  });
}
