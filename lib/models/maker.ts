/** Layers that begin at values of the model's seed and of their place in it. */

import type { Device } from '../device/device.js';
import { parameterSeed } from '../nn/initialization.js';
import { Linear, type LinearOptions } from '../nn/linear.js';
import { Tensor } from '../tensor/tensor.js';

/** Makes the layers of one part of a model, whose names begin with `prefix`. */
export class Maker {
  constructor(
    readonly seed: number | bigint,
    readonly device: Device,
    readonly prefix = '',
  ) {}

  /** For the layers of a part of this part. */
  in(name: string): Maker {
    return new Maker(this.seed, this.device, `${this.prefix}${name}.`);
  }

  #seedOf(name: string): bigint {
    return parameterSeed(this.seed, `${this.prefix}${name}`);
  }

  linear(name: string, inputs: number, outputs: number, weight: NonNullable<LinearOptions['weight']> = 'xavier') {
    return new Linear({ inputs, outputs, weight, seed: this.#seedOf(`${name}.weight`), device: this.device });
  }

  /** A modulation table, normal with standard deviation `1 / sqrt(width)`. */
  modulation(name: string, vectors: number, width: number): Tensor {
    const std = 1 / Math.sqrt(width);
    return Tensor.randn([vectors, width], { std, seed: this.#seedOf(name), device: this.device });
  }
}
