/** Parameters of an optimizer, by the number of steps that they have taken. */

import type { Tensor } from '../../tensor/tensor.js';

/** @internal A parameter and what the optimizer keeps of it. */
export interface Slot {
  name: string;
  parameter: Tensor;
  decays: boolean;
  /** Running mean of the gradient. */
  first: Tensor;
  /** Running mean of its square. */
  second: Tensor;
}

/** @internal Parameters that have taken as many steps, and so have the same bias corrections. */
export interface Cohort {
  steps: number;
  slots: Slot[];
  /** float32 `[3]`: learning rate, 1 - beta1^steps, 1 - beta2^steps. Made when it is first needed. */
  rates: Tensor | undefined;
}

/**
 * @internal The cohorts with gradients. Members that have none stay behind in cohorts of their own, which are added.
 *
 * @returns `split`: those of the active cohorts that lost members.
 */
export function splitByGradient(cohorts: Cohort[]): { active: Cohort[]; split: Cohort[] } {
  const active: Cohort[] = [];
  const split: Cohort[] = [];
  for (const cohort of [...cohorts]) {
    const [given, left]: [Slot[], Slot[]] = [[], []];
    for (const slot of cohort.slots) (slot.parameter.grad === undefined ? left : given).push(slot);
    if (given.length === 0) continue;
    active.push(cohort);
    if (left.length === 0) continue;
    cohorts.push({ steps: cohort.steps, slots: left, rates: undefined });
    cohort.slots = given;
    split.push(cohort);
  }
  return { active, split };
}
