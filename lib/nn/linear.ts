/** A linear layer. */

import type { Device, DeviceString } from '../device/device.js';
import { tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { checkBoolean, checkChoice, checkInteger, checkOptions } from '../validate.js';
import { linear } from './functional.js';
import { onDevice, xavierUniform } from './initialization.js';
import { Module } from './module.js';

export interface LinearOptions {
  /** K: channels that come in. */
  inputs: number;
  /** N: channels that go out. */
  outputs: number;
  /** Default true. */
  bias?: boolean;
  /**
   * How the weight begins: `'xavier'` (default), uniform within `sqrt(6 / (inputs + outputs))`; `'small'`, normal with
   * standard deviation 0.02; `'zero'`. The bias begins at 0.
   */
  weight?: 'xavier' | 'small' | 'zero';
  /** Of the weight. Default 0. */
  seed?: number | bigint;
  /** Default: the best there is. */
  device?: Device | DeviceString;
}

/**
 * `x weight^T + bias`, with float32 master weights whatever the dtype of x.
 *
 * Parameters: `weight` float32 `[outputs, inputs]`, `bias` float32 `[outputs]`.
 */
export class Linear extends Module {
  readonly weight: Tensor;
  readonly bias: Tensor | undefined;

  /** @throws VsaRangeError ERR_ARGUMENT for sizes below 1; VsaTypeError ERR_ARGUMENT; OutOfMemoryError. */
  constructor(options: LinearOptions) {
    checkOptions('options', options, ['inputs', 'outputs', 'bias', 'weight', 'seed', 'device']);
    const inputs = checkInteger('inputs', options.inputs, 1);
    const outputs = checkInteger('outputs', options.outputs, 1);
    const bias = checkBoolean('bias', options.bias ?? true);
    const kind = checkChoice('weight', options.weight ?? 'xavier', ['xavier', 'small', 'zero']);
    const { seed = 0 } = options;
    const on = onDevice(options.device);
    super();
    const made = tidy(() => ({
      weight: drawWeight(kind, [outputs, inputs], seed, on),
      bias: bias ? Tensor.zeros([outputs], on) : undefined,
    }));
    this.weight = this.parameter('weight', made.weight);
    this.bias = made.bias === undefined ? undefined : this.parameter('bias', made.bias);
  }

  /**
   * @param x `[..., inputs]` float32, bfloat16 or float16.
   * @returns `[..., outputs]` of x's dtype.
   */
  forward(x: Tensor): Tensor {
    const { weight, bias } = this;
    return linear({ x, weight, ...(bias !== undefined && { bias }) });
  }
}

function drawWeight(
  kind: 'xavier' | 'small' | 'zero',
  shape: readonly [number, number],
  seed: number | bigint,
  on: { device?: Device | DeviceString },
): Tensor {
  if (kind === 'xavier') return xavierUniform(shape, { seed, ...on });
  return kind === 'small' ? Tensor.randn(shape, { seed, std: 0.02, ...on }) : Tensor.zeros(shape, on);
}
