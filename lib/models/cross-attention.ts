/** Cross attention of a video DiT's block: every video token attends to every token of the context. */

import { denseAttention } from '../nn/attention.js';
import type { Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import { RMSNorm } from '../nn/norm.js';
import { tidy } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import type { VideoDiTConfig } from './config.js';
import type { Maker } from './maker.js';

/** Parameters: linears `q`, `k`, `v`, `output`, RMS norms `normQ`, `normK` over the full width. */
export class CrossAttention extends Module {
  readonly #heads: number;
  readonly #q: Linear;
  readonly #k: Linear;
  readonly #v: Linear;
  readonly #normQ: RMSNorm;
  readonly #normK: RMSNorm;
  readonly #output: Linear;

  constructor({ width, heads }: VideoDiTConfig, make: Maker) {
    super();
    this.#heads = heads;
    const linear = (name: string) => this.child(name, make.linear(name, width, width));
    const norm = (name: string) => this.child(name, new RMSNorm({ width, device: make.device }));
    this.#q = linear('q');
    this.#k = linear('k');
    this.#v = linear('v');
    this.#normQ = norm('normQ');
    this.#normK = norm('normK');
    this.#output = linear('output');
  }

  /**
   * @param x `[B, L, width]`, normalised.
   * @param context `[B, S, width]`
   */
  forward(x: Tensor, context: Tensor): Tensor {
    return tidy(() => {
      const [B, , width] = x.shape as [number, number, number];
      const split = (y: Tensor) => y.reshape([B, y.shape[1]!, this.#heads, width / this.#heads]);
      const q = split(this.#normQ.forward(this.#q.forward(x)));
      const k = split(this.#normK.forward(this.#k.forward(context)));
      const v = split(this.#v.forward(context));
      return this.#output.forward(denseAttention({ q, k, v }).reshape(x.shape));
    });
  }
}
