/** How many tiles to keep, and how that number shrinks when a dense model is made sparse. */

import { show, VsaRangeError } from '../errors.js';
import { checkInteger, checkNumber, checkOptions } from '../validate.js';
import type { TileGrid } from './grid.js';
import { checkGrid } from './checks.js';

function checkFraction(argument: string, value: unknown): number {
  const number = checkNumber(argument, value);
  if (number >= 0 && number <= 1) return number;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a number from 0 to 1' });
}

/**
 * K for a sparsity: `clamp(ceil((1 - sparsity) * N), 1, N)` in IEEE doubles, N the video tiles of the key grid.
 *
 * @param options.sparsity Share of key tiles left out, 0 to 1: 0.9 of 624 tiles gives 63.
 */
export function topK(grid: TileGrid, options: { sparsity: number }): number {
  checkGrid('grid', grid);
  checkOptions('options', options, ['sparsity']);
  const sparsity = checkFraction('sparsity', options.sparsity);
  return Math.min(Math.max(Math.ceil((1 - sparsity) * grid.tileCount), 1), grid.tileCount);
}

export interface AnnealOptions {
  /** Sparsity to end at, 0 to 1. */
  target: number;
  /** Steps between two increases. Default 50. */
  interval?: number;
  /** Sparsity added by each. Default 0.03. */
  rate?: number;
}

/**
 * The sparsity of a training step when a dense model is adapted: `min(target, floor(step / interval) * rate)`, so K
 * starts at N and shrinks every `interval` steps, and is exactly the target's at the end. Source: VSA (arXiv
 * 2505.13389), its recipe for finetuning.
 */
export function annealedSparsity(step: number, options: AnnealOptions): number {
  checkOptions('options', options, ['target', 'interval', 'rate']);
  checkInteger('step', step, 0);
  const target = checkFraction('target', options.target);
  const interval = checkInteger('interval', options.interval ?? 50, 1);
  const rate = checkFraction('rate', options.rate ?? 0.03);
  return Math.min(target, Math.floor(step / interval) * rate);
}
