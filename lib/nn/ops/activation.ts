/** SiLU and GELU. */

import { native } from '../../binding.js';
import { checkSaved } from '../../attention/checks.js';
import { Saved } from '../../attention/saved.js';
import { dtypeCode } from '../../tensor/dtype.js';
import { tidy } from '../../tensor/scope.js';
import { handleOf, share, type Tensor } from '../../tensor/tensor.js';
import { checkOptions } from '../../validate.js';
import { checkAnyTensor, checkOutputGradient, emptyLike, isWanted } from './checks.js';

export interface ActivationOptions {
  /** Of any shape. */
  x: Tensor;
}

export interface ActivationGradients {
  /** Of the shape and dtype of `x`. */
  x?: Tensor;
}

/** By the names of the functions; the numbers are those of csrc/ops/activation.h. */
const KINDS = { silu: 0, geluTanh: 1 } as const;
type Kind = keyof typeof KINDS;

class ActivationSaved extends Saved {
  /** @internal */
  constructor(
    /** @internal */
    readonly kind: Kind,
    /** @internal */
    readonly x: Tensor,
  ) {
    super([x]);
  }
}

function activation(kind: Kind, SavedOfKind: new (kind: Kind, x: Tensor) => ActivationSaved) {
  return {
    /** @throws VsaTypeError ERR_DTYPE, ERR_DISPOSED, ERR_ARGUMENT. */
    forward(options: ActivationOptions): { output: Tensor; saved: ActivationSaved } {
      checkOptions('options', options, ['x']);
      const x = checkAnyTensor('x', options.x);
      return tidy(() => {
        const output = emptyLike(x);
        native().activationForward({
          dtype: dtypeCode(x.dtype),
          kind: KINDS[kind],
          count: x.size,
          x: handleOf(x, 'x'),
          output: handleOf(output, 'output'),
        });
        return { output, saved: new SavedOfKind(kind, share(x)) };
      });
    },

    backward(saved: ActivationSaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): ActivationGradients {
      const { x } = checkSaved(kind, saved, SavedOfKind);
      const doutput = checkOutputGradient(grads, x);
      if (!isWanted(wanted, 'x')) return {};
      return tidy(() => {
        const dx = emptyLike(x);
        native().activationBackward({
          dtype: dtypeCode(x.dtype),
          kind: KINDS[kind],
          count: x.size,
          x: handleOf(x, 'saved'),
          doutput: handleOf(doutput, 'grads.output'),
          dx: handleOf(dx, 'x'),
        });
        return { x: dx };
      });
    },
  };
}

/** `x / (1 + exp(-x))`, in fp32. Source: Elfwing et al. (arXiv 1702.03118). */
export const silu = activation('silu', class SiluSaved extends ActivationSaved {});

/** `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, in fp32. Source: Hendrycks and Gimpel (arXiv 1606.08415). */
export const geluTanh = activation('geluTanh', class GeluTanhSaved extends ActivationSaved {});
