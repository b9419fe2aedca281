/** Sums, means and losses: one number of a whole tensor. */

import { native } from '../../binding.js';
import { Saved } from '../../attention/saved.js';
import { checkSaved } from '../../attention/checks.js';
import { combine } from '../../tensor/arithmetic.js';
import { dtypeCode } from '../../tensor/dtype.js';
import { tidy } from '../../tensor/scope.js';
import { emptyTensor, handleOf, share, type Tensor } from '../../tensor/tensor.js';
import { checkOptions } from '../../validate.js';
import { checkAnyTensor, checkLike, checkOutputGradient, emptyLike, isWanted, type Model, modelOf } from './checks.js';

export interface SumOptions {
  /** Of any shape; float32, bfloat16 or float16. */
  x: Tensor;
}

export interface MeanSquaredErrorOptions {
  /** Of any shape; float32, bfloat16 or float16. */
  prediction: Tensor;
  /** Of the shape and dtype of prediction. */
  target: Tensor;
}

/** A loss is one float32 number, of no dims. */
function scalarOn(device: Model['device']): Model {
  return { shape: [], dtype: 'float32', device };
}

class SumSaved extends Saved {
  /** @internal */
  constructor(
    readonly operation: string,
    readonly x: Model & { size: number },
    readonly scale: number,
  ) {
    super([]);
  }
}

class SquaredErrorSaved extends Saved {
  /** @internal */
  constructor(
    readonly prediction: Tensor,
    readonly target: Tensor,
  ) {
    super([prediction, target]);
  }
}

/** The pair of `scaleOf(size) * sum of all elements`. */
function scaledSum(operation: string, scaleOf: (size: number) => number) {
  return {
    /**
     * @returns output: float32 of no dims, summed in float64 and in a fixed order.
     * @throws VsaTypeError ERR_DTYPE, ERR_DISPOSED, ERR_ARGUMENT.
     */
    forward(options: SumOptions): { output: Tensor; saved: SumSaved } {
      checkOptions('options', options, ['x']);
      const x = checkAnyTensor('x', options.x);
      const scale = scaleOf(x.size);
      return tidy(() => {
        const output = emptyLike(scalarOn(x.device));
        native().sum({
          ...{ dtype: dtypeCode(x.dtype), count: x.size, scale },
          x: handleOf(x, 'x'),
          output: handleOf(output, 'output'),
        });
        return { output, saved: new SumSaved(operation, { ...modelOf(x), size: x.size }, scale) };
      });
    },

    /** @returns x: the same number in every element, of the shape and dtype of x. */
    backward(saved: SumSaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): { x?: Tensor } {
      const { x, scale } = checkSaved(operation, saved, SumSaved);
      const gradient = checkOutputGradient(grads, scalarOn(x.device));
      return tidy(() => {
        if (!isWanted(wanted, 'x')) return {};
        const spread = emptyTensor(x.shape, x.dtype, x.device);
        native().spread({
          ...{ dtype: dtypeCode(x.dtype), count: x.size, scale },
          x: handleOf(gradient, 'grads.output'),
          output: handleOf(spread, 'x'),
        });
        return { x: spread };
      });
    },
  };
}

/** The sum of all elements; 0 of none. */
export const sum = scaledSum('sum', () => 1);

/** The mean of all elements; NaN of none. */
export const mean = scaledSum('mean', (size) => 1 / size);

/** The mean of `(prediction - target)^2` over all elements; NaN of none. */
export const meanSquaredError = {
  /**
   * @returns output: float32 of no dims, computed in float64 and in a fixed order.
   * @throws VsaRangeError ERR_SHAPE; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_ARGUMENT.
   */
  forward(options: MeanSquaredErrorOptions): { output: Tensor; saved: SquaredErrorSaved } {
    checkOptions('options', options, ['prediction', 'target']);
    const prediction = checkAnyTensor('prediction', options.prediction);
    const target = checkLike('target', options.target, prediction, 'prediction');
    return tidy(() => {
      const output = emptyLike(scalarOn(prediction.device));
      native().squaredErrorForward({
        ...{ dtype: dtypeCode(prediction.dtype), count: prediction.size },
        prediction: handleOf(prediction, 'prediction'),
        target: handleOf(target, 'target'),
        output: handleOf(output, 'output'),
      });
      return { output, saved: new SquaredErrorSaved(share(prediction), share(target)) };
    });
  },

  /** @returns prediction: `2 (prediction - target) / count * grads.output`; target: its negative. */
  backward(
    saved: SquaredErrorSaved,
    grads: { output: Tensor },
    wanted?: ReadonlySet<string>,
  ): { prediction?: Tensor; target?: Tensor } {
    const { prediction, target } = checkSaved('meanSquaredError', saved, SquaredErrorSaved);
    const gradient = checkOutputGradient(grads, scalarOn(prediction.device));
    const [wantPrediction, wantTarget] = [isWanted(wanted, 'prediction'), isWanted(wanted, 'target')];
    if (!wantPrediction && !wantTarget) return {};
    return tidy(() => {
      const dprediction = emptyLike(prediction);
      native().squaredErrorBackward({
        ...{ dtype: dtypeCode(prediction.dtype), count: prediction.size },
        prediction: handleOf(prediction, 'saved'),
        target: handleOf(target, 'saved'),
        doutput: handleOf(gradient, 'grads.output'),
        dprediction: handleOf(dprediction, 'prediction'),
      });
      return {
        ...(wantPrediction && { prediction: dprediction }),
        ...(wantTarget && { target: combine(dprediction, -1) }),
      };
    });
  },
};
