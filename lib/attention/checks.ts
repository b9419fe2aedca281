/** Checks that all attention operations share: tensors by rank and dims, grids, devices, saved state. */

import type { Device } from '../device/device.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { type DType, FLOAT_DTYPES } from '../tensor/dtype.js';
import { handleOf, Tensor } from '../tensor/tensor.js';
import { checkChoice, checkNumber, checkOptions } from '../validate.js';
import { type Order, TileGrid } from './grid.js';
import type { Saved } from './saved.js';

/** Head dims that kernels exist for. */
export const HEAD_DIMS: readonly number[] = [64, 96, 128];

const ranks = new Map<string, number>();

/** Dims of a layout like `[B, rows, H, D]`. There are few of them. */
function rankOf(layout: string): number {
  let rank = ranks.get(layout);
  if (rank === undefined) ranks.set(layout, (rank = layout.split(',').length));
  return rank;
}

/** A living tensor of one of the dtypes; `layout` names its dims in the error of a wrong rank. */
export function checkTensor(argument: string, value: unknown, layout: string, dtypes = FLOAT_DTYPES): Tensor {
  if (!(value instanceof Tensor)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: `a Tensor ${layout}` });
  }
  handleOf(value, argument);
  if (!dtypes.includes(value.dtype)) {
    throw new VsaTypeError({ code: 'ERR_DTYPE', argument, got: value.dtype, wanted: dtypes.join(' or ') });
  }
  const rank = rankOf(layout);
  if (value.rank !== rank) {
    throw new VsaRangeError({
      code: 'ERR_SHAPE',
      argument,
      got: show(value.shape),
      wanted: `rank ${String(rank)}, ${layout}`,
    });
  }
  return value;
}

/** Dims that must be what another argument says; `null` leaves one open. */
export function checkDims(argument: string, tensor: Tensor, wanted: readonly (number | null)[], layout: string): void {
  let same = true;
  for (let i = 0; i < wanted.length; i++) same &&= wanted[i] === null || wanted[i] === tensor.shape[i];
  if (same) return;
  const dims = wanted.map((dim) => (dim === null ? 'any' : String(dim))).join(', ');
  throw new VsaRangeError({
    code: 'ERR_SHAPE',
    argument,
    got: show(tensor.shape),
    wanted: `[${dims}] (${layout})`,
  });
}

/** All on the first one's device; of its dtype too if asked. */
export function checkAlike(tensors: Readonly<Record<string, Tensor | undefined>>, sameDType: boolean): Device {
  let first: [string, Tensor] | undefined;
  for (const argument in tensors) {
    const tensor = tensors[argument];
    if (tensor === undefined) continue;
    if (first === undefined) {
      first = [argument, tensor];
      continue;
    }
    const [name, model] = first;
    if (tensor.device !== model.device) {
      throw new VsaTypeError({
        code: 'ERR_DEVICE',
        argument,
        got: `a tensor on ${tensor.device.toString()}`,
        wanted: `${model.device.toString()}, where ${name} is`,
      });
    }
    if (sameDType && tensor.dtype !== model.dtype) {
      throw new VsaTypeError({
        code: 'ERR_DTYPE',
        argument,
        got: tensor.dtype,
        wanted: `${model.dtype}, as ${name} has`,
      });
    }
  }
  return first![1].device;
}

export function checkGrid(argument: string, value: unknown): TileGrid {
  if (value instanceof TileGrid) return value;
  throw new VsaTypeError({ code: 'ERR_GRID', argument, got: show(value), wanted: 'a TileGrid' });
}

export function checkOrder(value: unknown): Order {
  return checkChoice('order', value ?? 'grid', ['grid', 'tiled']);
}

export function orderCode(order: Order): number {
  return order === 'grid' ? 0 : 1;
}

/** `1 / sqrt(D)` unless given; a float32 on the device. */
export function checkScale(value: unknown, D: number): number {
  const scale = value === undefined ? 1 / Math.sqrt(D) : checkNumber('scale', value);
  if (Number.isFinite(Math.fround(scale))) return scale;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'scale', got: show(scale), wanted: 'a float32' });
}

export function checkHeadDim(argument: string, D: number): void {
  if (HEAD_DIMS.includes(D)) return;
  throw new VsaRangeError({
    code: 'ERR_HEAD_DIM',
    argument,
    got: `head dim D = ${String(D)}`,
    wanted: HEAD_DIMS.join(', '),
  });
}

/** Query heads share key heads in groups of equal size. */
export function checkHeads(H: number, Hkv: number): void {
  if (Hkv > 0 && H > 0 && H % Hkv === 0) return;
  throw new VsaRangeError({
    code: 'ERR_SHAPE',
    argument: 'k',
    got: `${String(Hkv)} key heads for ${String(H)} query heads`,
    wanted: 'H a multiple of Hkv, both at least 1',
  });
}

/** Dims of q, k, v in `[B, rows, H, D]`, checked against each other. */
export interface AttentionDims {
  B: number;
  H: number;
  Hkv: number;
  D: number;
}

/**
 * q, k and v of one call: rank, dtype, device, batch, heads, head dim, and as many rows as the grids say.
 *
 * @param rows Rows of q and of k and v; null leaves them open (k and v must still agree).
 */
export function checkQkv(
  { q, k, v }: { q: unknown; k: unknown; v: unknown },
  rows: { q: number | null; kv: number | null },
  layout: { q: string; kv: string },
  dtypes: readonly DType[] = FLOAT_DTYPES,
): { q: Tensor; k: Tensor; v: Tensor; dims: AttentionDims; device: Device } {
  const tensors = {
    q: checkTensor('q', q, layout.q, dtypes),
    k: checkTensor('k', k, layout.kv, dtypes),
    v: checkTensor('v', v, layout.kv, dtypes),
  };
  const device = checkAlike(tensors, true);
  const [B, , H, D] = tensors.q.shape as [number, number, number, number];
  const Hkv = tensors.k.shape[2]!;
  checkHeadDim('q', D);
  checkDims('q', tensors.q, [null, rows.q, null, null], layout.q);
  checkDims('k', tensors.k, [B, rows.kv, null, D], layout.kv);
  checkHeads(H, Hkv);
  checkDims('v', tensors.v, tensors.k.shape, layout.kv);
  return { q: tensors.q, k: tensors.k, v: tensors.v, dims: { B, H, Hkv, D }, device };
}

/** State that the forward of the same operation saved, not yet disposed. */
export function checkSaved<T extends Saved>(
  operation: string,
  saved: unknown,
  type: abstract new (...a: never) => T,
): T {
  if (!(saved instanceof type)) {
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: 'saved',
      got: show(saved),
      wanted: `what ${operation}.forward returned as saved`,
    });
  }
  if (saved.disposed) {
    throw new VsaTypeError({
      code: 'ERR_DISPOSED',
      argument: 'saved',
      got: 'disposed state',
      wanted: `what ${operation}.forward saved, living`,
    });
  }
  return saved;
}

/** The gradient of an output: of its shape, dtype and device. */
export function checkGradient(
  grads: unknown,
  output: { shape: readonly number[]; dtype: DType; device: Device },
): Tensor {
  if (typeof grads !== 'object' || grads === null || Array.isArray(grads)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'grads', got: show(grads), wanted: '{ output: Tensor }' });
  }
  checkOptions('grads', grads, ['output']);
  const layout = output.shape.length === 4 ? '[B, rows, H, D]' : '[B, rows, ...]';
  const gradient = (grads as { output?: unknown }).output;
  if (!(gradient instanceof Tensor)) {
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: 'grads.output',
      got: show(gradient),
      wanted: 'the gradient of output, a Tensor',
    });
  }
  handleOf(gradient, 'grads.output');
  if (gradient.dtype !== output.dtype) {
    throw new VsaTypeError({
      code: 'ERR_DTYPE',
      argument: 'grads.output',
      got: gradient.dtype,
      wanted: `${output.dtype}, as output has`,
    });
  }
  if (gradient.device !== output.device) {
    throw new VsaTypeError({
      code: 'ERR_DEVICE',
      argument: 'grads.output',
      got: `a tensor on ${gradient.device.toString()}`,
      wanted: output.device.toString(),
    });
  }
  checkDims('grads.output', gradient, output.shape, layout);
  return gradient;
}
