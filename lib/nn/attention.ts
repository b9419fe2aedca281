/** The attention operations as differentiable functions: the same options, the output, and `backward()` through it. */

import { differentiable } from '../autograd/index.js';
import { coarseAttention as coarsePair } from '../attention/coarse.js';
import { gatedCombination as combinationPair } from '../attention/combination.js';
import {
  blockSparseAttention as blockSparsePair,
  type DenseOptions,
  denseAttention as densePair,
} from '../attention/fine.js';
import type { TileLists } from '../attention/lists.js';
import { tilePooling as poolingPair } from '../attention/pooling.js';
import { tile as tilePair, untile as untilePair } from '../attention/tiling.js';
import { videoSparseAttention as sparsePair, type VideoSparseAttentionOptions } from '../attention/vsa.js';
import type { Tensor } from '../tensor/tensor.js';

/** What an attention computed on its way. It belongs to the call: `keep(x.to(x.device))` outlives it. */
export interface AttentionState {
  /** `[B, Lq, H, D]` */
  readonly q: Tensor;
  /** `[B, Lk, Hkv, D]` */
  readonly k: Tensor;
  /** `[B, Lk, Hkv, D]` */
  readonly v: Tensor;
  /** For every (batch, head, query tile) the key tiles it attended to; full for dense attention. */
  readonly lists: TileLists;
  /** Over what was attended to, float32 `[B, H, Lq]`: the natural log of the sum of exponentials. */
  readonly lse: Tensor;
}

export interface ObserveOption {
  /** Is shown what the forward computed. Called once a forward, within it. */
  observe?: (state: AttentionState) => void;
}

/** A pair whose forward shows what it saved. */
function observed<Options extends object, Saved extends AttentionState, Gradients>(pair: {
  forward(options: Options): { output: Tensor; saved: Saved };
  backward(saved: Saved, grads: { output: Tensor }): Gradients;
}) {
  return {
    forward({ observe, ...options }: Options & ObserveOption): { output: Tensor; saved: Saved } {
      const result = pair.forward(options as Options);
      try {
        observe?.(result.saved);
      } catch (error) {
        result.output.dispose();
        (result.saved as unknown as Disposable)[Symbol.dispose]();
        throw error;
      }
      return result;
    },
    backward: (saved: Saved, grads: { output: Tensor }) => pair.backward(saved, grads),
  };
}

/**
 * As `videoSparseAttention.forward`, with gradients of q, k, v, of the gates in `coarse` and `fine`, and of `pooled`.
 *
 * @returns `[B, rows, H, D]` of q's dtype.
 */
export const videoSparseAttention = differentiable('videoSparseAttention', observed(sparsePair), {
  q: (o: VideoSparseAttentionOptions & ObserveOption) => o.q,
  k: (o) => o.k,
  v: (o) => o.v,
  coarseGate: (o) => (typeof o.coarse === 'object' ? o.coarse.gate : undefined),
  fineGate: (o) => o.fine?.gate,
  pooledQ: (o) => pooledOf(o)?.q,
  pooledK: (o) => pooledOf(o)?.k,
  pooledV: (o) => pooledOf(o)?.v,
});

/** Only a coarse output has gradients for them. */
function pooledOf({ coarse = 'skip', pooled }: VideoSparseAttentionOptions) {
  return coarse === 'skip' ? undefined : pooled;
}

/** As `blockSparseAttention.forward`, with gradients of q, k and v. */
export const blockSparseAttention = differentiable('blockSparseAttention', blockSparsePair, {
  q: (o) => o.q,
  k: (o) => o.k,
  v: (o) => o.v,
});

/** As `denseAttention.forward`, with gradients of q, k and v. */
export const denseAttention = differentiable('denseAttention', observed(densePair), {
  q: (o: DenseOptions & ObserveOption) => o.q,
  k: (o) => o.k,
  v: (o) => o.v,
});

/** As `coarseAttention.forward`, with gradients of q, k and v. */
export const coarseAttention = differentiable('coarseAttention', coarsePair, {
  q: (o) => o.q,
  k: (o) => o.k,
  v: (o) => o.v,
});

/** As `tilePooling.forward`, with the gradient of x. */
export const tilePooling = differentiable('tilePooling', poolingPair, { x: (o) => o.x });

/** As `gatedCombination.forward`, with gradients of both outputs and both gates. */
export const gatedCombination = differentiable('gatedCombination', combinationPair, {
  fine: (o) => o.fine,
  coarse: (o) => o.coarse,
  coarseGate: (o) => o.coarseGate,
  fineGate: (o) => o.fineGate,
});

/** As `tile.forward`, with the gradient of x. */
export const tile = differentiable('tile', tilePair, { x: (o) => o.x });

/** As `untile.forward`, with the gradient of x. */
export const untile = differentiable('untile', untilePair, { x: (o) => o.x });
