/** Self attention of a video DiT's block: over every token, or video sparse attention. */

import type { TileGrid } from '../attention/grid.js';
import { type AttentionState, denseAttention, videoSparseAttention } from '../nn/attention.js';
import { rotaryEmbedding } from '../nn/functional.js';
import type { Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import { RMSNorm } from '../nn/norm.js';
import { tidy } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import type { VideoDiTConfig } from './config.js';
import type { Maker } from './maker.js';

/** What one forward hands to every block. */
export interface SelfAttentionCall {
  readonly grid: TileGrid;
  /** Angles of the rotary embedding, float32 `[L, D / 2, 2]`. */
  readonly table: Tensor;
  /** K; absent: every token attends to every token. */
  readonly topK: number | undefined;
  readonly observe?: ((state: AttentionState) => void) | undefined;
}

/**
 * Parameters: linears `q`, `k`, `v`, `output`, RMS norms `normQ`, `normK` over the full width, and for VSA the linears
 * `coarseGate` and `fineGate` of the same input as q.
 */
export class SelfAttention extends Module {
  readonly #heads: number;
  readonly #q: Linear;
  readonly #k: Linear;
  readonly #v: Linear;
  readonly #normQ: RMSNorm;
  readonly #normK: RMSNorm;
  readonly #coarseGate: Linear | undefined;
  readonly #fineGate: Linear | undefined;
  readonly #output: Linear;

  constructor({ width, heads, coarseGate, fineGate }: VideoDiTConfig, make: Maker) {
    super();
    this.#heads = heads;
    const linear = (name: string) => this.child(name, make.linear(name, width, width));
    const norm = (name: string) => this.child(name, new RMSNorm({ width, device: make.device }));
    this.#q = linear('q');
    this.#k = linear('k');
    this.#v = linear('v');
    this.#normQ = norm('normQ');
    this.#normK = norm('normK');
    this.#coarseGate = coarseGate === true ? linear('coarseGate') : undefined;
    this.#fineGate = fineGate === true ? linear('fineGate') : undefined;
    this.#output = linear('output');
  }

  /** @param x `[B, L, width]`, normalised and modulated. */
  forward(x: Tensor, { grid, table, topK, observe }: SelfAttentionCall): Tensor {
    return tidy(() => {
      const [B, L, width] = x.shape as [number, number, number];
      const split = (y: Tensor) => y.reshape([B, L, this.#heads, width / this.#heads]);
      const q = rotaryEmbedding({ x: split(this.#normQ.forward(this.#q.forward(x))), table });
      const k = rotaryEmbedding({ x: split(this.#normK.forward(this.#k.forward(x))), table });
      const v = split(this.#v.forward(x));
      const gate = (linear: Linear | undefined) => linear && { gate: split(linear.forward(x)) };
      const [coarse, fine] = [gate(this.#coarseGate), gate(this.#fineGate)];
      const shown = observe && { observe };
      const attended =
        topK === undefined
          ? denseAttention({ q, k, v, ...shown })
          : videoSparseAttention({ q, k, v, grid, topK, ...(coarse && { coarse }), ...(fine && { fine }), ...shown });
      return this.#output.forward(attended.reshape([B, L, width]));
    });
  }

  /** Values of the gates' parameters that change nothing: the coarse output times 0, the fine output times 1. */
  neutralGates(): Map<string, number> {
    const values = new Map<string, number>();
    if (this.#coarseGate !== undefined) values.set('coarseGate.weight', 0).set('coarseGate.bias', 0);
    if (this.#fineGate !== undefined) values.set('fineGate.weight', 0).set('fineGate.bias', 1);
    return values;
  }
}
