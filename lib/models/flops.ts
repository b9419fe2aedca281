/** FLOPs of a VideoDiT, as they are counted everywhere here. */

import { TileGrid } from '../attention/grid.js';
import type { VideoDiTConfig } from './config.js';

export interface FlopsOptions {
  /** B, default 1. */
  batch?: number;
  /** K; default: that of the config. */
  topK?: number;
}

/** FLOPs of one call, by where they go. */
export interface Flops {
  /** Matrix products with weights: 2 a weight and row that it multiplies. */
  linear: number;
  /** Token-level self attention: `4 D` a head, query and key attended to. */
  attention: number;
  /** The coarse stage over tiles: scores, and where there is a coarse gate the product with the values. */
  coarse: number;
  /** Attention to the context. */
  cross: number;
  /** All of them. */
  total: number;
}

function summed(parts: Omit<Flops, 'total'>): Flops {
  return { ...parts, total: parts.linear + parts.attention + parts.coarse + parts.cross };
}

/**
 * Of one forward. VSA is counted as K of the N key tiles for every query, which is what its lists hold where tiles are
 * full, and the mean over the tiles of a grid with partial ones.
 */
export function forwardFlops(config: VideoDiTConfig, { batch = 1, topK = config.topK }: FlopsOptions = {}): Flops {
  const { channels, width, layers, ffn, context, attention, coarseGate, fineGate } = config;
  const { length: L, tileCount: N } = new TileGrid({ tokens: config.tokens });
  const S = context?.tokens ?? 0;
  const gates = (coarseGate === true ? 1 : 0) + (fineGate === true ? 1 : 0);
  const square = width * width;
  const perToken = 2 * channels * width + layers * ((4 + gates) * square + 2 * ffn * width);
  const crossing = context === undefined ? 0 : layers * 2 * square * (L + S) + (context.width * width + square) * S;
  const time = 256 * width + square + 6 * square;
  const share = attention === 'full' ? 1 : topK! / N;
  // Scores rank the tiles; their product with the values is for the coarse gate alone.
  const coarse = attention === 'full' ? 0 : (coarseGate === true ? 4 : 2) * width * N * N;
  return summed({
    linear: batch * 2 * (perToken * L + crossing + time),
    attention: batch * layers * 4 * width * L * L * share,
    coarse: batch * layers * coarse,
    cross: batch * layers * 4 * width * L * S,
  });
}

/**
 * Of a forward and a backward: linears three times the forward's (the `6 N` a token of common use), attention three and
 * a half times; what checkpointing computes again is not counted. Ranking tiles has no backward.
 */
export function trainingFlops(config: VideoDiTConfig, options: FlopsOptions = {}): Flops {
  const { linear, attention, coarse, cross } = forwardFlops(config, options);
  const learned = config.coarseGate === true ? 3.5 : 1;
  return summed({ linear: 3 * linear, attention: 3.5 * attention, coarse: learned * coarse, cross: 3.5 * cross });
}
