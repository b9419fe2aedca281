/** What the benchmark's tests share. */

import type { BenchCase } from '../../lib/bench/cases.js';
import { type BenchOptions, parseBenchOptions } from '../../lib/bench/options.js';
import type { BenchRow } from '../../lib/bench/row.js';
import { runBench } from '../../lib/bench/run.js';
import { memory } from '../../lib/device/device.js';
import { here } from '../under-test.js';

/** A small shape with partial tiles: 2 x 3 x 3 tiles. */
export const SMALL = { grid: '5x9x10', heads: '2', headDim: '64', topK: '3', samples: 3 } as const;

export function parse(options: BenchOptions) {
  return parseBenchOptions({ device: here.toString(), ...options });
}

export function onlyCase(options: BenchOptions): BenchCase {
  const { cases } = parse(options);
  expect(cases).toHaveLength(1);
  return cases[0]!;
}

/** Runs what options ask for; leaves no tensor behind. */
export async function rowsOf(options: BenchOptions): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  const before = memory().numTensors;
  await runBench(parse({ ...SMALL, ...options }), {
    begin: () => {},
    progress: () => {},
    row: (row) => rows.push(row),
  });
  expect(memory().numTensors).toBe(before);
  return rows;
}
