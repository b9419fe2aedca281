/** What is wrong with a result, in sentences; nothing if all is well. */

import type { Device } from '../../device/device.js';
import { roundsOperands } from '../../check/values.js';
import { compare, compareLse, type FloatFormat } from '../../oracle/index.js';

/** Rows of one tensor from several places, one after another. */
export interface Rows {
  readonly got: readonly Float64Array[];
  /** In float64, and in the format's own precision. */
  readonly reference: readonly Float64Array[];
  readonly own: readonly Float64Array[];
  readonly format: FloatFormat;
  /** Elements of a row. */
  readonly width: number;
  /** Where each array comes from, for the sentence. */
  readonly places: readonly string[];
  /** Size of the terms that cancel to the reference (see lib/oracle/compare.ts). */
  readonly terms?: number;
}

export class Findings {
  readonly problems: string[] = [];
  constructor(readonly device: Device) {}

  /** By the error rule of the oracle, all places together: a few rows alone have too few elements to be judged by. */
  compare(tensor: string, { got, reference, own, format, width, places, terms = 0 }: Rows): void {
    const want = joined(reference);
    const isNoise = largest(want) < 1e-12 * terms;
    const samePrecision = joined(own);
    const verdict = compare({
      ...{ got: joined(got), reference: want, samePrecision, format },
      // There the own precision rounds the scores already (tokens.ts).
      ...(roundsOperands(this.device, format) && { roundedScores: samePrecision }),
      shape: [want.length / width, width],
      ...(isNoise && { magnitude: terms }),
    });
    if (verdict.ok) return;
    const { worst, maxError, limit, relativeL2, limitL2 } = verdict;
    this.problems.push(
      `${tensor}: got ${short(worst.got)}, wanted ${short(worst.want)} ` +
        `at ${placeOf(worst.index, want, reference, places)} (error ${short(maxError)} of ${short(limit)} allowed, ` +
        `relative L2 ${short(relativeL2)} of ${short(limitL2)})`,
    );
  }

  compareLse(tensor: string, { got, reference, places }: Pick<Rows, 'got' | 'reference' | 'places'>): void {
    const want = joined(reference);
    const { ok, worst, maxError, limit } = compareLse({ got: joined(got), reference: want, shape: [want.length] });
    if (ok) return;
    this.problems.push(
      `${tensor}: got ${short(worst.got)}, wanted ${short(worst.want)} ` +
        `at ${placeOf(worst.index, want, reference, places)} (error ${short(maxError)} of ${short(limit)} allowed)`,
    );
  }

  fail(problem: string): void {
    this.problems.push(problem);
  }
}

function placeOf(index: number, all: Float64Array, parts: readonly Float64Array[], places: readonly string[]): string {
  let at = 0;
  for (const [i, part] of parts.entries()) {
    at += part.length;
    if (index < at) return places[i] ?? '';
  }
  return String(all.length);
}

export function joined(parts: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(parts.reduce((count, part) => count + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export function largest(values: Float64Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

function short(value: number): string {
  return String(Number(value.toPrecision(4)));
}
