/** Linear layer: a matrix product and a bias. */

import { checkAlike, checkSaved } from '../../attention/checks.js';
import { Saved } from '../../attention/saved.js';
import { native } from '../../binding.js';
import { show, VsaRangeError } from '../../errors.js';
import { dtypeCode } from '../../tensor/dtype.js';
import { tidy } from '../../tensor/scope.js';
import { emptyTensor, handleOf, share, type Tensor } from '../../tensor/tensor.js';
import { checkOptions } from '../../validate.js';
import {
  checkAnyTensor,
  checkChannelsLast,
  checkOutputGradient,
  checkParameter,
  emptyLike,
  handleIfAny,
  isWanted,
  rowsOf,
} from './checks.js';

export interface LinearOptions {
  /** `[..., K]`, float32, bfloat16 or float16. */
  x: Tensor;
  /** `[N, K]`, of the dtype of x, or float32: then it is rounded to that dtype for the products. */
  weight: Tensor;
  /** float32 `[N]`; absent: 0. On a GPU it is rounded to the dtype of x, as cuBLASLt wants it. */
  bias?: Tensor;
}

export interface LinearGradients {
  /** Of the shape and dtype of x. */
  x: Tensor;
  /** `[N, K]`, of the dtype of weight: a float32 weight has a gradient that was never rounded to 16 bits. */
  weight: Tensor;
  /** float32 `[N]`, where a bias was given. */
  bias?: Tensor;
}

class LinearSaved extends Saved {
  /** @internal */
  constructor(
    /** @internal */
    readonly x: Tensor,
    /** @internal In the dtype of x. */
    readonly weight: Tensor,
    /** @internal Shape and dtype of the weight that was given. */
    readonly master: Pick<Tensor, 'shape' | 'dtype' | 'device'>,
    /** @internal */
    readonly hasBias: boolean,
  ) {
    super([x, weight]);
  }
}

interface Product {
  a: Tensor;
  b: Tensor;
  output: Tensor;
  /** `[M, N, K]` */
  dims: readonly [number, number, number];
  transpose: 'a' | 'b' | 'none';
  bias?: Tensor | undefined;
}

function multiply({ a, b, output, dims: [M, N, K], transpose, bias }: Product): Tensor {
  native().matrixProduct({
    ...{ dtype: dtypeCode(a.dtype), outputDtype: dtypeCode(output.dtype), M, N, K },
    ...{ transposeA: transpose === 'a', transposeB: transpose === 'b' },
    a: handleOf(a, 'a'),
    b: handleOf(b, 'b'),
    bias: handleIfAny(bias, 'bias'),
    output: handleOf(output, 'output'),
  });
  return output;
}

/** float32 `[columns]`: the sum over all dims but the last. */
function columnSum(x: Tensor): Tensor {
  const { rows, width: columns } = rowsOf(x);
  const output = emptyTensor([columns], 'float32', x.device);
  const dtype = dtypeCode(x.dtype);
  native().columnSum({ dtype, rows, columns, x: handleOf(x, 'x'), output: handleOf(output, 'output') });
  return output;
}

/**
 * `y = x weight^T + bias`, summed in float32 and rounded once.
 *
 * With rows of x and y as matrices: `dx = dy weight`, `dweight = dy^T x`, `dbias` the sum of the rows of dy.
 */
export const linear = {
  /**
   * @returns `output`: `[..., N]`, of the dtype of x.
   * @throws VsaTypeError ERR_ARGUMENT, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED; VsaRangeError ERR_SHAPE; VsaError
   *   ERR_BACKEND on a GPU without cuBLASLt.
   */
  forward(options: LinearOptions): { output: Tensor; saved: LinearSaved } {
    checkOptions('options', options, ['x', 'weight', 'bias']);
    const x = checkChannelsLast('x', options.x, '[..., K]');
    const { rows, width: K } = rowsOf(x);
    const given = checkAnyTensor('weight', options.weight, [...new Set([x.dtype, 'float32' as const])]);
    checkAlike({ x, weight: given }, false);
    if (given.rank !== 2 || given.shape[1] !== K) {
      const wanted = `[any, ${String(K)}] ([N, K], K as x ${show(x.shape)} has)`;
      throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'weight', got: show(given.shape), wanted });
    }
    const N = given.shape[0]!;
    const bias = options.bias === undefined ? undefined : checkParameter('bias', options.bias, [N], '[N]', x);
    return tidy(() => {
      const weight = given.cast(x.dtype);
      const output = emptyTensor([...x.shape.slice(0, -1), N], x.dtype, x.device);
      multiply({ a: x, b: weight, output, dims: [rows, N, K], transpose: 'b', bias });
      const { shape, dtype, device } = given;
      const saved = new LinearSaved(share(x), weight, { shape, dtype, device }, bias !== undefined);
      return { output, saved };
    });
  },

  /** @returns The gradients of what was given; with `wanted`, only those that it names. */
  backward(saved: LinearSaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): LinearGradients {
    const { x, weight, master, hasBias } = checkSaved('linear', saved, LinearSaved);
    const { rows, width: K } = rowsOf(x);
    const N = master.shape[0]!;
    const shape = [...x.shape.slice(0, -1), N];
    const dy = checkOutputGradient(grads, { shape, dtype: x.dtype, device: x.device });
    return tidy(() => {
      const found: Partial<LinearGradients> = {};
      if (isWanted(wanted, 'x')) {
        found.x = multiply({ a: dy, b: weight, output: emptyLike(x), dims: [rows, K, N], transpose: 'none' });
      }
      if (isWanted(wanted, 'weight')) {
        found.weight = multiply({ a: dy, b: x, output: emptyLike(master), dims: [N, K, rows], transpose: 'a' });
      }
      if (hasBias && isWanted(wanted, 'bias')) found.bias = columnSum(dy);
      return found as LinearGradients;
    });
  },
};
