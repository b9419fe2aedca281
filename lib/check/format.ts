/** A report as text. */

import Table from 'cli-table3';
import type { CheckReport, CheckRow } from './report.js';

export interface FormatOptions {
  /** Escape codes for a terminal. Default false. */
  readonly colours?: boolean;
  /** Every row, instead of the worst of each tensor and all that failed. Default false. */
  readonly all?: boolean;
}

const HEAD = [
  'operation',
  'tensor',
  'cases',
  'worst case',
  'max error / limit',
  'relative L2 / limit',
  'worst element',
  '',
];

/**
 * A table: for every tensor of every operation the number of cases and the one that is nearest to its limits, with the
 * place of its worst element; every row that failed; a line that sums up.
 */
export function formatCheck(report: CheckReport, options: FormatOptions = {}): string {
  const { colours = false, all = false } = options;
  const colour = (code: number, text: string) => (colours ? `\u001b[${code}m${text}\u001b[39m` : text);
  const verdict = (row: CheckRow) => (row.ok ? colour(32, 'ok') : colour(31, 'FAIL'));

  const style = { head: colours ? ['cyan'] : [], border: colours ? ['grey'] : [], compact: true };
  const table = new Table({
    head: HEAD,
    style,
    colAligns: ['left', 'left', 'right', 'left', 'right', 'right', 'left', 'left'],
  });
  for (const rows of groups(report.rows)) {
    const failed = rows.filter((row) => !row.ok);
    const shown = all ? rows : failed.length > 0 ? failed : [worstOf(rows)];
    for (const row of shown) {
      const cases = shown.length > 1 || all ? '' : String(rows.length);
      table.push([row.op, row.tensor, cases, row.case, ...cells(row), verdict(row)]);
    }
  }
  const errors = report.rows.filter((row) => row.error !== undefined);
  const counts = `${report.passed} passed, ${report.failed} failed`;
  return [
    table.toString(),
    ...errors.map((row) => `${row.op}, ${row.case}, ${row.tensor}: ${row.error ?? ''}`),
    `${report.device} (${report.deviceName}), seed ${report.seed}: ${colour(report.ok ? 32 : 31, counts)}, ` +
      `${report.seconds.toFixed(1)} s`,
  ].join('\n');
}

/** The rows of each tensor of each operation. */
function groups(rows: readonly CheckRow[]): CheckRow[][] {
  const byTensor = new Map<string, CheckRow[]>();
  for (const row of rows) {
    const key = `${row.op} ${row.tensor}`;
    byTensor.set(key, [...(byTensor.get(key) ?? []), row]);
  }
  return [...byTensor.values()];
}

function worstOf(rows: readonly CheckRow[]): CheckRow {
  return rows.reduce((worst, row) => (severity(row) > severity(worst) ? row : worst));
}

/** Share of the limits that an error takes. */
function severity({ maxError, limit, relativeL2, limitL2 }: CheckRow): number {
  return Math.max(maxError === 0 ? 0 : maxError / limit, relativeL2 === 0 ? 0 : relativeL2 / limitL2);
}

function cells({ maxError, limit, relativeL2, limitL2, worst }: CheckRow): [string, string, string] {
  if (worst === null) return ['', '', ''];
  const l2 = limitL2 === Infinity ? '' : `${short(relativeL2)} / ${short(limitL2)}`;
  const place = `[${worst.coordinates.join(', ')}] got ${long(worst.got)}, want ${long(worst.want)}`;
  return [`${short(maxError)} / ${short(limit)}`, l2, maxError === 0 ? '' : place];
}

function short(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toExponential(1);
}

function long(value: number): string {
  return String(Number(value.toPrecision(7)));
}
