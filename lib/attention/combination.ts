/** Gated combination of the two stages' outputs. */

import { native } from '../binding.js';
import { VsaTypeError } from '../errors.js';
import { dtypeCode } from '../tensor/dtype.js';
import { tidy } from '../tensor/scope.js';
import { handleOf, optionalHandle, outputTensor, share, type Tensor } from '../tensor/tensor.js';
import { checkOptions } from '../validate.js';
import { type BackendOption, chooseBackend } from './backends.js';
import {
  checkAlike,
  checkDims,
  checkGradient,
  checkGrid,
  checkOrder,
  checkSaved,
  checkTensor,
  orderCode,
} from './checks.js';
import type { Order, TileGrid } from './grid.js';
import { Saved } from './saved.js';

export interface CombinationOptions extends BackendOption {
  /** Output of the fine stage, `[B, rows, H, D]`. */
  fine: Tensor;
  /** Output of the coarse stage, float32 `[B, tiles, H, D]`; absent: not added. */
  coarse?: Tensor;
  /** Gate of the coarse output per token and channel, as fine; absent: 1. */
  coarseGate?: Tensor;
  /** Gate of the fine output, as fine; absent: 1. */
  fineGate?: Tensor;
  grid: TileGrid;
  /** Default 'grid'. */
  order?: Order;
}

/** @internal */
export interface CombinationCall {
  dims: { B: number; H: number; D: number };
  grid: TileGrid;
  order: Order;
}

/** @internal What the fine output is combined with. */
export interface CombinationGates {
  coarse?: Tensor | undefined;
  coarseGate?: Tensor | undefined;
  fineGate?: Tensor | undefined;
}

/** @internal */
export interface CombinationInputs extends CombinationGates {
  fine: Tensor;
}

class CombinationSaved extends Saved {
  /** @internal */
  constructor(
    /** @internal */
    readonly inputs: CombinationInputs,
    /** @internal */
    readonly call: CombinationCall,
  ) {
    super([inputs.fine, inputs.coarse, inputs.coarseGate, inputs.fineGate]);
  }
}

export interface CombinationGradients {
  /** Of fine's shape and dtype. */
  fine: Tensor;
  /** float32 `[B, tiles, H, D]` */
  coarse?: Tensor;
  coarseGate?: Tensor;
  fineGate?: Tensor;
}

const LAYOUT = '[B, rows, H, D]';

/** @internal */
export function checkGate(argument: string, value: unknown, model: Tensor): Tensor {
  const gate = checkTensor(argument, value, LAYOUT);
  checkDims(argument, gate, model.shape, LAYOUT);
  return gate;
}

function combineForward(inputs: CombinationInputs, call: CombinationCall): Tensor {
  const { fine, coarse, coarseGate, fineGate } = inputs;
  const output = outputTensor(fine.shape, fine.dtype, fine.device);
  native().combinationForward({
    B: call.dims.B,
    H: call.dims.H,
    D: call.dims.D,
    dtype: dtypeCode(fine.dtype),
    order: orderCode(call.order),
    grid: call.grid.native(),
    fine: handleOf(fine, 'fine'),
    coarse: optionalHandle(coarse, 'coarse'),
    coarseGate: optionalHandle(coarseGate, 'coarseGate'),
    fineGate: optionalHandle(fineGate, 'fineGate'),
    output: handleOf(output, 'output'),
  });
  return output;
}

/**
 * @internal Gradients of whatever was combined; that of fine is doutput itself where no gate touches it.
 * @param delta Where the sums of fine and its gradient go that a fine backward begins with, if it wants them.
 */
export function combineBackward(
  inputs: CombinationInputs,
  doutput: Tensor,
  call: CombinationCall,
  wantFine: boolean,
  delta?: Tensor,
): Partial<CombinationGradients> {
  const { fine, coarse, coarseGate, fineGate } = inputs;
  const like = (tensor: Tensor | undefined) =>
    tensor === undefined ? undefined : outputTensor(tensor.shape, tensor.dtype, tensor.device);
  const grads = {
    fine: wantFine ? like(fine) : undefined,
    coarse: like(coarse),
    coarseGate: like(coarseGate),
    fineGate: like(fineGate),
  };
  native().combinationBackward({
    B: call.dims.B,
    H: call.dims.H,
    D: call.dims.D,
    dtype: dtypeCode(fine.dtype),
    order: orderCode(call.order),
    grid: call.grid.native(),
    fine: handleOf(fine, 'saved'),
    coarse: optionalHandle(coarse, 'saved'),
    coarseGate: optionalHandle(coarseGate, 'saved'),
    fineGate: optionalHandle(fineGate, 'saved'),
    doutput: handleOf(doutput, 'grads.output'),
    dfine: optionalHandle(grads.fine, 'fine'),
    dcoarse: optionalHandle(grads.coarse, 'coarse'),
    dcoarseGate: optionalHandle(grads.coarseGate, 'coarseGate'),
    dfineGate: optionalHandle(grads.fineGate, 'fineGate'),
    delta: optionalHandle(delta, 'delta'),
  });
  const made: Partial<CombinationGradients> = {};
  if (grads.fine !== undefined) made.fine = grads.fine;
  if (grads.coarse !== undefined) made.coarse = grads.coarse;
  if (grads.coarseGate !== undefined) made.coarseGate = grads.coarseGate;
  if (grads.fineGate !== undefined) made.fineGate = grads.fineGate;
  return made;
}

/**
 * `output = coarseGate * coarse[tile] + fineGate * fine`; an absent gate is 1, an absent coarse output is not added.
 * Source: VSA (arXiv 2505.13389), the gated sum of the two stages.
 */
export const gatedCombination = {
  /** @throws VsaRangeError ERR_SHAPE; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_GRID, ERR_ARGUMENT. */
  forward(options: CombinationOptions): { output: Tensor; saved: CombinationSaved } {
    checkOptions('options', options, ['fine', 'coarse', 'coarseGate', 'fineGate', 'grid', 'order', 'backend']);
    const grid = checkGrid('grid', options.grid);
    const order = checkOrder(options.order);
    const fine = checkTensor('fine', options.fine, LAYOUT);
    const [B, , H, D] = fine.shape as [number, number, number, number];
    checkDims('fine', fine, [B, grid.rows(order), H, D], LAYOUT);
    const inputs: CombinationInputs = { fine };
    if (options.coarse !== undefined) {
      inputs.coarse = checkTensor('coarse', options.coarse, '[B, tiles, H, D]', ['float32']);
      checkDims('coarse', inputs.coarse, [B, grid.totalTileCount, H, D], '[B, tiles, H, D]');
    }
    if (options.coarseGate !== undefined) inputs.coarseGate = checkGate('coarseGate', options.coarseGate, fine);
    if (options.fineGate !== undefined) inputs.fineGate = checkGate('fineGate', options.fineGate, fine);
    if (inputs.coarseGate !== undefined && inputs.coarse === undefined) {
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: 'coarse',
        got: 'undefined beside a coarseGate',
        wanted: 'the coarse output that the gate is for',
      });
    }
    checkAlike({ fine, coarseGate: inputs.coarseGate, fineGate: inputs.fineGate }, true);
    chooseBackend(checkAlike({ fine, coarse: inputs.coarse }, false), options.backend, 'gatedCombination');
    const call = { dims: { B, H, D }, grid, order };
    return tidy(() => {
      const output = combineForward(inputs, call);
      const held: CombinationInputs = { fine: share(fine) };
      for (const name of ['coarse', 'coarseGate', 'fineGate'] as const) {
        const tensor = inputs[name];
        if (tensor !== undefined) held[name] = share(tensor);
      }
      return { output, saved: new CombinationSaved(held, call) };
    });
  },

  /** @returns The gradients of the inputs that were given. */
  backward(saved: CombinationSaved, grads: { output: Tensor }): CombinationGradients {
    const { inputs, call } = checkSaved('gatedCombination', saved, CombinationSaved);
    const doutput = checkGradient(grads, inputs.fine);
    return tidy(() => combineBackward(inputs, doutput, call, true) as CombinationGradients);
  },
};
