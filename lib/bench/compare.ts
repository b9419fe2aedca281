/** Rows of this run beside those of an earlier one. */

import type { BenchRow } from './row.js';

/** One row beside its counterpart. */
export interface Ratio {
  /** Of the earlier run, ms. */
  readonly base: number;
  /** Of that run. */
  readonly device: string;
  readonly commit: string | null;
  /** The earlier backend, if it is another one. */
  readonly backend: string | undefined;
  /** Earlier time over this one: above 1 is faster now. */
  readonly ratio: number;
  /** The spreads of the two, p10 to p90, have nothing in common. */
  readonly beyondNoise: boolean;
}

/**
 * What makes two rows the same measurement. Not the backend: a faster one is what is looked for. Not the device either,
 * whose change the report warns of.
 */
const KEY = [
  ...(['op', 'direction', 'B', 'H', 'Hkv', 'grid', 'D', 'dtype', 'tile', 'K', 'lists', 'data', 'seed'] as const),
  ...(['order', 'prefix', 'coarse', 'fineGate', 'cache', 'graph'] as const),
] satisfies readonly (keyof BenchRow)[];

function keyOf(row: Partial<BenchRow>): string {
  return JSON.stringify(KEY.map((name) => row[name] ?? null));
}

/** Rows of an earlier run, by what they measured. */
export class Base {
  readonly #rows = new Map<string, BenchRow[]>();

  constructor(readonly rows: readonly BenchRow[]) {
    for (const row of rows) {
      const key = keyOf(row);
      this.#rows.set(key, [...(this.#rows.get(key) ?? []), row]);
    }
  }

  /** Undefined where there is nothing to compare with. The latest row counts, of the same backend if there is one. */
  ratio(row: BenchRow): Ratio | undefined {
    const measured = (this.#rows.get(keyOf(row)) ?? []).filter(({ ms }) => ms !== null && ms > 0);
    const other = measured.findLast(({ backend }) => backend === row.backend) ?? measured.at(-1);
    if (other === undefined || row.ms === null || other.ms === null) return undefined;
    return {
      base: other.ms,
      device: other.device,
      commit: other.commit,
      backend: other.backend === row.backend ? undefined : other.backend,
      ratio: other.ms / row.ms,
      beyondNoise:
        (row.ms_p10 ?? row.ms) > (other.ms_p90 ?? other.ms) || (row.ms_p90 ?? row.ms) < (other.ms_p10 ?? other.ms),
    };
  }
}

/** Where rows were measured and from what they were built: of each once, in words. */
export function originsOf(rows: readonly Pick<BenchRow, 'device' | 'commit'>[]): string[] {
  return [
    ...new Set(rows.map(({ device, commit }) => `${device}, ${commit === null ? 'no commit' : `commit ${commit}`}`)),
  ];
}

/**
 * What a comparison comes to, in sentences: what it is with, a warning where devices differ, and how far medians are
 * apart at most, one way or the other.
 */
export function comparisonText(rows: readonly BenchRow[], base: Base): string[] {
  const pairs = rows.flatMap((row) => {
    const ratio = base.ratio(row);
    return ratio === undefined ? [] : [{ row, ratio }];
  });
  const devices = (names: readonly string[]) => [...new Set(names)].join('; ');
  const strangers = pairs.filter(({ row, ratio }) => row.device !== ratio.device);
  const text = [`base: ${originsOf(base.rows).join('; ') || 'no rows'}`];
  if (strangers.length > 0) {
    const [now, before] = [strangers.map(({ row }) => row.device), strangers.map(({ ratio }) => ratio.device)];
    text.push(
      `WARNING: ${strangers.length} of ${pairs.length} ratios are of different devices: ` +
        `${devices(now)} against ${devices(before)}`,
    );
  }
  const apart = ({ ratio }: { ratio: Ratio }) => Math.max(ratio.ratio, 1 / ratio.ratio);
  const [first, ...others] = pairs;
  if (first === undefined) return [...text, 'No row has a counterpart.'];
  const most = others.reduce((farthest, next) => (apart(next) > apart(farthest) ? next : farthest), first);
  const { op, direction, grid } = most.row;
  return [
    ...text,
    `Largest ratio of two medians, either way: ${apart(most).toFixed(3)} (${op} ${direction} ${grid}), ` +
      `of ${pairs.length} rows that have a counterpart`,
  ];
}
