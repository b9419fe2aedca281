/** The report's charts: SVG and HTML drawn once, coloured by the style sheet. Each says in words what it shows. */
import { selectionOffsets } from '../../attention/offsets.js';
import { offsetFigure } from '../../report/offsets.js';
import { headKind } from '../projection.js';
import type { MassCurve } from '../../attention/mass.js';
import { selectedTiles } from './data.js';
import type { ReportInput } from './data.js';
import { duration, escapeHtml, percent } from '../../report/html.js';

/** A labelled bar; `part` of 0..1 fills it. */
function meter(kind: string, label: string, part: number, value: string): string {
  const width = (Math.min(1, Math.max(0, part)) * 100).toFixed(1);
  return (
    `<div class="meter ${kind}"><span>${escapeHtml(label)}</span><i><b style="width:${width}%"></b></i>` +
    `<em>${value}</em></div>`
  );
}

/** Mass held by selected, best and random tiles, by head. */
export function massBars({ measurement }: ReportInput): string {
  const { vsa, best, random } = measurement;
  return vsa.heldByHead
    .map((held, head) => {
      const { name, description } = headKind(head);
      return (
        `<h4>Head ${head} · ${name} <span>${description}</span></h4>` +
        meter('vsa', 'selected', held, percent(held)) +
        meter('best', 'best possible', best.heldByHead[head]!, percent(best.heldByHead[head]!)) +
        meter('random', 'random', random.heldByHead[head]!, percent(random.heldByHead[head]!))
      );
    })
    .join('');
}

/** Times of one call each. */
export function timeBars({ measurement }: ReportInput): string {
  const { dense, vsa, selection, random, vsaWithBackward } = measurement.times;
  const longest = Math.max(dense.ms, vsa.ms, random.ms, vsaWithBackward.ms);
  const bar = (kind: string, label: string, ms: number) => meter(kind, label, ms / longest, duration(ms));
  return (
    bar('dense', 'dense', dense.ms) +
    bar('vsa', 'VSA', vsa.ms) +
    bar('vsa', '… selection', selection.ms) +
    bar('random', 'random tiles', random.ms) +
    bar('vsa', 'VSA + backward', vsaWithBackward.ms)
  );
}

/** Mass held against the share of tiles kept. */
export function massCurveChart(curve: MassCurve, topK: number): string {
  const [left, top, width, height] = [36, 12, 420, 330];
  const N = curve.ranked.length - 1;
  const x = (kept: number) => left + (kept / N) * width;
  const y = (share: number) => top + (1 - Math.min(1, share)) * height;
  const path = (values: readonly number[], kind: string) => {
    const step = Math.max(1, Math.floor(N / 160));
    const points = values
      .map((share, kept) => ({ share, kept }))
      .filter(({ kept }) => kept % step === 0 || kept === N || kept < 8)
      .map(({ share, kept }, at) => `${at === 0 ? 'M' : 'L'}${x(kept).toFixed(1)} ${y(share).toFixed(1)}`);
    return `<path class="${kind}" d="${points.join('')}"/>`;
  };
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const rows = ticks
    .map((tick) => {
      const at = y(tick).toFixed(1);
      return (
        `<line class="axis" x1="${left}" x2="${left + width}" y1="${at}" y2="${at}"/>` +
        `<text x="${left - 8}" y="${at}" dy=".35em" text-anchor="end">${tick * 100}</text>`
      );
    })
    .join('');
  const columns = ticks
    .map(
      (tick) => `<text x="${left + tick * width}" y="${top + height + 18}" text-anchor="middle">${tick * 100} %</text>`,
    )
    .join('');
  const label = (kind: string, text: string, kept: number, share: number) =>
    `<text class="${kind} label" x="${x(kept).toFixed(1)}" y="${y(share).toFixed(1)}">${text}</text>`;
  const mark = x(topK).toFixed(1);
  const atLabel = Math.round(N * 0.42);
  const description =
    `Mass held against tiles kept. With ${topK} of ${N} tiles the selection holds ${percent(curve.ranked[topK]!)}, ` +
    `the best possible choice ${percent(curve.best[topK]!)}, a random one about ${percent(topK / N)}.`;
  return `<svg class="chart" viewBox="0 0 480 390" role="img" aria-label="${description}">
    ${rows}${columns}
    <text x="${left + width / 2}" y="${top + height + 40}" text-anchor="middle">tiles kept, of ${N}</text>
    <line class="mark" x1="${mark}" x2="${mark}" y1="${top}" y2="${top + height}"/>
    <text x="${Number(mark) + 5}" y="${top + height - 8}">K = ${topK}</text>
    <path class="random" d="M${x(0)} ${y(0)}L${x(N)} ${y(1)}"/>
    ${path(curve.best, 'best')}${path(curve.ranked, 'vsa')}
    ${label('random', 'random', atLabel + N * 0.03, atLabel / N - 0.05)}
    ${label('best', 'best possible', N * 0.3, 0.62)}
    ${label('vsa', 'selected', N * 0.3, 0.54)}
  </svg>`;
}

/** Where selected tiles lie, seen from their query tile: one map in space and one strip in time a head. */
export function offsetMaps(input: ReportInput, heads: number): string {
  return Array.from({ length: heads }, (_, head) => {
    const offsets = selectionOffsets(input.grid, (query) => selectedTiles(input, head, query));
    const { name } = headKind(head);
    return offsetFigure(input.grid, offsets, `<b>Head ${head}</b> · ${name}`, `Head ${head}, ${name}`);
  }).join('');
}
