/** Grid order to tiled order and back. */

import { native } from '../binding.js';
import { type Device } from '../device/device.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { type DType, dtypeSize } from '../tensor/dtype.js';
import { tidy } from '../tensor/scope.js';
import { handleOf, outputTensor, Tensor } from '../tensor/tensor.js';
import { checkOptions, product } from '../validate.js';
import { type BackendOption, chooseBackend } from './backends.js';
import { checkGradient, checkGrid, checkSaved, orderCode } from './checks.js';
import type { Order, TileGrid } from './grid.js';
import { Saved } from './saved.js';

export interface TilingOptions extends BackendOption {
  /** `[B, rows, ...]` of any dtype: a row of any shape for every token. */
  x: Tensor;
  grid: TileGrid;
}

interface TilingCall {
  shape: readonly number[];
  grid: TileGrid;
  to: Order;
  dtype: DType;
  device: Device;
}

class TilingSaved extends Saved {
  /** @internal */
  constructor(readonly call: TilingCall) {
    super([]);
  }
}

function withRows(shape: readonly number[], rows: number): readonly number[] {
  return [shape[0]!, rows, ...shape.slice(2)];
}

function move(x: Tensor, argument: string, { grid, to }: Pick<TilingCall, 'grid' | 'to'>): Tensor {
  const output = outputTensor(withRows(x.shape, grid.rows(to)), x.dtype, x.device);
  native().tiling({
    B: x.shape[0]!,
    rowBytes: product(x.shape.slice(2)) * dtypeSize(x.dtype),
    grid: grid.native(),
    to: orderCode(to),
    x: handleOf(x, argument),
    output: handleOf(output, 'output'),
  });
  return output;
}

function forward(options: TilingOptions, to: Order): { output: Tensor; saved: TilingSaved } {
  checkOptions('options', options, ['x', 'grid', 'backend']);
  const grid = checkGrid('grid', options.grid);
  const { x } = options;
  if (!(x instanceof Tensor)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'x', got: show(x), wanted: 'a Tensor [B, rows, ...]' });
  }
  handleOf(x, 'x');
  const from = to === 'tiled' ? 'grid' : 'tiled';
  if (x.rank < 2 || x.shape[1] !== grid.rows(from)) {
    throw new VsaRangeError({
      code: 'ERR_SHAPE',
      argument: 'x',
      got: show(x.shape),
      wanted: `[B, ${String(grid.rows(from))}, ...]: the rows of grid ${grid.toString()} in ${from} order`,
    });
  }
  chooseBackend(x.device, options.backend, to === 'tiled' ? 'tile' : 'untile');
  return tidy(() => {
    const saved = new TilingSaved({ shape: x.shape, grid, to, dtype: x.dtype, device: x.device });
    return { output: move(x, 'x', { grid, to }), saved };
  });
}

function backward(operation: string, to: Order, saved: TilingSaved, grads: { output: Tensor }): { x: Tensor } {
  const { call } = checkSaved(operation, saved, TilingSaved);
  if (call.to !== to) {
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: 'saved',
      got: `what ${to === 'tiled' ? 'untile' : 'tile'}.forward saved`,
      wanted: `what ${operation}.forward returned as saved`,
    });
  }
  const { grid, shape, dtype, device } = call;
  const doutput = checkGradient(grads, { shape: withRows(shape, grid.rows(to)), dtype, device });
  return tidy(() => ({ x: move(doutput, 'grads.output', { grid, to: to === 'tiled' ? 'grid' : 'tiled' }) }));
}

/**
 * Tokens from grid order to tiled order: `[B, L, ...]` to `[B, slots, ...]`, padding slots 0. Models do it once at
 * their input: every pointwise operation commutes with it, and RoPE tables permute along by `grid.permutation()`.
 */
export const tile = {
  forward: (options: TilingOptions): { output: Tensor; saved: TilingSaved } => forward(options, 'tiled'),
  /** @returns x: the gradient in grid order; that of padding slots is dropped. */
  backward: (saved: TilingSaved, grads: { output: Tensor }): { x: Tensor } => backward('tile', 'tiled', saved, grads),
};

/** Tokens from tiled order back to grid order: `[B, slots, ...]` to `[B, L, ...]`; padding slots are dropped. */
export const untile = {
  forward: (options: TilingOptions): { output: Tensor; saved: TilingSaved } => forward(options, 'grid'),
  /** @returns x: the gradient in tiled order; 0 in padding slots. */
  backward: (saved: TilingSaved, grads: { output: Tensor }): { x: Tensor } => backward('untile', 'grid', saved, grads),
};
