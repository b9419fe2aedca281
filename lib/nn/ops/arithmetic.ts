/** Sums and products of tensors, element by element. */

import { native } from '../../binding.js';
import { Saved } from '../../attention/saved.js';
import { checkSaved } from '../../attention/checks.js';
import { show, VsaRangeError } from '../../errors.js';
import { combine } from '../../tensor/arithmetic.js';
import { dtypeCode } from '../../tensor/dtype.js';
import { tidy } from '../../tensor/scope.js';
import { emptyTensor, handleOf, share, type Tensor } from '../../tensor/tensor.js';
import { checkNumber, checkOptions, sameShape } from '../../validate.js';
import { checkAnyTensor, checkLike, checkOutputGradient, emptyLike, isWanted, type Model, modelOf } from './checks.js';

export interface AddOptions {
  /** Of any shape; float32, bfloat16 or float16. */
  a: Tensor;
  /** Of the dtype of a. Its shape is that of a or of the last dims of a, along whose other dims it is repeated. */
  b: Tensor;
}

export interface MultiplyOptions {
  /** Of any shape; float32, bfloat16 or float16. */
  a: Tensor;
  /** Of the shape and dtype of a. */
  b: Tensor;
}

export interface ScaleOptions {
  /** Of any shape; float32, bfloat16 or float16. */
  x: Tensor;
  /** Rounded to float32. */
  by: number;
}

/** @internal A factor of float32 numbers. */
export function checkFactor(argument: string, value: unknown): number {
  const factor = checkNumber(argument, value);
  if (Number.isFinite(Math.fround(factor))) return factor;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(factor), wanted: 'a float32' });
}

function multiplied(a: Tensor, b: Tensor): Tensor {
  const output = emptyLike(a);
  native().multiply({
    dtype: dtypeCode(a.dtype),
    count: a.size,
    a: handleOf(a, 'a'),
    b: handleOf(b, 'b'),
    output: handleOf(output, 'output'),
  });
  return output;
}

/** The sum over the dims along which a tensor of this shape was repeated. */
function sumOfRepeats(gradient: Tensor, { shape, dtype, device }: Model, columns: number): Tensor {
  const sum = emptyTensor(shape, 'float32', device);
  native().columnSum({
    dtype: dtypeCode(gradient.dtype),
    rows: columns === 0 ? 0 : gradient.size / columns,
    columns,
    x: handleOf(gradient, 'grads.output'),
    output: handleOf(sum, 'b'),
  });
  return sum.cast(dtype);
}

class AddSaved extends Saved {
  /** @internal */
  constructor(
    readonly a: Model,
    readonly b: Model & { size: number },
  ) {
    super([]);
  }
}

class MultiplySaved extends Saved {
  /** @internal */
  constructor(
    readonly a: Tensor,
    readonly b: Tensor,
  ) {
    super([a, b]);
  }
}

class ScaleSaved extends Saved {
  /** @internal */
  constructor(
    readonly x: Model,
    readonly by: number,
  ) {
    super([]);
  }
}

/** `output = a + b`, added in float32 and rounded once. */
export const add = {
  /**
   * @returns output: of the shape and dtype of a.
   * @throws VsaRangeError ERR_SHAPE; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_ARGUMENT.
   */
  forward(options: AddOptions): { output: Tensor; saved: AddSaved } {
    checkOptions('options', options, ['a', 'b']);
    const a = checkAnyTensor('a', options.a);
    const b = checkAnyTensor('b', options.b);
    const suffix = a.shape.slice(a.rank - Math.min(b.rank, a.rank));
    if (!sameShape(b.shape, suffix)) {
      const [got, wanted] = [show(b.shape), `${show(a.shape)}, as a has, or the last of these dims`];
      throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'b', got, wanted });
    }
    checkLike('b', b, { ...modelOf(a), shape: b.shape }, 'a');
    return tidy(() => {
      return { output: combine(a, 1, b), saved: new AddSaved(modelOf(a), { ...modelOf(b), size: b.size }) };
    });
  },

  /** @returns a: the gradient itself; b: the same, summed over the dims along which b was repeated. */
  backward(saved: AddSaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): { a?: Tensor; b?: Tensor } {
    const { a, b } = checkSaved('add', saved, AddSaved);
    const gradient = checkOutputGradient(grads, a);
    return tidy(() => ({
      ...(isWanted(wanted, 'a') && { a: share(gradient) }),
      ...(isWanted(wanted, 'b') && {
        b: sameShape(a.shape, b.shape) ? share(gradient) : sumOfRepeats(gradient, b, b.size),
      }),
    }));
  },
};

/** `output = a * b`, element by element. */
export const multiply = {
  /**
   * @returns output: of the shape and dtype of a.
   * @throws VsaRangeError ERR_SHAPE; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_ARGUMENT.
   */
  forward(options: MultiplyOptions): { output: Tensor; saved: MultiplySaved } {
    checkOptions('options', options, ['a', 'b']);
    const a = checkAnyTensor('a', options.a);
    const b = checkLike('b', options.b, a, 'a');
    return tidy(() => ({ output: multiplied(a, b), saved: new MultiplySaved(share(a), share(b)) }));
  },

  backward(saved: MultiplySaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): { a?: Tensor; b?: Tensor } {
    const { a, b } = checkSaved('multiply', saved, MultiplySaved);
    const gradient = checkOutputGradient(grads, a);
    return tidy(() => ({
      ...(isWanted(wanted, 'a') && { a: multiplied(gradient, b) }),
      ...(isWanted(wanted, 'b') && { b: multiplied(gradient, a) }),
    }));
  },
};

/** `output = by * x`. */
export const scale = {
  /**
   * @returns output: of the shape and dtype of x.
   * @throws VsaRangeError ERR_ARGUMENT; VsaTypeError ERR_DTYPE, ERR_DISPOSED, ERR_ARGUMENT.
   */
  forward(options: ScaleOptions): { output: Tensor; saved: ScaleSaved } {
    checkOptions('options', options, ['x', 'by']);
    const x = checkAnyTensor('x', options.x);
    const by = checkFactor('by', options.by);
    return tidy(() => ({ output: combine(x, by), saved: new ScaleSaved(modelOf(x), by) }));
  },

  backward(saved: ScaleSaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): { x?: Tensor } {
    const { x, by } = checkSaved('scale', saved, ScaleSaved);
    const gradient = checkOutputGradient(grads, x);
    return tidy(() => (isWanted(wanted, 'x') ? { x: combine(gradient, by) } : {}));
  },
};
