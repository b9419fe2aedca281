/** Layers that normalise channels. */

import type { Device, DeviceString } from '../device/device.js';
import { tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { checkInteger, checkNumber, checkOptions } from '../validate.js';
import { layerNorm, rmsNorm } from './functional.js';
import { onDevice } from './initialization.js';
import { Module } from './module.js';

export interface NormOptions {
  /** Channels. */
  width: number;
  /** Added to the variance. Default 1e-6. */
  eps?: number;
  /** Default: the best there is. */
  device?: Device | DeviceString;
}

function checkNorm(options: NormOptions): { width: number; eps: number; on: { device?: Device | DeviceString } } {
  checkOptions('options', options, ['width', 'eps', 'device']);
  const width = checkInteger('width', options.width, 1);
  return { width, eps: checkNumber('eps', options.eps ?? 1e-6), on: onDevice(options.device) };
}

/**
 * `(x - mean) / sqrt(variance + eps) * weight + bias` over the channels. Source: Ba et al., Layer Normalization (arXiv
 * 1607.06450).
 *
 * Parameters: `weight` float32 `[width]`, 1 at first, `bias` float32 `[width]`, 0 at first.
 */
export class LayerNorm extends Module {
  readonly weight: Tensor;
  readonly bias: Tensor;
  readonly eps: number;

  constructor(options: NormOptions) {
    const { width, eps, on } = checkNorm(options);
    super();
    this.eps = eps;
    const made = tidy(() => ({ weight: Tensor.full([width], 1, on), bias: Tensor.zeros([width], on) }));
    this.weight = this.parameter('weight', made.weight);
    this.bias = this.parameter('bias', made.bias);
  }

  /** @param x `[B, ..., width]` float32, bfloat16 or float16. */
  forward(x: Tensor): Tensor {
    return layerNorm({ x, weight: this.weight, bias: this.bias, eps: this.eps });
  }
}

/**
 * `x / sqrt(mean(x^2) + eps) * weight` over the channels. Source: Zhang and Sennrich, Root Mean Square Layer
 * Normalization (arXiv 1910.07467).
 *
 * Parameter: `weight` float32 `[width]`, 1 at first.
 */
export class RMSNorm extends Module {
  readonly weight: Tensor;
  readonly eps: number;

  constructor(options: NormOptions) {
    const { width, eps, on } = checkNorm(options);
    super();
    this.eps = eps;
    this.weight = this.parameter('weight', Tensor.full([width], 1, on));
  }

  /** @param x `[..., width]` float32, bfloat16 or float16. */
  forward(x: Tensor): Tensor {
    return rmsNorm({ x, weight: this.weight, eps: this.eps });
  }
}
