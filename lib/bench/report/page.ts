/** A run as one HTML file: no network, no script. */

import { escapeHtml } from '../../report/html.js';
import { type Base, comparisonText } from '../compare.js';
import type { Machine } from '../../device/machine.js';
import type { BenchRow } from '../row.js';
import { cellsOf, milliseconds, percent, sourcesOf } from '../table.js';
import { bars, colour, rowLabel, roofline, stageBars } from './charts.js';
import { STYLES } from './styles.js';

// What the page may load: its own styles, nothing from anywhere.
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'";

/** The report, as UTF-8 text. */
export function renderBench(rows: readonly BenchRow[], machine: Machine | undefined, base?: Base): string {
  const sections = [rates(rows, machine), times(rows), stages(rows), roof(rows, machine), all(rows, base)];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<title>vsa bench: ${escapeHtml(rows[0]?.device ?? 'no rows')}</title>
<style>${STYLES}</style>
</head>
<body>
<main>
${[header(rows), ...sections, method(machine)].join('\n')}
</main>
</body>
</html>
`;
}

function header(rows: readonly BenchRow[]): string {
  const [first] = rows;
  if (first === undefined) return '<header><h1>vsa bench</h1><p class="lede">No row was finished.</p></header>';
  const failed = rows.filter(({ ok }) => ok === false);
  const verdict =
    failed.length === 0
      ? `Sampled results of every row are right${rows.some(({ ok }) => ok === null) ? ' but those that nobody has checked' : ''}.`
      : `<span class="bad">${failed.length} of ${rows.length} rows failed.</span>`;
  return `<header>
  <h1>Video Sparse Attention, measured</h1>
  <p class="lede">${escapeHtml(sourcesOf(rows).join('. '))}, ${escapeHtml(first.date.slice(0, 10))}. ${verdict}</p>
</header>`;
}

function section(id: string, title: string, lead: string, content: string): string {
  return `<section aria-labelledby="${id}"><h2 id="${id}">${title}</h2><p class="lead">${lead}</p>${content}</section>`;
}

const card = (content: string): string => `<div class="card">${content}</div>`;

function legend(names: readonly string[]): string {
  const items = [...new Set(names)].map(
    (name) => `<li><i style="background:var(--${colour(name)})"></i>${escapeHtml(name)}</li>`,
  );
  return `<ul class="legend">${items.join('')}</ul>`;
}

function rates(rows: readonly BenchRow[], machine: Machine | undefined): string {
  const attention = rows.filter(({ tflops }) => tflops !== null);
  if (attention.length === 0) return '';
  const scale =
    machine === undefined
      ? ''
      : ` A full bar is the dense bfloat16 peak, ${machine.bf16} TFLOP/s; the stroke is the row’s own bound.`;
  const chart = bars(attention, {
    value: ({ tflops }) => tflops,
    bound: ({ gflop, bound_ms: ms }) => (gflop === null || ms === null ? null : gflop / ms),
    text: ({ tflops, mfu, ms }) =>
      `${tflops!.toPrecision(4)} TFLOP/s${mfu === null ? '' : `, ${percent(mfu, 1)}`}, ${milliseconds(ms)} ms`,
    ...(machine !== undefined && { most: machine.bf16 }),
    title: 'TFLOP/s of attention, useful FLOP of valid tokens',
  });
  const lead = `Useful FLOP of valid tokens over time; MFU; milliseconds.${scale}`;
  return section('rates', 'How fast attention is', lead, card(legend(attention.map(({ op }) => op)) + chart));
}

function times(rows: readonly BenchRow[]): string {
  const others = rows.filter(({ tflops, ms }) => tflops === null && ms !== null);
  if (others.length === 0) return '';
  const chart = bars(others, {
    value: ({ ms }) => ms,
    bound: ({ bound_ms: ms }) => ms,
    text: ({ ms, gbs }) => `${milliseconds(ms)} ms, ${gbs!.toFixed(0)} GB/s`,
    title: 'Time of operations on tiles, in milliseconds',
  });
  const lead = 'Milliseconds, and the bytes that must be read or written over that. The stroke is the row’s bound.';
  return section('times', 'What comes before and after', lead, card(legend(others.map(({ op }) => op)) + chart));
}

function stages(rows: readonly BenchRow[]): string {
  const staged = rows.filter((row) => row.ms !== null && Object.keys(row.stages).length > 1);
  if (staged.length === 0) return '';
  const names = staged.flatMap((row) => Object.keys(row.stages));
  const lead = 'Each stage from the end of the one before it to its own end, in one call.';
  return section('stages', 'Where the time of a call goes', lead, card(legend(names) + stageBars(staged)));
}

function roof(rows: readonly BenchRow[], machine: Machine | undefined): string {
  const attention = rows.filter(({ tflops }) => tflops !== null);
  if (machine === undefined || attention.length === 0) return '';
  const lead =
    `Memory (${machine.hbm} GB/s) on the left, tensor cores on the right. The table names the nearest bound of each ` +
    'row, L2 and shared memory among them.';
  return section('roof', 'Roofline', lead, card(legend(attention.map(({ op }) => op)) + roofline(attention, machine)));
}

function all(rows: readonly BenchRow[], base: Base | undefined): string {
  if (rows.length === 0) return '';
  const { heads, cells } = cellsOf(rows, base);
  const tag = (name: string, text: string, i: number) =>
    `<${name}${heads[i]!.right ? ' class="right"' : ''}>${escapeHtml(text)}</${name}>`;
  const head = heads.map(({ text }, i) => tag('th', text, i)).join('');
  const body = cells.map((row) => `<tr>${row.map((text, i) => tag('td', text, i)).join('')}</tr>`).join('');
  const failed = rows
    .filter(({ ok }) => ok === false)
    .map((row) => `<p class="bad">${escapeHtml(`${rowLabel(row)}: ${row.error ?? ''}`)}</p>`);
  const lead =
    base === undefined
      ? 'Medians.'
      : ['Medians. Against the base: above 1 is faster now.', ...comparisonText(rows, base)]
          .map(escapeHtml)
          .join('<br>');
  const table = `<table><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table>`;
  return section('all', 'All rows', lead, card(table) + failed.join(''));
}

function method(machine: Machine | undefined): string {
  const bound =
    machine === undefined
      ? 'Where no peak is known for a device, there is no MFU and no bound.'
      : 'The bound is the largest of what tensor cores, float32 multiply-adds, L2, shared memory and HBM need at ' +
        'least, step by step, with tiles copied from the L2 as often as the kernels of the row’s backend copy them ' +
        'for its lists.';
  return section(
    'method',
    'How it was measured',
    'Inputs are random normal numbers. A sample is one call between two events on the device, with the queue never ' +
      'empty; times are medians, with the 10th and 90th percentile beside. FLOP are those of the selected pairs of ' +
      'valid tokens, 4 D each forward and 2.5 times that backward; of vsa they are those of its fine stage, over the ' +
      `time of all of it. ${bound} Every row’s results are compared with float64 on sampled tiles.`,
    '',
  );
}
