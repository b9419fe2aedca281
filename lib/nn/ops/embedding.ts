/** Numbers as vectors of waves: how a model is told a time. */

import type { Device, DeviceString } from '../../device/device.js';
import { show, VsaRangeError, VsaTypeError } from '../../errors.js';
import { Tensor } from '../../tensor/tensor.js';
import { checkInteger, checkNumber, checkOptions, checkShape } from '../../validate.js';

export interface SinusoidalEmbeddingOptions {
  /** Of each vector, even. */
  width: number;
  /** The longest wave is nearly 2 pi times this. Default 10000. */
  maxPeriod?: number;
  /** Default: the best there is. */
  device?: Device | DeviceString;
}

/**
 * For each time the cosines of `time * maxPeriod^(-i / half)` for i below half = width / 2, then the sines. Computed in
 * float64; no gradient. Source: Vaswani et al., Attention Is All You Need (arXiv 1706.03762), in the order of channels
 * that diffusion models have.
 *
 * @param times Finite numbers, one for each batch entry.
 * @returns float32 `[B, width]`
 * @throws VsaTypeError ERR_ARGUMENT; VsaRangeError ERR_ARGUMENT, ERR_SHAPE.
 */
export function sinusoidalEmbedding(times: readonly number[], options: SinusoidalEmbeddingOptions): Tensor {
  if (!Array.isArray(times)) {
    const [got, wanted] = [show(times), 'an array of numbers'];
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'times', got, wanted });
  }
  checkOptions('options', options, ['width', 'maxPeriod', 'device']);
  const width = checkInteger('width', options.width, 2, 2 ** 20);
  if (width % 2 !== 0) {
    throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'width', got: show(width), wanted: 'an even number' });
  }
  const { maxPeriod = 10000 } = options;
  if (checkNumber('maxPeriod', maxPeriod) <= 0) {
    const [got, wanted] = [show(maxPeriod), 'more than 0'];
    throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'maxPeriod', got, wanted });
  }
  const shape = checkShape('times', [times.length, width]);
  const half = width / 2;
  const waves = new Float32Array(times.length * width);
  for (let row = 0; row < times.length; row++) {
    const time = checkNumber(`times[${String(row)}]`, times[row]);
    for (let i = 0; i < half; i++) {
      const angle = time * maxPeriod ** (-i / half);
      waves[row * width + i] = Math.cos(angle);
      waves[row * width + half + i] = Math.sin(angle);
    }
  }
  return Tensor.from(waves, shape, options.device === undefined ? {} : { device: options.device });
}
