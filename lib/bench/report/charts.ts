/** The report's charts: SVG drawn once, coloured by the style sheet. Each says in words what it shows. */

import { escapeHtml } from '../../report/html.js';
import type { Machine } from '../../device/machine.js';
import type { BenchRow } from '../row.js';
import { milliseconds, percent } from '../table.js';

const WIDTH = 1160;
const ROW = 26;
const LABEL = 450;
const VALUE = 215;

/** A row in a few words. */
export function rowLabel(row: BenchRow): string {
  const { op, direction, backend, grid, H, Hkv, D, K, lists, overlap } = row;
  const heads = H === Hkv ? `H${H}` : `H${H}/${Hkv}`;
  const kept = K === null ? '' : `K${K}`;
  const kind = lists === null ? '' : `${lists}${overlap === null || lists === 'dense' ? '' : ` ${percent(overlap)}`}`;
  const modes = [row.order === 'tiled' ? 'tiled' : '', row.cache === 'cold' ? 'cold' : '', row.graph ? 'graph' : ''];
  const dtype = row.dtype === 'bfloat16' || op === 'lists' ? '' : row.dtype;
  const parts = [`${op} ${direction}`, backend, grid, heads, `D${D}`, kept, dtype, kind, ...modes];
  return parts.filter((part) => part !== '').join(' ');
}

interface BarChart {
  readonly value: (row: BenchRow) => number | null;
  /** The value that the row would have at its bound. */
  readonly bound: (row: BenchRow) => number | null;
  readonly text: (row: BenchRow) => string;
  /** The end of the scale, at least. */
  readonly most?: number;
  readonly title: string;
}

/** A bar for every row, and a stroke where its bound lies. */
export function bars(rows: readonly BenchRow[], { value, bound, text, most = 0, title }: BarChart): string {
  const values = rows.flatMap((row) => [value(row) ?? 0, bound(row) ?? 0]);
  const end = Math.max(most, ...values) || 1;
  const span = WIDTH - LABEL - VALUE;
  const drawn = rows.map((row, i) => {
    const y = i * ROW;
    const length = ((value(row) ?? 0) / end) * span;
    const at = bound(row);
    const x = at === null ? 0 : LABEL + (at / end) * span;
    const stroke =
      at === null ? '' : `<line class="bound" x1="${fixed(x)}" x2="${fixed(x)}" y1="${y + 3}" y2="${y + ROW - 3}"/>`;
    const label = rowLabel(row);
    return (
      `<g><title>${escapeHtml(`${label}: ${text(row)}`)}</title>` +
      `<text x="0" y="${y + 17}"${row.ok === false ? ' class="failed"' : ''}>${escapeHtml(shortened(label))}</text>` +
      `<rect class="track" x="${LABEL}" y="${y + 5}" width="${span}" height="${ROW - 10}" rx="3"/>` +
      `<rect x="${LABEL}" y="${y + 5}" width="${fixed(length)}" height="${ROW - 10}" rx="3" ` +
      `fill="var(--${colour(row.op)})"/>${stroke}` +
      `<text x="${LABEL + span + 10}" y="${y + 17}">${escapeHtml(row.ok === false ? 'failed' : text(row))}</text></g>`
    );
  });
  return svg(rows.length * ROW, title, drawn.join(''));
}

/** What the stages take of every call, one after another. */
export function stageBars(rows: readonly BenchRow[]): string {
  const sums = rows.map(({ stages }) => Object.values(stages).reduce((sum, ms) => sum + ms, 0));
  const end = Math.max(...sums);
  const span = WIDTH - LABEL - VALUE;
  const drawn = rows.map((row, i) => {
    const y = i * ROW;
    let x = LABEL;
    const parts = Object.entries(row.stages).map(([name, ms]) => {
      const width = (ms / end) * span;
      const part =
        `<rect x="${fixed(x)}" y="${y + 5}" width="${fixed(width)}" height="${ROW - 10}" ` +
        `fill="var(--${colour(name)})"><title>${escapeHtml(`${name}: ${milliseconds(ms)} ms`)}</title></rect>`;
      x += width;
      return part;
    });
    return (
      `<text x="0" y="${y + 17}">${escapeHtml(shortened(rowLabel(row)))}</text>${parts.join('')}` +
      `<text x="${LABEL + span + 10}" y="${y + 17}">` +
      `${milliseconds(sums[i]!)} ms, ${percent(sums[i]! / row.ms!)} of it</text>`
    );
  });
  return svg(rows.length * ROW, 'Stages of each call, in milliseconds on the device', drawn.join(''));
}

/** Arithmetic intensity against TFLOP/s, both logarithmic, under what memory and tensor cores allow. */
export function roofline(rows: readonly BenchRow[], machine: Machine): string {
  const points = rows.flatMap((row) => {
    if (row.tflops === null || row.gbs === null || row.gflop === null || row.ms === null) return [];
    return [{ row, x: row.gflop / (row.gbs * row.ms * 1e-3), y: row.tflops }];
  });
  const [left, top, height] = [60, 10, 420];
  const width = WIDTH - left - 30;
  const peak = machine.bf16;
  const corner = (peak * 1000) / machine.hbm;
  const decades = (values: readonly number[]) =>
    [Math.floor(Math.log10(Math.min(...values))), Math.ceil(Math.log10(Math.max(...values)))] as const;
  const [x0, x1] = decades([...points.map(({ x }) => x), corner / 10, corner * 10]);
  const [y0, y1] = decades([...points.map(({ y }) => y), peak / 100, peak]);
  const X = (value: number) => left + ((Math.log10(value) - x0) / (x1 - x0)) * width;
  const Y = (value: number) => top + (1 - (Math.log10(value) - y0) / (y1 - y0)) * height;
  const columns = steps(x0, x1).map(
    (value) =>
      `<line class="axis" x1="${fixed(X(value))}" x2="${fixed(X(value))}" y1="${top}" y2="${top + height}"/>` +
      `<text class="muted" x="${fixed(X(value))}" y="${top + height + 18}" text-anchor="middle">${value}</text>`,
  );
  const lines = steps(y0, y1).map(
    (value) =>
      `<line class="axis" x1="${left}" x2="${left + width}" y1="${fixed(Y(value))}" y2="${fixed(Y(value))}"/>` +
      `<text class="muted" x="${left - 8}" y="${fixed(Y(value))}" dy=".35em" text-anchor="end">${value}</text>`,
  );
  // Memory's slope enters at the left or at the bottom of the picture.
  const from = Math.max(10 ** x0, (10 ** y0 * 1000) / machine.hbm);
  const slope = `M${fixed(X(from))} ${fixed(Y((from * machine.hbm) / 1000))}`;
  const roof = `<path class="roof" d="${slope}L${fixed(X(corner))} ${fixed(Y(peak))}H${left + width}"/>`;
  const dots = points.map(
    ({ row, x, y }) =>
      `<circle class="point" cx="${fixed(X(x))}" cy="${fixed(Y(y))}" r="5.5" fill="var(--${colour(row.op)})">` +
      `<title>${escapeHtml(`${rowLabel(row)}: ${y.toPrecision(4)} TFLOP/s, ${x.toFixed(0)} FLOP a byte`)}</title>` +
      '</circle>',
  );
  const texts =
    `<text class="muted" x="${left + width}" y="${fixed(Y(peak) + 16)}" text-anchor="end">` +
    `${peak} TFLOP/s, dense bfloat16</text>` +
    `<text class="muted" x="${left + width / 2}" y="${top + height + 38}" text-anchor="middle">useful FLOP for every ` +
    'byte that must be read or written</text>';
  return svg(
    top + height + 46,
    `Roofline of ${points.length} rows: useful FLOP a byte against TFLOP/s`,
    [...columns, ...lines, roof, ...dots, texts].join(''),
  );
}

function steps(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => Number(`1e${from + i}`));
}

function svg(height: number, title: string, content: string): string {
  return (
    `<svg class="chart" viewBox="0 0 ${WIDTH} ${Math.max(height, ROW)}" role="img" aria-label="${escapeHtml(title)}">` +
    `${content}</svg>`
  );
}

const COLOURS = ['pool', 'select', 'lists', 'coarse', 'fine', 'dense', 'vsa', 'combine', 'transpose', 'bits'];

/** A colour of the style sheet. */
export function colour(name: string): string {
  return COLOURS.includes(name) ? name : 'muted';
}

function fixed(value: number): string {
  return value.toFixed(1);
}

function shortened(label: string): string {
  return label.length > 68 ? `${label.slice(0, 67)}…` : label;
}
