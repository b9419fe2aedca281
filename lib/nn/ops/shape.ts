/** Parts of tensors, and tensors of parts. */

import { native } from '../../binding.js';
import { Saved } from '../../attention/saved.js';
import { checkSaved } from '../../attention/checks.js';
import { show, VsaRangeError, VsaTypeError } from '../../errors.js';
import { DTYPES, dtypeSize } from '../../tensor/dtype.js';
import { tidy } from '../../tensor/scope.js';
import { emptyTensor, handleOf, Tensor } from '../../tensor/tensor.js';
import { checkInteger, checkOptions, product } from '../../validate.js';
import { checkAnyTensor, checkLike, checkOutputGradient, isWanted, type Model, modelOf } from './checks.js';

export interface SliceOptions {
  /** Of rank at least 1; any dtype. */
  x: Tensor;
  /** Counted from the end if negative. */
  dim: number;
  /** First index; default 0. */
  start?: number;
  /** After the last index; default: the length of the dim. */
  end?: number;
}

export interface ConcatOptions {
  /** At least one; of one dtype, and of one shape but along `dim`. */
  tensors: readonly Tensor[];
  /** Counted from the end if negative. */
  dim: number;
}

/** A range of indices along a dim. */
interface Range {
  dim: number;
  start: number;
  length: number;
}

class SliceSaved extends Saved {
  /** @internal */
  constructor(
    readonly x: Model,
    readonly output: Model,
    readonly range: Range,
  ) {
    super([]);
  }
}

class ConcatSaved extends Saved {
  /** @internal */
  constructor(
    readonly output: Model,
    readonly dim: number,
    readonly lengths: readonly number[],
  ) {
    super([]);
  }
}

function checkDim(value: unknown, tensor: Tensor, argument: string): number {
  const { rank, shape } = tensor;
  if (rank === 0) {
    throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: show(shape), wanted: 'rank 1 or more' });
  }
  const dim = checkInteger('dim', value, -rank, rank - 1);
  return dim < 0 ? dim + rank : dim;
}

/** A shape with another length along a dim. */
function withLength(shape: readonly number[], dim: number, length: number): readonly number[] {
  return Object.freeze(shape.map((extent, i) => (i === dim ? length : extent)));
}

/**
 * Copies `length` indices along a dim from one tensor to another, whose shapes differ along that dim only. What lies
 * behind the dim is one run of bytes, so the copy is one of matrices.
 */
function copyRange(x: Tensor, xStart: number, output: Tensor, outputStart: number, dim: number, length: number): void {
  const step = product(x.shape.slice(dim + 1)) * dtypeSize(x.dtype);
  native().copyRows({
    rows: product(x.shape.slice(0, dim)),
    bytes: length * step,
    xStride: x.shape[dim]! * step,
    outputStride: output.shape[dim]! * step,
    xOffset: xStart * step,
    outputOffset: outputStart * step,
    x: handleOf(x, 'x'),
    output: handleOf(output, 'output'),
  });
}

/** @internal The indices `[start, start + length)` along a dim, in memory of their own. */
export function sliceOf(x: Tensor, { dim, start, length }: Range): Tensor {
  const output = emptyTensor(withLength(x.shape, dim, length), x.dtype, x.device);
  copyRange(x, start, output, 0, dim, length);
  return output;
}

/** @internal The tensors one after another along a dim, in memory of their own. */
export function concatOf(tensors: readonly Tensor[], dim: number): Tensor {
  const [first] = tensors as readonly [Tensor];
  const length = tensors.reduce((sum, { shape }) => sum + shape[dim]!, 0);
  const output = emptyTensor(withLength(first.shape, dim, length), first.dtype, first.device);
  let start = 0;
  for (const tensor of tensors) {
    copyRange(tensor, 0, output, start, dim, tensor.shape[dim]!);
    start += tensor.shape[dim]!;
  }
  return output;
}

/** A range of indices along one dim, copied to memory of its own. */
export const slice = {
  /**
   * @returns output: of the shape of x, but `end - start` along the dim.
   * @throws VsaRangeError ERR_SHAPE, ERR_ARGUMENT; VsaTypeError ERR_DISPOSED, ERR_ARGUMENT.
   */
  forward(options: SliceOptions): { output: Tensor; saved: SliceSaved } {
    checkOptions('options', options, ['x', 'dim', 'start', 'end']);
    const x = checkAnyTensor('x', options.x, DTYPES);
    const dim = checkDim(options.dim, x, 'x');
    const extent = x.shape[dim]!;
    const start = checkInteger('start', options.start ?? 0, 0, extent);
    const end = checkInteger('end', options.end ?? extent, start, extent);
    const range = { dim, start, length: end - start };
    return tidy(() => {
      const output = sliceOf(x, range);
      return { output, saved: new SliceSaved(modelOf(x), modelOf(output), range) };
    });
  },

  /** @returns x: the gradient in its place, 0 elsewhere. */
  backward(saved: SliceSaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): { x?: Tensor } {
    const { x, output, range } = checkSaved('slice', saved, SliceSaved);
    const gradient = checkOutputGradient(grads, output);
    return tidy(() => {
      if (!isWanted(wanted, 'x')) return {};
      const dx = Tensor.zeros(x.shape, { dtype: x.dtype, device: x.device });
      copyRange(gradient, 0, dx, range.start, range.dim, range.length);
      return { x: dx };
    });
  },
};

/** Tensors one after another along a dim. */
export const concat = {
  /**
   * @returns output: of the tensors' shape, but the sum of their lengths along the dim.
   * @throws VsaRangeError ERR_SHAPE, ERR_ARGUMENT; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_ARGUMENT.
   */
  forward(options: ConcatOptions): { output: Tensor; saved: ConcatSaved } {
    checkOptions('options', options, ['tensors', 'dim']);
    const given: unknown = options.tensors;
    if (!Array.isArray(given) || given.length === 0) {
      const wanted = 'an array of at least one Tensor';
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'tensors', got: show(given), wanted });
    }
    const first = checkAnyTensor('tensors[0]', given[0], DTYPES);
    const dim = checkDim(options.dim, first, 'tensors[0]');
    const tensors = given.map((value: unknown, i) => {
      const argument = `tensors[${String(i)}]`;
      const length = value instanceof Tensor ? (value.shape[dim] ?? 0) : 0;
      return checkLike(
        argument,
        value,
        { ...modelOf(first), shape: withLength(first.shape, dim, length) },
        'tensors[0]',
      );
    });
    return tidy(() => {
      const output = concatOf(tensors, dim);
      const lengths = tensors.map(({ shape }) => shape[dim]!);
      return { output, saved: new ConcatSaved(modelOf(output), dim, lengths) };
    });
  },

  /**
   * @param wanted Indices of tensors, as text: '0', '1' and so on.
   * @returns tensors: the part of the gradient that is each one's, undefined where it is not wanted.
   */
  backward(
    saved: ConcatSaved,
    grads: { output: Tensor },
    wanted?: ReadonlySet<string>,
  ): { tensors: (Tensor | undefined)[] } {
    const { output, dim, lengths } = checkSaved('concat', saved, ConcatSaved);
    const gradient = checkOutputGradient(grads, output);
    return tidy(() => {
      let start = 0;
      const tensors = lengths.map((length, i) => {
        const range = { dim, start, length };
        start += length;
        return isWanted(wanted, String(i)) ? sliceOf(gradient, range) : undefined;
      });
      return { tensors };
    });
  },
};
