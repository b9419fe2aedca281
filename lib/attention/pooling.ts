/** Tile pooling: the mean of the valid tokens of every tile. */

import { native } from '../binding.js';
import type { DType } from '../tensor/dtype.js';
import { dtypeCode } from '../tensor/dtype.js';
import { tidy } from '../tensor/scope.js';
import { handleOf, optionalHandle, outputTensor, type Tensor } from '../tensor/tensor.js';
import type { Device } from '../device/device.js';
import { checkOptions } from '../validate.js';
import { type BackendOption, chooseBackend } from './backends.js';
import {
  type AttentionDims,
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

export interface PoolingOptions extends BackendOption {
  /** `[B, rows, H, D]` float32, bfloat16 or float16; rows = `grid.rows(order)`. Padding rows may hold any bits. */
  x: Tensor;
  grid: TileGrid;
  /** Default 'grid'. */
  order?: Order;
}

interface PoolingCall {
  dims: { B: number; H: number; D: number };
  grid: TileGrid;
  order: Order;
  dtype: DType;
  device: Device;
}

/** Holds no tensor: the gradient of a mean needs shapes alone. */
class PoolingSaved extends Saved {
  /** @internal */
  constructor(readonly call: PoolingCall) {
    super([]);
  }
}

/** @internal The means of q's tiles, and of k's and v's where they are given, in one pass. */
export function poolTogether(
  { q, k, v }: { q: Tensor; k: Tensor; v?: Tensor },
  { dims, grid, keyGrid, order }: { dims: AttentionDims; grid: TileGrid; keyGrid: TileGrid; order: Order },
): { q: Tensor; k: Tensor; v?: Tensor } {
  const { B, H, Hkv, D } = dims;
  const means = (tiles: number, heads: number) => outputTensor([B, tiles, heads, D], 'float32', q.device);
  const pooled: { q: Tensor; k: Tensor; v?: Tensor } = {
    q: means(grid.totalTileCount, H),
    k: means(keyGrid.totalTileCount, Hkv),
  };
  if (v !== undefined) pooled.v = means(keyGrid.totalTileCount, Hkv);
  native().poolingTogether({
    B,
    H,
    Hkv,
    D,
    dtype: dtypeCode(q.dtype),
    order: orderCode(order),
    qGrid: grid.native(),
    kvGrid: keyGrid.native(),
    q: handleOf(q, 'q'),
    qMeans: handleOf(pooled.q, 'q'),
    k: handleOf(k, 'k'),
    kMeans: handleOf(pooled.k, 'k'),
    v: optionalHandle(v, 'v'),
    vMeans: optionalHandle(pooled.v, 'v'),
  });
  return pooled;
}

/**
 * `output[i] = (sum of the valid tokens of tile i) / valid(i)`, summed and kept in float32.
 * Source: VSA (arXiv 2505.13389), the coarse stage.
 */
export const tilePooling = {
  /**
   * @returns output: float32 `[B, tiles, H, D]`, prefix tiles first.
   * @throws VsaRangeError ERR_SHAPE; VsaTypeError ERR_DTYPE, ERR_DISPOSED, ERR_GRID; OutOfMemoryError.
   */
  forward(options: PoolingOptions): { output: Tensor; saved: PoolingSaved } {
    checkOptions('options', options, ['x', 'grid', 'order', 'backend']);
    const grid = checkGrid('grid', options.grid);
    const order = checkOrder(options.order);
    const x = checkTensor('x', options.x, '[B, rows, H, D]');
    checkDims('x', x, [null, grid.rows(order), null, null], '[B, rows, H, D]');
    chooseBackend(x.device, options.backend, 'tilePooling');
    const [B, , H, D] = x.shape as [number, number, number, number];
    return tidy(() => {
      const output = outputTensor([B, grid.totalTileCount, H, D], 'float32', x.device);
      native().poolingForward({
        B,
        H,
        D,
        dtype: dtypeCode(x.dtype),
        order: orderCode(order),
        grid: grid.native(),
        x: handleOf(x, 'x'),
        output: handleOf(output, 'output'),
      });
      return { output, saved: new PoolingSaved({ dims: { B, H, D }, grid, order, dtype: x.dtype, device: x.device }) };
    });
  },

  /**
   * Each valid token receives `output[i] / valid(i)` of its tile; padding rows receive 0.
   *
   * @param grads.output float32 `[B, tiles, H, D]`
   * @returns x: of the input's shape and dtype.
   */
  backward(saved: PoolingSaved, grads: { output: Tensor }): { x: Tensor } {
    const { dims, grid, order, dtype, device } = checkSaved('tilePooling', saved, PoolingSaved).call;
    const { B, H, D } = dims;
    const doutput = checkGradient(grads, { shape: [B, grid.totalTileCount, H, D], dtype: 'float32', device });
    return tidy(() => {
      const x = outputTensor([B, grid.rows(order), H, D], dtype, device);
      native().poolingBackward({
        B,
        H,
        D,
        dtype: dtypeCode(dtype),
        order: orderCode(order),
        grid: grid.native(),
        doutput: handleOf(doutput, 'grads.output'),
        dx: handleOf(x, 'x'),
      });
      return { x };
    });
  },
};
