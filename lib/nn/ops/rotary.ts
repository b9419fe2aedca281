/** Rotary position embedding over a grid of tokens. */

import { native } from '../../binding.js';
import { checkDims, checkSaved, checkTensor } from '../../attention/checks.js';
import { TileGrid, type Triple } from '../../attention/grid.js';
import { Saved } from '../../attention/saved.js';
import type { Device, DeviceString } from '../../device/device.js';
import { show, VsaRangeError, VsaTypeError } from '../../errors.js';
import { dtypeCode } from '../../tensor/dtype.js';
import { tidy } from '../../tensor/scope.js';
import { handleOf, share, Tensor } from '../../tensor/tensor.js';
import { checkInteger, checkNumber, checkOptions } from '../../validate.js';
import { checkOutputGradient, checkParameter, emptyLike, isWanted, type Model, modelOf } from './checks.js';

export interface RotaryTableOptions {
  /** Token grid `[T, Y, X]` after patchify, or `'21x30x52'`. */
  tokens: Triple | string;
  /** D, even. */
  headDim: number;
  /** Default 10000. */
  theta?: number;
  /** Tokens before the video, which are not rotated. Default 0. */
  prefix?: number;
  /**
   * For every row of the table its token, or -1 for a row that is not rotated: `grid.permutation()` gives the table of
   * tiled order. Default: the tokens in order.
   */
  permutation?: Int32Array;
  /** Default: the best there is. */
  device?: Device | DeviceString;
}

/** Numbers of the largest table: 8 GB. */
const MAX_NUMBERS = 2 ** 31;

/** Cosine and sine of `place * theta^(-i / count)` for each i, float64 `[places, count, 2]`. */
function angles(places: number, count: number, theta: number): Float64Array {
  const table = new Float64Array(places * count * 2);
  for (let i = 0; i < count; i++) {
    const frequency = theta ** (-i / count);
    for (let place = 0; place < places; place++) {
      const at = 2 * (place * count + i);
      table[at] = Math.cos(place * frequency);
      table[at + 1] = Math.sin(place * frequency);
    }
  }
  return table;
}

function checkPermutation(value: unknown, length: number): Int32Array | undefined {
  if (value === undefined) return undefined;
  if (!(value instanceof Int32Array)) {
    const [got, wanted] = [show(value), 'an Int32Array'];
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'permutation', got, wanted });
  }
  const at = value.findIndex((token) => token < -1 || token >= length);
  if (at === -1) return value;
  const wanted = `a token below ${String(length)}, or -1`;
  throw new VsaRangeError({
    code: 'ERR_ARGUMENT',
    argument: `permutation[${String(at)}]`,
    got: show(value[at]),
    wanted,
  });
}

/**
 * Cosines and sines for `rotaryEmbedding`. Of the c = D / 2 pairs of channels the first c - 2 floor(c / 3) turn with t,
 * the next floor(c / 3) with y and the last with x; pair i of n turns by `place * theta^(-i / n)`. Computed in float64.
 * Sources: Su et al., RoFormer (arXiv 2104.09864); the split over three dims: Wan (arXiv 2503.20314).
 *
 * @returns float32 `[L, D / 2, 2]`, L rows as the grid has tokens, or the permutation entries.
 * @throws VsaRangeError ERR_GRID (tokens), ERR_ARGUMENT, ERR_SHAPE for a table of more than 2^31 numbers; VsaTypeError
 *   ERR_ARGUMENT.
 */
export function rotaryTable(options: RotaryTableOptions): Tensor {
  checkOptions('options', options, ['tokens', 'headDim', 'theta', 'prefix', 'permutation', 'device']);
  const { theta = 10000, prefix = 0 } = options;
  const grid = new TileGrid({ tokens: options.tokens, prefix });
  const D = checkInteger('headDim', options.headDim, 2);
  if (D % 2 !== 0) {
    throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'headDim', got: show(D), wanted: 'an even number' });
  }
  if (checkNumber('theta', theta) <= 0) {
    throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'theta', got: show(theta), wanted: 'more than 0' });
  }
  const permutation = checkPermutation(options.permutation, grid.length);
  const rows = permutation?.length ?? grid.length;
  const longest = Math.max(rows, ...grid.tokens);
  if (longest * D > MAX_NUMBERS) {
    const got = `${String(longest)} rows of ${String(D)}`;
    throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'tokens', got, wanted: 'at most 2^31 numbers' });
  }
  const [T, Y, X] = grid.tokens;
  const third = Math.floor(D / 6);
  const byT = angles(T, D / 2 - 2 * third, theta);
  const byY = angles(Y, third, theta);
  const byX = angles(X, third, theta);
  const [first, other] = [D - 4 * third, 2 * third]; // numbers of each in a row
  const table = new Float32Array(rows * D);
  for (let row = 0; row < rows; row++) {
    const video = (permutation === undefined ? row : permutation[row]!) - prefix;
    if (video < 0) {
      for (let c = 0; c < D; c += 2) table[row * D + c] = 1;
      continue;
    }
    const [t, y, x] = [Math.floor(video / (Y * X)), Math.floor(video / X) % Y, video % X];
    table.set(byT.subarray(t * first, (t + 1) * first), row * D);
    table.set(byY.subarray(y * other, (y + 1) * other), row * D + first);
    table.set(byX.subarray(x * other, (x + 1) * other), row * D + first + other);
  }
  return Tensor.from(table, [rows, D / 2, 2], options.device === undefined ? {} : { device: options.device });
}

export interface RotaryEmbeddingOptions {
  /** `[B, L, H, D]` */
  x: Tensor;
  /** float32 `[L, D / 2, 2]`, as `rotaryTable` gives it. No gradient. */
  table: Tensor;
}

export interface RotaryEmbeddingGradients {
  /** Of the shape and dtype of `x`. */
  x?: Tensor;
}

class RotaryEmbeddingSaved extends Saved {
  /** @internal */
  constructor(
    /** @internal */
    readonly table: Tensor,
    /** @internal */
    readonly model: Model,
  ) {
    super([table]);
  }
}

const LAYOUT = '[B, L, H, D]';

function rotate(x: Tensor, table: Tensor, argument: string, inverse: boolean): Tensor {
  const output = emptyLike(x);
  const [B, L, H, D] = x.shape as [number, number, number, number];
  native().rotary({
    dtype: dtypeCode(x.dtype),
    ...{ B, L, H, D },
    inverse,
    x: handleOf(x, argument),
    table: handleOf(table, 'table'),
    output: handleOf(output, 'output'),
  });
  return output;
}

/**
 * Turns adjacent pairs of channels by the angles of the token's place, `(x0 + i x1) * (cos + i sin)`, in fp32; the
 * gradient turns back. Source: Su et al., RoFormer (arXiv 2104.09864).
 */
export const rotaryEmbedding = {
  /**
   * @throws VsaRangeError ERR_SHAPE, also for an odd D; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_ARGUMENT.
   */
  forward(options: RotaryEmbeddingOptions): { output: Tensor; saved: RotaryEmbeddingSaved } {
    checkOptions('options', options, ['x', 'table']);
    const x = checkTensor('x', options.x, LAYOUT);
    const [, L, H, D] = x.shape as [number, number, number, number];
    checkDims('x', x, [null, L, H, D % 2 === 0 ? D : D + 1], `${LAYOUT}, D even`);
    const table = checkParameter('table', options.table, [L, D / 2, 2], '[L, D / 2, 2]', x);
    return tidy(() => {
      const output = rotate(x, table, 'x', false);
      return { output, saved: new RotaryEmbeddingSaved(share(table), modelOf(x)) };
    });
  },

  backward(
    saved: RotaryEmbeddingSaved,
    grads: { output: Tensor },
    wanted?: ReadonlySet<string>,
  ): RotaryEmbeddingGradients {
    const { table, model } = checkSaved('rotaryEmbedding', saved, RotaryEmbeddingSaved);
    const doutput = checkOutputGradient(grads, model);
    if (!isWanted(wanted, 'x')) return {};
    return tidy(() => ({ x: rotate(doutput, table, 'grads.output', true) }));
  },
};
