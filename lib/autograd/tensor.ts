/** What autograd adds to every tensor. */

import { show, VsaError, VsaTypeError } from '../errors.js';
import { FLOAT_DTYPES } from '../tensor/dtype.js';
import { handleOf, observeDerived, share, Tensor } from '../tensor/tensor.js';
import { checkBoolean, checkOptions } from '../validate.js';
import { runBackward } from './backward.js';
import { dropGrad, gradOf, isRecorded, isTracked, record, setRequiresGrad } from './tape.js';

export interface BackwardOptions {
  /** Keeps what the forwards saved, for another backward. Default false. */
  retainGraph?: boolean;
}

declare module '../tensor/tensor.js' {
  interface Tensor {
    /**
     * Whether gradients flow to this tensor: set on leaves (parameters) by hand, true for whatever a differentiable
     * function made of them.
     *
     * @throws VsaTypeError ERR_DTYPE for int32; VsaError ERR_GRADIENT if set to false where it was recorded.
     */
    requiresGrad: boolean;
    /** The sum of the gradients that `backward()` brought to this leaf. Owned by the tensor: disposed with it. */
    readonly grad: Tensor | undefined;
    /**
     * Adds the gradients of this tensor to the `grad` of every leaf that it came from, and frees the graph.
     *
     * @param gradient Of whatever is computed from this tensor, with respect to it. Default: 1, for one element.
     * @throws VsaError ERR_GRADIENT if there is no graph, it is freed, or a value that it needs was overwritten; then
     *   no `grad` has changed.
     */
    backward(gradient?: Tensor, options?: BackwardOptions): void;
    /** Disposes `grad`. */
    zeroGrad(): void;
    /** The same memory without history. */
    detach(): Tensor;
  }
}

Object.defineProperties(Tensor.prototype, {
  requiresGrad: {
    configurable: true,
    get(this: Tensor): boolean {
      return isTracked(this);
    },
    set(this: Tensor, value: unknown) {
      handleOf(this, 'this');
      if (typeof value !== 'boolean') {
        const got = show(value);
        throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'requiresGrad', got, wanted: 'true or false' });
      }
      if (value && !FLOAT_DTYPES.includes(this.dtype)) {
        const wanted = FLOAT_DTYPES.join(' or ');
        throw new VsaTypeError({ code: 'ERR_DTYPE', argument: 'this', got: this.dtype, wanted });
      }
      if (!isRecorded(this)) {
        setRequiresGrad(this, value);
      } else if (!value) {
        throw new VsaError({
          code: 'ERR_GRADIENT',
          argument: 'requiresGrad',
          got: 'false for a tensor with history',
          wanted: 'a leaf: detach() gives one',
        });
      }
    },
  },
  grad: {
    configurable: true,
    get(this: Tensor): Tensor | undefined {
      return gradOf(this);
    },
  },
  backward: {
    configurable: true,
    writable: true,
    value(this: Tensor, gradient?: Tensor, options: BackwardOptions = {}): void {
      checkOptions('options', options, ['retainGraph']);
      handleOf(this, 'this');
      runBackward(this, gradient, checkBoolean('retainGraph', options.retainGraph ?? false));
    },
  },
  zeroGrad: {
    configurable: true,
    writable: true,
    value(this: Tensor): void {
      dropGrad(this);
    },
  },
  detach: {
    configurable: true,
    writable: true,
    value(this: Tensor): Tensor {
      return share(this);
    },
  },
});

// A tensor's own methods are differentiable: without this, reshape would silently lose the gradient.
observeDerived((source, result, how) => {
  if (result.dtype === 'int32') return; // whole numbers have no gradient
  const { shape, dtype, device } = source;
  record(how, [source], result, [], (gradient) => {
    if (how === 'reshape') return [gradient.reshape(shape)];
    if (how === 'cast') return [gradient.cast(dtype)];
    return [how === 'to' ? gradient.to(device) : share(gradient)];
  });
});
