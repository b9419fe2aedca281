/** Rows as Markdown. */

import { type Base, comparisonText, type Ratio } from './compare.js';
import type { Machine } from '../device/machine.js';
import type { BenchRow } from './row.js';

interface Column {
  readonly head: string;
  readonly right?: boolean;
  cell(row: BenchRow, ratio: Ratio | undefined): string;
}

export const percent = (share: number | null, count = 0): string =>
  share === null ? '' : `${(100 * share).toFixed(count)} %`;

/** Milliseconds with four significant digits. */
export function milliseconds(ms: number | null): string {
  if (ms === null) return '';
  return ms >= 1000 ? ms.toFixed(0) : ms.toPrecision(4);
}

const number = (value: number | null, count: number): string => (value === null ? '' : value.toFixed(count));

function heads({ H, Hkv }: BenchRow): string {
  return H === Hkv ? String(H) : `${H}/${Hkv}`;
}

function kept({ K, tiles, prefix }: BenchRow): string {
  if (K === null) return '';
  return prefix > 0 ? `${K} + prefix` : `${K}/${tiles}`;
}

function lists({ lists: kind, overlap }: BenchRow): string {
  if (kind === null) return '';
  return overlap === null || kind === 'dense' ? kind : `${kind} ${percent(overlap)}`;
}

/** What else a row has that is not the default. */
function mode(row: BenchRow): string {
  const parts = [row.order === 'tiled' ? 'tiled' : '', row.cache === 'cold' ? 'cold' : '', row.graph ? 'graph' : ''];
  if (row.coarse !== null && row.coarse !== 'gate') parts.push(`coarse ${row.coarse}`);
  if (row.fineGate === true) parts.push('fine gate');
  if (row.data !== 'randn') parts.push(row.data);
  if (row.tile !== '4x4x4') parts.push(row.tile);
  if (row.prefix > 0) parts.push(`prefix ${row.prefix}`);
  return parts.filter((part) => part !== '').join(', ');
}

const DTYPES: Readonly<Record<string, string>> = { bfloat16: 'bf16', float16: 'fp16', float32: 'fp32', int32: 'int32' };

/** `1.08x`, with an arrow where it is beyond the noise; the other backend's name, if it was another. */
export function ratioText(ratio: Ratio | undefined): string {
  if (ratio === undefined) return 'new';
  const arrow = !ratio.beyondNoise ? '' : ratio.ratio > 1 ? ' ▲' : ' ▼';
  const backend = ratio.backend === undefined ? '' : ` (${ratio.backend})`;
  return `${ratio.ratio.toFixed(2)}x${arrow}${backend}`;
}

const COLUMNS: readonly Column[] = [
  { head: 'op', cell: ({ op, direction }) => `${op} ${direction}` },
  { head: 'backend', cell: ({ backend }) => backend },
  { head: 'grid', cell: ({ grid, B }) => (B === 1 ? grid : `${B} x ${grid}`) },
  { head: 'H', right: true, cell: heads },
  { head: 'D', right: true, cell: ({ D }) => String(D) },
  { head: 'dtype', cell: ({ dtype }) => DTYPES[dtype] ?? dtype },
  { head: 'K', right: true, cell: kept },
  { head: 'lists, overlap', cell: lists },
  { head: '', cell: mode },
  { head: 'ms', right: true, cell: ({ ms }) => milliseconds(ms) },
  {
    head: 'p10 to p90',
    right: true,
    cell: (row) => (row.ms_p10 === null ? '' : `${milliseconds(row.ms_p10)} to ${milliseconds(row.ms_p90)}`),
  },
  { head: 'host us', right: true, cell: ({ host_us }) => number(host_us, 0) },
  {
    head: 'peak MB',
    right: true,
    cell: ({ peak_bytes: bytes }) => number(bytes === null ? null : bytes / 1e6, 1),
  },
  { head: 'TFLOP/s', right: true, cell: ({ tflops }) => number(tflops, (tflops ?? 0) < 10 ? 3 : 0) },
  { head: 'MFU', right: true, cell: ({ mfu }) => percent(mfu, 1) },
  { head: 'GB/s', right: true, cell: ({ gbs }) => number(gbs, 0) },
  {
    head: 'bound, reached',
    cell: ({ bound, bound_share: share }) => (bound === null ? '' : `${bound} ${percent(share)}`),
  },
  { head: 'MHz', right: true, cell: ({ sm_mhz }) => number(sm_mhz, 0) },
  { head: 'C', right: true, cell: ({ celsius }) => number(celsius, 0) },
  { head: 'W', right: true, cell: ({ watts }) => number(watts, 0) },
  { head: 'ok', cell: ({ ok }) => (ok === null ? 'unchecked' : ok ? 'ok' : 'FAIL') },
];

export interface Cells {
  readonly heads: readonly { readonly text: string; readonly right: boolean }[];
  readonly cells: readonly (readonly string[])[];
}

/** Columns without a single value are left out. */
export function cellsOf(rows: readonly BenchRow[], base?: Base): Cells {
  const columns = base === undefined ? COLUMNS : [...COLUMNS, { head: 'against base', right: true, cell: compared }];
  const all = rows.map((row) => {
    const ratio = base?.ratio(row);
    return columns.map((column) => column.cell(row, ratio));
  });
  const shown = columns.map((_, c) => c).filter((c) => all.some((row) => row[c] !== ''));
  return {
    heads: shown.map((c) => ({ text: columns[c]!.head, right: columns[c]!.right === true })),
    cells: all.map((row) => shown.map((c) => row[c]!)),
  };
}

export function table(rows: readonly BenchRow[], base?: Base): string {
  const { heads, cells } = cellsOf(rows, base);
  const widths = heads.map(({ text }, i) => Math.max(text.length, ...cells.map((row) => row[i]!.length), 3));
  const line = (texts: readonly string[]) => `| ${texts.join(' | ')} |`;
  const pad = (text: string, i: number) => (heads[i]!.right ? text.padStart(widths[i]!) : text.padEnd(widths[i]!));
  return [
    line(heads.map(({ text }, i) => pad(text, i))),
    line(heads.map(({ right }, i) => (right ? `${'-'.repeat(widths[i]! - 1)}:` : '-'.repeat(widths[i]!)))),
    ...cells.map((row) => line(row.map(pad))),
  ].join('\n');
}

function compared(row: BenchRow, ratio: Ratio | undefined): string {
  return row.ms === null ? '' : ratioText(ratio);
}

/** What the stages of a call take. */
function stagesTable(rows: readonly BenchRow[]): string {
  const lines = rows.map((row) => {
    const parts = Object.entries(row.stages).map(([name, ms]) => `${name} ${milliseconds(ms)}`);
    const sum = Object.values(row.stages).reduce((total, ms) => total + ms, 0);
    const shape = `${row.op} ${row.direction}, ${row.grid}, H ${heads(row)}, K ${row.K ?? ''}`;
    return `| ${shape} | ${parts.join(', ')} | ${milliseconds(sum)} | ${percent(sum / row.ms!, 1)} |`;
  });
  return ['| stages, ms | | sum | of the whole |', '| --- | --- | ---: | ---: |', ...lines].join('\n');
}

/** The device and the package, or the program, that rows come from: of each once, in words. */
export function sourcesOf(rows: readonly BenchRow[]): string[] {
  const others = [...new Set(rows.filter((row) => row.package === null).map(({ backend }) => backend))];
  const texts = rows.map((row) => {
    const driver = row.driver === null ? '' : `, driver ${row.driver}`;
    const cuda = row.cuda === null ? '' : `, CUDA ${row.cuda}`;
    const built =
      row.package === null
        ? `other programs (${others.join(', ')})`
        : `video-sparse-attention ${row.package} (${String(row.commit)})`;
    return `${row.device}${driver}${cuda}, ${built}`;
  });
  return [...new Set(texts)];
}

function peakText(rows: readonly BenchRow[], machine: Machine | undefined): string {
  if (machine !== undefined) {
    return (
      `MFU is a share of ${machine.bf16} TFLOP/s (dense bfloat16), bounds are of that, ` +
      (machine.l2 === null ? '' : `${(machine.l2 / 1000).toFixed(1)} TB/s of L2, `) +
      `${(machine.hbm / 1000).toFixed(2)} TB/s of HBM.`
    );
  }
  const known = rows.some(({ mfu, bound }) => mfu !== null || bound !== null);
  return known
    ? 'MFU and bounds are of the peaks of each row’s device.'
    : 'No peak is known for it: no MFU, no bounds.';
}

/** Everything about a run, for people. */
export function markdown(rows: readonly BenchRow[], machine: Machine | undefined, base?: Base): string {
  if (rows.length === 0) return 'No rows.';
  const staged = rows.filter((row) => row.ms !== null && Object.keys(row.stages).length > 1);
  const failed = rows.filter(({ ok }) => ok === false);
  const unchecked = rows.filter(({ ok }) => ok === null).length;
  return [
    `${sourcesOf(rows).join('. ')}. ${peakText(rows, machine)}`,
    table(rows, base),
    ...(staged.length > 0 ? [stagesTable(staged)] : []),
    ...failed.map((row) => `FAIL ${row.op} ${row.direction} ${row.grid} ${mode(row)}: ${row.error ?? ''}`),
    ...(base === undefined ? [] : [comparisonText(rows, base).join('\n')]),
    `${rows.length - failed.length - unchecked} ok, ${failed.length} failed` +
      (unchecked === 0 ? '' : `, ${unchecked} unchecked`),
  ].join('\n\n');
}
