/** Sums of tensors, for whatever adds up gradients. */

import { native } from '../binding.js';
import { dtypeCode } from './dtype.js';
import { emptyTensor, handleOf, type Tensor } from './tensor.js';

/**
 * @internal A new tensor `alpha * a + beta * b`, of a's shape and dtype, in float32 and rounded once; b repeats. Without
 *   b: `alpha * a`.
 */
export function combine(a: Tensor, alpha: number, b?: Tensor, beta = 1): Tensor {
  const output = emptyTensor(a.shape, a.dtype, a.device);
  native().add({
    dtype: dtypeCode(a.dtype),
    count: a.size,
    bCount: b?.size ?? 0,
    alpha,
    beta,
    a: handleOf(a, 'a'),
    b: b === undefined ? undefined : handleOf(b, 'b'),
    output: handleOf(output, 'output'),
  });
  return output;
}
