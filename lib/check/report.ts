/** What a check found: a row for every tensor that was compared. */

import { type Comparison, compare, compareLse, coordinatesOf, type Verdict } from '../oracle/index.js';

/** One tensor of one case of one operation, against the oracle. Both bounds must hold. */
export interface CheckRow {
  /** Name of the public function. */
  readonly op: string;
  readonly case: string;
  /** 'output', 'lse', 'lists', 'dq', ... */
  readonly tensor: string;
  /** max|got - want|; of lists, how many differ; Infinity for NaN or an infinity in the wrong place. */
  readonly maxError: number;
  readonly limit: number;
  readonly relativeL2: number;
  /** Infinity: no bound. */
  readonly limitL2: number;
  /** The element with the largest error; null where the operation failed. */
  readonly worst: Worst | null;
  readonly ok: boolean;
  /** Why there is nothing to compare: the message of what the operation threw, or padding that was not cleared. */
  readonly error?: string;
}

export interface Worst {
  readonly coordinates: readonly number[];
  readonly got: number;
  readonly want: number;
}

/** Collects the rows of one case. */
export class CaseRows {
  readonly rows: CheckRow[] = [];

  constructor(
    readonly op: string,
    readonly name: string,
  ) {}

  /** By the error rule of the oracle (lib/oracle/compare.ts). */
  compare(tensor: string, comparison: Comparison): void {
    this.#add(tensor, compare(comparison));
  }

  /** A log-sum-exp: absolute error of at most 1e-3, -inf in exactly the right places. */
  compareLse(tensor: string, comparison: Pick<Comparison, 'got' | 'reference' | 'shape'>): void {
    this.#add(tensor, compareLse(comparison));
  }

  /** |got - want| <= limit for every element (0: equal), and NaN and infinities in the same places. */
  within(
    tensor: string,
    limit: number,
    { got, want, shape }: { got: ArrayLike<number>; want: ArrayLike<number>; shape: readonly number[] },
  ): void {
    let index = 0;
    let maxError = got.length === want.length ? 0 : Infinity;
    for (let i = 0; i < Math.min(got.length, want.length); i++) {
      const error = Object.is(got[i], want[i]) ? 0 : Math.abs(got[i]! - want[i]!);
      const size = Number.isNaN(error) ? Infinity : error;
      if (size > maxError) [maxError, index] = [size, i];
    }
    const worst = { coordinates: coordinatesOf(index, shape), got: got[index] ?? NaN, want: want[index] ?? NaN };
    this.#add(tensor, { ok: maxError <= limit, maxError, limit, relativeL2: 0, limitL2: Infinity, worst });
  }

  /**
   * Lists, entry by entry; coordinates are (b, h, query tile, place in the list), and NaN stands for no entry.
   *
   * @param shape [B, H, Nq]
   */
  lists(
    tensor: string,
    got: readonly (readonly number[])[],
    want: readonly (readonly number[])[],
    shape: readonly number[],
  ): void {
    let different = Math.abs(got.length - want.length);
    let worst: Worst = { coordinates: shape.map(() => 0), got: got.length, want: want.length };
    for (let row = want.length - 1; row >= 0; row--) {
      const [a, b] = [got[row] ?? [], want[row]!];
      if (a.length === b.length && a.every((tile, i) => tile === b[i])) continue;
      different++;
      const place = b.findIndex((tile, i) => tile !== a[i]);
      const at = place === -1 ? b.length : place;
      worst = { coordinates: [...coordinatesOf(row, shape), at], got: a[at] ?? NaN, want: b[at] ?? NaN };
    }
    const verdict = { ok: different === 0, maxError: different, limit: 0, relativeL2: 0, limitL2: Infinity, worst };
    this.#add(tensor, verdict);
  }

  /** There is nothing to compare. */
  fail(tensor: string, error: string): void {
    this.rows.push(failedRow(this.op, this.name, tensor, error));
  }

  #add(tensor: string, { ok, maxError, limit, relativeL2, limitL2, worst }: Omit<Verdict, 'worst'> & { worst: Worst }) {
    const { coordinates, got, want } = worst;
    const element = { coordinates, got, want };
    this.rows.push({
      ...{ op: this.op, case: this.name, tensor },
      ...{ maxError, limit, relativeL2, limitL2, worst: element, ok },
    });
  }
}

/** The row of something that could not be compared. */
export function failedRow(op: string, name: string, tensor: string, error: string): CheckRow {
  const numbers = { maxError: NaN, limit: NaN, relativeL2: NaN, limitL2: NaN };
  return { op, case: name, tensor, ...numbers, worst: null, ok: false, error };
}

/** All rows of a check. `JSON.stringify` writes numbers that JSON has not (NaN, infinities) as strings. */
export class CheckReport {
  /** Rows that hold, and rows that do not. */
  readonly passed: number;
  readonly failed: number;
  readonly ok: boolean;

  constructor(
    /** As `device.toString()` says: 'cpu', 'cuda:0'. */
    readonly device: string,
    readonly deviceName: string,
    readonly seed: number,
    /** Wall-clock time of the whole check. */
    readonly seconds: number,
    readonly rows: readonly CheckRow[],
  ) {
    this.passed = rows.filter((row) => row.ok).length;
    this.failed = rows.length - this.passed;
    this.ok = this.failed === 0 && rows.length > 0;
  }

  toJSON(): unknown {
    const { device, deviceName, seed, seconds, passed, failed, ok, rows } = this;
    return writable({ device, deviceName, seed, seconds, passed, failed, ok, rows });
  }
}

function writable(value: unknown): unknown {
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value);
  if (Array.isArray(value)) return value.map(writable);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, writable(member)]));
}
