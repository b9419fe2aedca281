/** What a call of several operations is made of. */

import { OPERATIONS } from '../attention/together.js';
import type { NativePart } from '../binding.js';
import { median } from './statistics.js';

/** Operations of the addon by the stage they belong to. */
const STAGES: Readonly<Record<string, string>> = {
  ...{ poolingForward: 'pool', poolingTogether: 'pool', poolingBackward: 'pool', selection: 'select' },
  ...{ transposeLists: 'transpose', listsToBits: 'bits' },
  ...{ coarseForward: 'coarse', coarseBackward: 'coarse', fineForward: 'fine', fineBackward: 'fine' },
  ...{ combinationForward: 'combine', combinationBackward: 'combine' },
};

/** Milliseconds of a call by stage. `eventMs`: what the event behind each of its parts but the last takes besides. */
function stagesOf(parts: readonly NativePart[], eventMs: number): Record<string, number> {
  const stages: Record<string, number> = {};
  let stage = '';
  for (const [n, { name, ms }] of parts.entries()) {
    // The number that the queue counts the whole operation by belongs to the last of its parts.
    if (!(name in OPERATIONS)) stage = STAGES[name] ?? name;
    // The whole ends with an event as well.
    const within = n + 1 < parts.length ? eventMs : 0;
    stages[stage] = (stages[stage] ?? 0) + Math.max(0, ms - within);
  }
  return stages;
}

/**
 * Milliseconds by stage, medians over some calls. Each stage reaches from the end of the one before it to its own end:
 * the first from where the trace begins, which is after the cache was emptied. So they add up to the whole.
 */
export function medianStages(traces: readonly (readonly NativePart[])[], eventMs: number): Record<string, number> {
  const all = traces.map((parts) => stagesOf(parts, eventMs));
  const names = Object.keys(all[0] ?? {});
  return Object.fromEntries(names.map((name) => [name, median(all.map((stages) => stages[name] ?? 0))]));
}
