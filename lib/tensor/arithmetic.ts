/** Sums of tensors, for whatever adds up gradients. */

import { native } from '../binding.js';
import { dtypeCode } from './dtype.js';
import { emptyTensor, handleOf, type Tensor } from './tensor.js';

/** @internal A new tensor `a + b`, of equal shapes and dtypes, added in float32. */
export function addTensors(a: Tensor, b: Tensor): Tensor {
  const output = emptyTensor(a.shape, a.dtype, a.device);
  native().add({
    dtype: dtypeCode(a.dtype),
    count: a.size,
    bCount: b.size,
    alpha: 1,
    beta: 1,
    a: handleOf(a, 'a'),
    b: handleOf(b, 'b'),
    output: handleOf(output, 'output'),
  });
  return output;
}
