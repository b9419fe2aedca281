/** The report's charts: SVG, coloured by the style sheet. Each says in words what it shows. */

import { escapeHtml, percent } from '../../report/html.js';
import { offsetFigure } from '../../report/offsets.js';
import { type CurvePoint, lossCurve, type RunReport } from './data.js';

/** Colours in the style sheet: --run-0 and so on. */
export const RUN_COLOURS = 6;

export function runColour(index: number): string {
  return `var(--run-${String(index % RUN_COLOURS)})`;
}

const [LEFT, TOP, WIDTH, HEIGHT] = [52, 12, 404, 300];

/** About five round numbers from `least` to `most`. */
export function ticks(least: number, most: number): number[] {
  const span = most - least;
  if (!(span > 0)) return [least];
  const rough = span / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough)!;
  const first = Math.ceil(least / step) * step;
  const count = Math.floor((most - first) / step + 1e-9) + 1;
  return Array.from({ length: count }, (_, i) => Number((first + i * step).toPrecision(12)));
}

/** A number with a unit of thousands. */
export function short(value: number): string {
  const units = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
  let unit = 0;
  let scaled = value;
  for (; Math.abs(scaled) >= 1000 && unit < units.length - 1; unit++) scaled /= 1000;
  return `${Number(scaled.toPrecision(3))}${units[unit]!}`;
}

/** Loss of all runs against steps, or against the FLOP they took. */
export function lossChart(runs: readonly Pick<RunReport, 'name' | 'rows'>[], axis: 'step' | 'flop'): string {
  const curves = runs.map(({ rows }) => lossCurve(rows));
  const points = curves.flat();
  if (points.length === 0) return '<p>No steps were logged.</p>';
  const most = Math.max(...points.map((point) => point[axis]));
  // The first losses are far above all others: they may leave the picture at its top.
  const losses = points.map(({ loss }) => loss).sort((a, b) => a - b);
  const low = losses[0]!;
  const high = Math.max(losses[Math.floor(0.97 * (losses.length - 1))]!, low + 1e-9);
  const x = (point: CurvePoint) => LEFT + (point[axis] / most) * WIDTH;
  const y = (loss: number) => TOP + (1 - (Math.min(loss, high) - low) / (high - low)) * HEIGHT;
  const rows = ticks(low, high).map(
    (tick) =>
      `<line class="axis" x1="${LEFT}" x2="${LEFT + WIDTH}" y1="${y(tick).toFixed(1)}" y2="${y(tick).toFixed(1)}"/>` +
      `<text x="${LEFT - 8}" y="${y(tick).toFixed(1)}" dy=".35em" text-anchor="end">${short(tick)}</text>`,
  );
  const columns = ticks(0, most).map(
    (tick) =>
      `<text x="${(LEFT + (tick / most) * WIDTH).toFixed(1)}" y="${TOP + HEIGHT + 18}" text-anchor="middle">${short(tick)}</text>`,
  );
  const paths = curves.map((curve, index) => {
    const d = curve.map((point, at) => `${at === 0 ? 'M' : 'L'}${x(point).toFixed(1)} ${y(point.loss).toFixed(1)}`);
    return `<path style="stroke:${runColour(index)}" d="${d.join('')}"/>`;
  });
  const name = axis === 'step' ? 'steps' : 'FLOP';
  const ends = runs.map(
    ({ name: run }, index) => `${run} ends at ${curves[index]!.at(-1)?.loss.toFixed(4) ?? 'no loss'}`,
  );
  return `<svg class="chart" viewBox="0 0 480 ${HEIGHT + 60}" role="img" aria-label="${escapeHtml(`Loss against ${name}: ${ends.join(', ')}.`)}">
    ${rows.join('')}${columns.join('')}
    <text x="${LEFT + WIDTH / 2}" y="${TOP + HEIGHT + 40}" text-anchor="middle">${name}</text>
    ${paths.join('')}
  </svg>`;
}

/** Which line is whose. */
export function legend(runs: readonly RunReport[]): string {
  const items = runs.map(
    ({ name }, index) => `<li><i style="background:${runColour(index)}"></i>${escapeHtml(name)}</li>`,
  );
  return `<ul class="runs">${items.join('')}</ul>`;
}

/** Mass that every layer's selection holds: a dot a head, a bar for their mean. */
export function massBars({ layers, topK, grid }: Pick<RunReport, 'layers' | 'topK' | 'grid'>): string {
  const chance = topK / grid.tileCount;
  const bars = layers.map(({ layer, held }) => {
    const mean = held.reduce((sum, one) => sum + one, 0) / held.length;
    const dots = held.map((one) => `<u style="left:${(100 * Math.min(1, one)).toFixed(1)}%"></u>`).join('');
    return (
      `<div class="meter vsa"><span>layer ${String(layer)}</span>` +
      `<i><b style="width:${(100 * Math.min(1, mean)).toFixed(1)}%"></b>${dots}</i><em>${percent(mean)}</em></div>`
    );
  });
  return (
    bars.join('') +
    `<div class="meter random"><span>any ${String(topK)}</span><i><b style="width:${(100 * chance).toFixed(1)}%"></b></i>` +
    `<em>${percent(chance)}</em></div>`
  );
}

/** Maps of at most so many heads a run, the same number of each layer that is shown. */
const MAPS = 12;

/** Where selected tiles lie, seen from their query tile: a map a head, of the first, the middle and the last layer. */
export function selectionMaps({ layers, grid }: Pick<RunReport, 'layers' | 'grid'>): string {
  const shown = [...new Set([0, layers.length >> 1, layers.length - 1])].flatMap((at) => layers[at] ?? []);
  const heads = Math.floor(MAPS / shown.length);
  return shown
    .flatMap(({ layer, offsets }) => offsets.slice(0, heads).map((one, head) => ({ layer, head, offsets: one })))
    .map(({ layer, head, offsets }) => {
      const label = `Layer ${String(layer)}, head ${String(head)}`;
      return offsetFigure(grid, offsets, `<b>${label}</b>`, label);
    })
    .join('');
}
