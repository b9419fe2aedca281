/** Checks that the operations of layers share: tensors of any rank with channels last, operands alike, gradients. */

import type { Device } from '../../device/device.js';
import type { Handle } from '../../binding.js';
import { show, VsaRangeError, VsaTypeError } from '../../errors.js';
import { type DType, FLOAT_DTYPES } from '../../tensor/dtype.js';
import { emptyTensor, handleOf, Tensor } from '../../tensor/tensor.js';
import { checkOptions, product, sameShape } from '../../validate.js';

/** What another tensor must be like. */
export interface Model {
  shape: readonly number[];
  dtype: DType;
  device: Device;
}

/** What a gradient of a tensor is like, without holding its memory. */
export function modelOf({ shape, dtype, device }: Tensor): Model {
  return { shape, dtype, device };
}

/** A living tensor of one of the dtypes, of any rank. */
export function checkAnyTensor(argument: string, value: unknown, dtypes = FLOAT_DTYPES): Tensor {
  if (!(value instanceof Tensor)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a Tensor' });
  }
  handleOf(value, argument);
  if (dtypes.includes(value.dtype)) return value;
  throw new VsaTypeError({ code: 'ERR_DTYPE', argument, got: value.dtype, wanted: dtypes.join(' or ') });
}

/** A living float tensor of at least so many dims, the last one the channels; `layout` names the dims. */
export function checkChannelsLast(argument: string, value: unknown, layout = '[..., C]', least = 1): Tensor {
  const tensor = checkAnyTensor(argument, value);
  if (tensor.rank >= least) return tensor;
  const wanted = `rank ${String(least)} or more, ${layout}`;
  throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: show(tensor.shape), wanted });
}

/** The last dim, and the product of those before it. */
export function rowsOf(tensor: Tensor): { rows: number; width: number } {
  return { rows: product(tensor.shape.slice(0, -1)), width: tensor.shape.at(-1)! };
}

/** A living tensor of the model's device, dtype and shape; `name` is the model's in errors. */
export function checkLike(argument: string, value: unknown, model: Model, name: string): Tensor {
  const tensor = checkAnyTensor(argument, value, [...FLOAT_DTYPES, 'int32']);
  if (tensor.device !== model.device) {
    const [got, wanted] = [`a tensor on ${tensor.device.toString()}`, `${model.device.toString()}, where ${name} is`];
    throw new VsaTypeError({ code: 'ERR_DEVICE', argument, got, wanted });
  }
  if (tensor.dtype !== model.dtype) {
    throw new VsaTypeError({
      code: 'ERR_DTYPE',
      argument,
      got: tensor.dtype,
      wanted: `${model.dtype}, as ${name} has`,
    });
  }
  if (sameShape(tensor.shape, model.shape)) return tensor;
  const [got, wanted] = [show(tensor.shape), `${show(model.shape)}, as ${name} has`];
  throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got, wanted });
}

/** A float32 parameter of a shape that `x` says, on the device of `x`; `layout` names its dims in errors. */
export function checkParameter(
  argument: string,
  value: unknown,
  shape: readonly number[],
  layout: string,
  x: Model,
): Tensor {
  const tensor = checkAnyTensor(argument, value, ['float32']);
  if (tensor.device !== x.device) {
    const [got, wanted] = [`a tensor on ${tensor.device.toString()}`, `${x.device.toString()}, where x is`];
    throw new VsaTypeError({ code: 'ERR_DEVICE', argument, got, wanted });
  }
  if (sameShape(tensor.shape, shape)) return tensor;
  const wanted = `${show(shape)} (${layout})`;
  throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: show(tensor.shape), wanted });
}

/** The gradient of an output, `{ output: Tensor }`: of its shape, dtype and device. */
export function checkOutputGradient(grads: unknown, output: Model): Tensor {
  checkOptions('grads', grads, ['output']);
  return checkLike('grads.output', (grads as { output?: unknown }).output, output, 'output');
}

/** Whether a gradient will be used: a backward without `wanted` gives all. */
export function isWanted(wanted: ReadonlySet<string> | undefined, name: string): boolean {
  return wanted === undefined || wanted.has(name);
}

/** Memory for a result of the model's shape, dtype and device. */
export function emptyLike({ shape, dtype, device }: Model): Tensor {
  return emptyTensor(shape, dtype, device);
}

/** The memory of an optional tensor. */
export function handleIfAny(tensor: Tensor | undefined, argument: string): Handle | undefined {
  return tensor === undefined ? undefined : handleOf(tensor, argument);
}
