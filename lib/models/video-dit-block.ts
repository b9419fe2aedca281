/** One block of a video DiT. */

import { add, gatedResidual, geluTanh, layerNorm, slice } from '../nn/functional.js';
import type { Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import { LayerNorm } from '../nn/norm.js';
import { tidy } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import type { VideoDiTConfig } from './config.js';
import { CrossAttention } from './cross-attention.js';
import type { Maker } from './maker.js';
import { SelfAttention, type SelfAttentionCall } from './self-attention.js';

/** One of the vectors `[B, n, width]`: `[B, width]`. */
function row(vectors: Tensor, index: number): Tensor {
  const [B, , width] = vectors.shape as [number, number, number];
  return slice({ x: vectors, dim: 1, start: index, end: index + 1 }).reshape([B, width]);
}

/**
 * With e the six vectors of the time embedding plus the block's own table:
 * `h += selfAttention(norm(h) * (1 + e1) + e0) * e2`, `h += crossAttention(crossNorm(h), context)`,
 * `h += ffn(norm(h) * (1 + e4) + e3) * e5`. Source: the block of Wan2.1 (arXiv 2503.20314), after DiT (2212.09748).
 *
 * Parameters: `modulation` float32 `[6, width]`, `attention.*`, `ffn.0`, `ffn.2`, and with a context `crossNorm`,
 * `cross.*`.
 */
export class VideoDiTBlock extends Module {
  readonly #modulation: Tensor;
  readonly #cross: { norm: LayerNorm; attention: CrossAttention } | undefined;
  readonly #ffn: readonly [Linear, Linear];
  readonly attention: SelfAttention;

  constructor(config: VideoDiTConfig, make: Maker) {
    const { width, ffn, context } = config;
    super();
    this.#modulation = this.parameter('modulation', make.modulation('modulation', 6, width));
    this.attention = this.child('attention', new SelfAttention(config, make.in('attention')));
    if (context !== undefined) {
      const norm = this.child('crossNorm', new LayerNorm({ width, device: make.device }));
      const attention = this.child('cross', new CrossAttention(config, make.in('cross')));
      this.#cross = { norm, attention };
    }
    this.#ffn = [
      this.child('ffn.0', make.linear('ffn.0', width, ffn)),
      this.child('ffn.2', make.linear('ffn.2', ffn, width)),
    ];
  }

  /**
   * @param h `[B, L, width]`
   * @param time float32 `[B, 6, width]`
   * @param context `[B, S, width]`
   */
  forward(h: Tensor, time: Tensor, context: Tensor | undefined, call: SelfAttentionCall): Tensor {
    return tidy(() => {
      const e = add({ a: time, b: this.#modulation });
      const [shift1, scale1, gate1, shift2, scale2, gate2] = [0, 1, 2, 3, 4, 5].map((index) => row(e, index));
      const normed = layerNorm({ x: h, scale: scale1!, shift: shift1! });
      let x = gatedResidual({ x: h, branch: this.attention.forward(normed, call), gate: gate1! });
      if (this.#cross !== undefined) {
        const { norm, attention } = this.#cross;
        // A tensor of the block's own: gradients of the context come together block by block, checkpointed or not.
        const own = context!.reshape(context!.shape);
        x = add({ a: x, b: attention.forward(norm.forward(x), own) });
      }
      const f = layerNorm({ x, scale: scale2!, shift: shift2! });
      return gatedResidual({ x, branch: this.#feedForward(f), gate: gate2! });
    });
  }

  #feedForward(x: Tensor): Tensor {
    const [first, second] = this.#ffn;
    return tidy(() => second.forward(geluTanh({ x: first.forward(x) })));
  }
}
