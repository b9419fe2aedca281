/** Where parameters begin: from a seed and the parameter's name, the same on every device. */

import { createHash } from 'node:crypto';
import type { Device, DeviceString } from '../device/device.js';
import { parseSeed } from '../tensor/host.js';
import { Tensor } from '../tensor/tensor.js';

/** The seed of one parameter: that of the model and the parameter's name, hashed. */
export function parameterSeed(seed: number | bigint, name: string): bigint {
  const hash = createHash('sha256')
    .update(`${String(parseSeed(seed))}:${name}`)
    .digest();
  return hash.readBigUInt64LE(0);
}

export interface DrawOptions {
  seed: number | bigint;
  device?: Device | DeviceString | undefined;
}

/**
 * A weight `[outputs, inputs]`, uniform within `sqrt(6 / (inputs + outputs))` of 0, from the generator's 32-bit words.
 * Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks (2010).
 */
export function xavierUniform(shape: readonly [number, number], { seed, device }: DrawOptions): Tensor {
  const bound = Math.sqrt(6 / Math.max(shape[0] + shape[1], 1));
  const bits = Tensor.randbits(shape, { seed, device: 'cpu' });
  try {
    const words = bits.dataSync();
    const values = Float32Array.from(words, (word) => (word / 2 ** 31) * bound);
    return Tensor.from(values, shape, onDevice(device));
  } finally {
    bits.dispose();
  }
}

/** @internal A device as options take it: absent where it is not given. */
export function onDevice(device: Device | DeviceString | undefined): { device?: Device | DeviceString } {
  return device === undefined ? {} : { device };
}
