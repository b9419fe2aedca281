/** Parameters as optimizers take them. */

import type { Device } from '../../device/device.js';
import { show, VsaTypeError } from '../../errors.js';
import { Tensor, type Version, versionOf } from '../../tensor/tensor.js';
import { checkAnyTensor, checkLike } from '../ops/checks.js';

/** Parameters by name, or without names: then their places, '0', '1' and so on, are their names. */
export type Parameters = ReadonlyMap<string, Tensor> | Iterable<Tensor>;

function entriesOf(value: unknown): [unknown, unknown][] {
  if (value instanceof Map) return [...(value as Map<unknown, unknown>)];
  const iterable = value as Partial<Iterable<unknown>> | null | undefined;
  if (typeof iterable === 'object' && typeof iterable?.[Symbol.iterator] === 'function') {
    return Array.from(iterable as Iterable<unknown>, (item, i) => [String(i), item]);
  }
  const wanted = 'a Map of names to Tensors, or Tensors';
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'parameters', got: show(value), wanted });
}

/** @internal Living float32 tensors of one device, at least one, each memory once. */
export function checkParameters(value: unknown): { named: Map<string, Tensor>; device: Device } {
  const named = new Map<string, Tensor>();
  const seen = new Map<Version, string>();
  for (const [name, item] of entriesOf(value)) {
    if (typeof name !== 'string') {
      const wanted = 'names that are strings';
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'parameters', got: show(name), wanted });
    }
    const argument = `parameters.${name}`;
    const tensor = checkAnyTensor(argument, item, ['float32']);
    const before = seen.get(versionOf(tensor));
    if (before !== undefined) {
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument,
        got: `the memory of parameters.${before} again`,
        wanted: 'every parameter once',
      });
    }
    seen.set(versionOf(tensor), name);
    named.set(name, tensor);
  }
  const [first] = named.values();
  if (first === undefined) {
    const [got, wanted] = ['no parameters', 'at least one'];
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'parameters', got, wanted });
  }
  const { device } = first;
  for (const [name, tensor] of named) {
    checkLike(`parameters.${name}`, tensor, { shape: tensor.shape, dtype: 'float32', device }, 'the first one');
  }
  return { named, device };
}

/**
 * @internal The tensors of a saved state, each of the shape and dtype of what it will be copied to.
 *
 * @throws VsaTypeError ERR_ARGUMENT for no Map, a name that is missing or unknown, no tensor; ERR_DTYPE; VsaRangeError
 *   ERR_SHAPE.
 */
export function checkState(state: unknown, wanted: ReadonlyMap<string, Pick<Tensor, 'shape' | 'dtype'>>): void {
  if (!(state instanceof Map)) {
    const kind = 'a Map of names to Tensors';
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'state', got: show(state), wanted: kind });
  }
  for (const name of state.keys() as Iterable<unknown>) {
    if (wanted.has(name as string)) continue;
    const got = `the unknown name ${show(name)}`;
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'state', got, wanted: 'what state() returns' });
  }
  for (const [name, { shape, dtype }] of wanted) {
    const argument = `state.${name}`;
    const tensor: unknown = state.get(name);
    const device = tensor instanceof Tensor ? tensor.device : undefined; // any: it is copied over
    checkLike(argument, tensor, { shape, dtype, device: device! }, 'what state() returns');
  }
}

/** @internal Overwrites a tensor with one that may be on another device. */
export function overwrite(target: Tensor, source: Tensor): void {
  const near = source.to(target.device);
  try {
    target.copyFrom(near);
  } finally {
    near.dispose();
  }
}
