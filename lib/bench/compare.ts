/** Rows of this run beside those of an earlier one. */

import { readFile } from 'node:fs/promises';
import { show, VsaError } from '../errors.js';
import type { BenchRow } from './row.js';

/** One row beside its counterpart. */
export interface Ratio {
  /** Of the earlier run, ms. */
  readonly base: number;
  /** The earlier backend, if it is another one. */
  readonly backend: string | undefined;
  /** Earlier time over this one: above 1 is faster now. */
  readonly ratio: number;
  /** The spreads of the two, p10 to p90, have nothing in common. */
  readonly beyondNoise: boolean;
}

/** What makes two rows the same measurement. Not the backend: a faster one is what is looked for. */
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
  /** How many there are. */
  readonly size: number;

  constructor(rows: readonly BenchRow[]) {
    this.size = rows.length;
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
      backend: other.backend === row.backend ? undefined : other.backend,
      ratio: other.ms / row.ms,
      beyondNoise:
        (row.ms_p10 ?? row.ms) > (other.ms_p90 ?? other.ms) || (row.ms_p90 ?? row.ms) < (other.ms_p10 ?? other.ms),
    };
  }
}

/**
 * Rows from a file: JSON lines, or one JSON array.
 * @throws VsaError ERR_FILE, ERR_FILE_FORMAT.
 */
export async function readRows(path: string): Promise<BenchRow[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new VsaError({ code: 'ERR_FILE', argument: path, got: 'no file', wanted: 'rows of vsa bench', cause });
  }
  const values = parse(text, path);
  return values.map((value, i) => {
    const row = value as Partial<BenchRow> | null;
    if (typeof row === 'object' && row !== null && typeof row.op === 'string' && 'ms' in row) return row as BenchRow;
    throw formatError(path, `${show(value)} as row ${i + 1}`);
  });
}

function parse(text: string, path: string): unknown[] {
  if (text.trimStart().startsWith('[')) {
    try {
      return JSON.parse(text) as unknown[];
    } catch (cause) {
      throw formatError(path, 'no JSON', cause);
    }
  }
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line, i) => {
    try {
      return JSON.parse(line) as unknown;
    } catch (cause) {
      throw formatError(path, `no JSON in line ${i + 1}`, cause);
    }
  });
}

function formatError(path: string, got: string, cause?: unknown): VsaError {
  const wanted = 'rows of vsa bench, as JSON lines or an array';
  return new VsaError({ code: 'ERR_FILE_FORMAT', argument: path, got, wanted, cause });
}
