/** Learning rates as functions of the step, counted from 0. */

import { show, VsaRangeError } from '../../errors.js';
import { checkInteger, checkNumber, checkOptions } from '../../validate.js';

/** The learning rate of a step; steps count from 0. */
export type Schedule = (step: number) => number;

export interface WarmupConstantOptions {
  /** The learning rate from step `warmup` on. */
  peak: number;
  /** Steps before. */
  warmup: number;
}

export interface WarmupCosineOptions extends WarmupConstantOptions {
  /** Steps in all, at least `warmup`. */
  steps: number;
  /** The learning rate at the end, at most `peak`. Default 0. */
  floor?: number;
}

function checkRate(argument: string, value: unknown, most = Infinity): number {
  const rate = checkNumber(argument, value);
  if (rate >= 0 && rate <= most) return rate;
  const range = most === Infinity ? 'at least 0' : `from 0 to ${String(most)}, the peak`;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(rate), wanted: `a learning rate ${range}` });
}

/** `peak * (step + 1) / (warmup + 1)` for the first `warmup` steps: from the first step on something is learnt. */
function warmingUp(peak: number, warmup: number, after: Schedule): Schedule {
  return (step) => {
    checkInteger('step', step, 0);
    return step < warmup ? (peak * (step + 1)) / (warmup + 1) : after(step);
  };
}

/**
 * A linear warm-up, then the peak: `peak * min(1, (step + 1) / (warmup + 1))`. Warm-up: Goyal et al., arXiv 1706.02677.
 *
 * @throws VsaRangeError ERR_ARGUMENT, also of the schedule for a step that is no whole number of at least 0.
 */
export function warmupConstant(options: WarmupConstantOptions): Schedule {
  checkOptions('options', options, ['peak', 'warmup']);
  const peak = checkRate('peak', options.peak);
  return warmingUp(peak, checkInteger('warmup', options.warmup, 0), () => peak);
}

/**
 * A linear warm-up, then half a cosine from the peak at step `warmup` to the floor at step `steps`, and the floor from
 * there on: `floor + (peak - floor) * (1 + cos(pi * (step - warmup) / (steps - warmup))) / 2`. Source: Loshchilov and
 * Hutter, arXiv 1608.03983, without restarts.
 *
 * @throws VsaRangeError ERR_ARGUMENT, also of the schedule for a step that is no whole number of at least 0.
 */
export function warmupCosine(options: WarmupCosineOptions): Schedule {
  checkOptions('options', options, ['peak', 'warmup', 'steps', 'floor']);
  const peak = checkRate('peak', options.peak);
  const warmup = checkInteger('warmup', options.warmup, 0);
  const steps = checkInteger('steps', options.steps, warmup);
  const floor = checkRate('floor', options.floor ?? 0, peak);
  return warmingUp(peak, warmup, (step) => {
    if (step >= steps) return floor;
    return floor + ((peak - floor) * (1 + Math.cos((Math.PI * (step - warmup)) / (steps - warmup)))) / 2;
  });
}
