/** The report about training runs as one HTML file: no network, no script. */

import { escapeHtml, percent } from '../../report/html.js';
import { STYLES } from '../../report/styles.js';
import { legend, lossChart, massBars, runColour, selectionMaps, short } from './charts.js';
import { comparisonText } from './comparison.js';
import { finalLoss, median, type RunReport } from './data.js';
import type { LogRow } from '../log.js';
import { RUN_STYLES } from './styles.js';

const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'";

/** The whole report, as UTF-8 text. */
export function renderTrainReport(runs: readonly RunReport[]): string {
  const title = runs.length === 1 ? runs[0]!.name : `${String(runs.length)} runs`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<title>Training: ${escapeHtml(title)}</title>
<style>${STYLES}${RUN_STYLES}</style>
</head>
<body>
<main>
<header><h1>Training</h1>
<p class="lede">${escapeHtml(lede(runs))}</p>
${facts(runs)}</header>
${curves(runs)}
${samples(runs)}
${runs.map(attention).join('\n')}
${setup(runs)}
</main>
</body>
</html>
`;
}

function kind({ settings, topK, grid }: RunReport): string {
  if (settings.attention === 'full') return 'full attention';
  return `VSA, ${String(topK)} of ${String(grid.tileCount)} tiles`;
}

function lede(runs: readonly RunReport[]): string {
  const [first] = runs;
  if (first === undefined) return '';
  const { grid, parameterCount } = first;
  const model = `A video diffusion transformer of ${short(parameterCount)} parameters on clips of ${grid.toString()} tokens`;
  return runs.length === 1 ? `${model}: ${kind(first)}.` : `${model}, and ${String(runs.length - 1)} more to compare.`;
}

function facts(runs: readonly RunReport[]): string {
  const cells = runs.slice(0, 4).map(({ name, rows }, index) => {
    const loss = rows.length === 0 ? 'none' : finalLoss(rows).toFixed(4);
    return (
      `<div><dt><span style="color:${runColour(index)}">●</span> ${escapeHtml(name)}</dt>` +
      `<dd><span class="number">${loss}</span><br><span class="beside">loss of the last steps</span></dd></div>`
    );
  });
  return `<dl class="facts">${cells.join('')}</dl>`;
}

function curves(runs: readonly RunReport[]): string {
  const comparison = comparisonText(runs);
  return `<section aria-labelledby="curves-title">
  <h2 id="curves-title">Loss</h2>
  <p class="lead">Mean squared error of the velocity (rectified flow), means of neighbouring steps. A step’s own loss
    depends on the times that it drew.${comparison === '' ? '' : ` ${escapeHtml(comparison)}`}</p>
  ${legend(runs)}
  <div class="columns">
    <div class="card"><h3>By step</h3>${lossChart(runs, 'step')}</div>
    <div class="card"><h3>By work</h3><p>FLOP of the model: linears three times their forward, attention over the selected
      tiles three and a half times.</p>${lossChart(runs, 'flop')}</div>
  </div></section>`;
}

function samples(runs: readonly RunReport[]): string {
  const figures = runs.map(
    ({ name, sample, rows }) =>
      `<figure><img src="data:image/gif;base64,${sample}" alt="A clip drawn from ${escapeHtml(name)}">` +
      `<figcaption>${escapeHtml(name)}, after ${String(rows.at(-1)?.step ?? 0)} steps</figcaption></figure>`,
  );
  return `<section aria-labelledby="samples-title">
  <h2 id="samples-title">Samples</h2>
  <p class="lead">The same noise, carried along each model’s velocities; drawn with the moving average of the weights where
    there is one.</p>
  <div class="samples">${figures.join('')}</div></section>`;
}

function attention(run: RunReport, index: number): string {
  const { name, settings } = run;
  const whose =
    settings.attention === 'full'
      ? 'the tiles that VSA’s coarse stage would select from the same queries and keys hold'
      : 'the selected tiles hold';
  const id = `attention-${String(index)}`;
  return `<section aria-labelledby="${id}">
  <h2 id="${id}">${escapeHtml(name)}: what heads attend to</h2>
  <p class="lead">On the clip above, half-way through the noise: the share of dense attention that ${whose}, by layer. Dots
    are heads, bars their mean.</p>
  <div class="card">${massBars(run)}</div>
  <div class="card" style="margin-top:22px"><h3>Where selected tiles lie</h3>
    <p>Seen from the query tile, which is outlined: the stronger the colour, the more often the tile at that distance is
      selected.</p>
    <div class="offsets">${selectionMaps(run)}</div></div></section>`;
}

/** Steps with the K that a run ended with: those before, of an adaptation, take longer. */
function atLastK({ rows }: RunReport): readonly LogRow[] {
  return rows.filter(({ topK }) => topK === rows.at(-1)!.topK);
}

function setup(runs: readonly RunReport[]): string {
  const row = (name: string, value: (run: RunReport) => string) =>
    `<tr><th scope="row">${name}</th>${runs.map((run) => `<td>${escapeHtml(value(run))}</td>`).join('')}</tr>`;
  const last = (run: RunReport) => run.rows.at(-1);
  const body = [
    row('Attention', kind),
    row('Parameters', (run) => short(run.parameterCount)),
    row(
      'Model',
      ({ settings: { width, heads, layers, ffn } }) => `${layers} layers, ${heads} heads, ${width} wide, ffn ${ffn}`,
    ),
    row(
      'Clips',
      ({ settings: { data, video, patch } }) => `${data}, ${video.join('×')} in patches of ${patch.join('×')}`,
    ),
    row('Precision', ({ settings: { dtype } }) => dtype),
    row(
      'Steps',
      (run) => `${String(last(run)?.step ?? 0)} of ${String(run.settings.steps)}, batch ${String(run.settings.batch)}`,
    ),
    row(
      'Learning rate',
      ({ settings: { learningRate, warmup, schedule } }) => `${learningRate}, ${schedule}, ${warmup} warm-up`,
    ),
    row('Begun from', ({ settings: { adapt } }) => adapt ?? 'random weights'),
    row('Work', (run) => `${short(last(run)?.flop ?? 0)}FLOP`),
    row('A step, median', (run) =>
      run.rows.length === 0 ? '' : `${median(atLastK(run).map(({ ms }) => ms)).toFixed(1)} ms`,
    ),
    row('MFU, median', (run) => {
      const shares = atLastK(run).flatMap(({ mfu }) => mfu ?? []);
      return shares.length === 0 ? 'no peak is known' : percent(median(shares));
    }),
    row('Seed', ({ settings: { seed } }) => String(seed)),
  ];
  const head = runs.map(({ name }) => `<th scope="col">${escapeHtml(name)}</th>`).join('');
  return `<section aria-labelledby="setup-title"><h2 id="setup-title">Setup</h2>
  <div class="card runs-table"><table><thead><tr><th></th>${head}</tr></thead><tbody>${body.join('')}</tbody></table></div></section>`;
}
