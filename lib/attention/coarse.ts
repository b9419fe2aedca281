/** Coarse attention: ordinary softmax attention over tiles, on pooled tensors. */

import { native } from '../binding.js';
import type { Device } from '../device/device.js';
import { tidy } from '../tensor/scope.js';
import { handleOf, optionalHandle, outputTensor, share, type Tensor } from '../tensor/tensor.js';
import { checkOptions } from '../validate.js';
import { type BackendOption, chooseBackend } from './backends.js';
import { type AttentionDims, checkGradient, checkQkv, checkSaved, checkScale } from './checks.js';
import { Saved } from './saved.js';

export interface CoarseOptions extends BackendOption {
  /** Pooled queries, float32 `[B, Nq, H, D]`. */
  q: Tensor;
  /** Pooled keys, float32 `[B, Nk, Hkv, D]`; Hkv divides H. */
  k: Tensor;
  /** Pooled values, float32 `[B, Nk, Hkv, D]`. */
  v: Tensor;
  /** Default `1 / sqrt(D)`. */
  scale?: number;
}

/** @internal */
export interface CoarseCall {
  dims: AttentionDims;
  Nq: number;
  Nk: number;
  scale: number;
}

/** @internal */
export class CoarseSaved extends Saved {
  /** @internal */
  constructor(
    readonly q: Tensor,
    readonly k: Tensor,
    readonly v: Tensor,
    readonly output: Tensor,
    /** float32 `[B, H, Nq]`: log of the sum of exponentials, natural. */
    readonly lse: Tensor,
    /** @internal Kept for the backward, where they were there. */
    readonly scores: Tensor | undefined,
    /** @internal */
    readonly call: CoarseCall,
  ) {
    super([q, k, v, output, lse, scores]);
  }
}

/** @internal Of scores that a selection leaves for the coarse attention. Beyond, both make their own. */
export const KEPT_SCORES_BYTES = 512 * 2 ** 20;
/** @internal Of those that the backward finds again: they live as long as the saved state does. Beyond, it makes its own. */
export const SAVED_SCORES_BYTES = 128 * 2 ** 20;

/** @internal The row length of such scores; undefined where they would be too many, or of no use. */
export function keptScoreStride({ dims, Nq, Nk }: CoarseCall, device: Pick<Device, 'type'>): number | undefined {
  const stride = Math.ceil(Nk / 4) * 4;
  const fits = dims.B * dims.H * Nq * stride * 4 <= KEPT_SCORES_BYTES;
  return device.type === 'cuda' && fits ? stride : undefined; // the CPU goes through its scores once, in its caches
}

/**
 * @internal Launches coarse attention. What it saves takes over the tensors it is given; if it throws, the caller
 * disposes what was made.
 * @param scores Of the selection, in rows of a multiple of four, or none.
 */
export function attendToTiles(
  { q, k, v, scores }: { q: Tensor; k: Tensor; v: Tensor; scores?: Tensor | undefined },
  call: CoarseCall,
): CoarseSaved {
  const { dims, Nq, Nk, scale } = call;
  const output = outputTensor(q.shape, 'float32', q.device);
  const lse = outputTensor([dims.B, dims.H, Nq], 'float32', q.device);
  native().coarseForward({
    B: dims.B,
    H: dims.H,
    Hkv: dims.Hkv,
    D: dims.D,
    Nq,
    Nk,
    scale,
    q: handleOf(q, 'q'),
    k: handleOf(k, 'k'),
    v: handleOf(v, 'v'),
    scores: optionalHandle(scores, 'scores'),
    output: handleOf(output, 'output'),
    lse: handleOf(lse, 'lse'),
  });
  const kept = scores !== undefined && scores.byteLength <= SAVED_SCORES_BYTES ? scores : undefined;
  return new CoarseSaved(q, k, v, output, lse, kept, call);
}

const POOLED = { q: '[B, Nq, H, D]', kv: '[B, Nk, Hkv, D]' } as const;

/**
 * `A = softmax_j(scale * q_i . k_j)` over all key tiles, `output_i = sum_j A_ij v_j`; every token of query tile i
 * receives output_i. Partial tiles weigh like full ones. Source: VSA (arXiv 2505.13389), the coarse stage.
 */
export const coarseAttention = {
  /**
   * @returns output: float32 `[B, Nq, H, D]`; saved.lse.
   * @throws VsaRangeError ERR_SHAPE, ERR_HEAD_DIM; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED.
   */
  forward(options: CoarseOptions): { output: Tensor; saved: CoarseSaved } {
    checkOptions('options', options, ['q', 'k', 'v', 'scale', 'backend']);
    const { q, k, v, dims, device } = checkQkv(options, { q: null, kv: null }, POOLED, ['float32']);
    const scale = checkScale(options.scale, dims.D);
    chooseBackend(device, options.backend, 'coarseAttention');
    const call = { dims, Nq: q.shape[1]!, Nk: k.shape[1]!, scale };
    return tidy(() => {
      const saved = attendToTiles({ q: share(q), k: share(k), v: share(v) }, call);
      return { output: share(saved.output), saved };
    });
  },

  /**
   * @param grads.output float32 `[B, Nq, H, D]`
   * @returns q `[B, Nq, H, D]`; k, v `[B, Nk, Hkv, D]`, summed over the head group.
   */
  backward(saved: CoarseSaved, grads: { output: Tensor }): { q: Tensor; k: Tensor; v: Tensor } {
    const { q, k, v, output, lse, scores, call } = checkSaved('coarseAttention', saved, CoarseSaved);
    const doutput = checkGradient(grads, output);
    return tidy(() => {
      const dq = outputTensor(q.shape, 'float32', q.device);
      const dk = outputTensor(k.shape, 'float32', q.device);
      const dv = outputTensor(v.shape, 'float32', q.device);
      native().coarseBackward({
        B: call.dims.B,
        H: call.dims.H,
        Hkv: call.dims.Hkv,
        D: call.dims.D,
        Nq: call.Nq,
        Nk: call.Nk,
        scale: call.scale,
        q: handleOf(q, 'saved'),
        k: handleOf(k, 'saved'),
        v: handleOf(v, 'saved'),
        scores: optionalHandle(scores, 'saved'),
        output: handleOf(output, 'saved'),
        lse: handleOf(lse, 'saved'),
        doutput: handleOf(doutput, 'grads.output'),
        dq: handleOf(dq, 'q'),
        dk: handleOf(dk, 'k'),
        dv: handleOf(dv, 'v'),
      });
      return { q: dq, k: dk, v: dv };
    });
  },
};
