/** What the suites of the tape share: differentiable functions to string together, leaves, a pair that can be watched. */

import { differentiable } from '../../lib/autograd/index.js';
import { Saved } from '../../lib/attention/saved.js';
import { Tensor, tidy } from '../../lib/index.js';
import { fresh } from '../under-test.js';

export { add, multiply, scale, sum } from '../../lib/nn/functional-arithmetic.js';

/** A tensor whose gradient is wanted. */
export function leaf(values: readonly number[], shape?: readonly number[]): Tensor {
  const tensor = fresh.from(values, shape);
  tensor.requiresGrad = true;
  return tensor;
}

export async function numbers(tensor: Tensor | undefined): Promise<number[] | undefined> {
  return tensor === undefined ? undefined : [...(await tensor.toFloat32())];
}

class Held extends Saved {
  constructor(readonly x: Tensor) {
    super([x]);
  }
}

/** `x` itself, in memory of its own; calls `onBackward` on the way back, which may throw or give another gradient. */
export function watched(onBackward: (gradient: Tensor) => unknown): (options: { x: Tensor }) => Tensor {
  return differentiable(
    'watched',
    {
      forward: ({ x }: { x: Tensor }) => tidy(() => ({ output: x.clone(), saved: new Held(x.clone()) })),
      backward: (_saved: Held, { output }) => ({ x: (onBackward(output) ?? output) as Tensor }),
    },
    { x: (o) => o.x },
  );
}
