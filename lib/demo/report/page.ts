/** The report as one HTML file: no network, no dependencies, readable without its script. */
import { headKind } from '../projection.js';
import { CLIENT_SCRIPT } from './client.js';
import { massBars, massCurveChart, offsetMaps, timeBars } from './charts.js';
import { pageData, shownHeads } from './data.js';
import type { ReportInput } from './data.js';
import { explorer } from './explorer.js';
import { bytes, duration, escapeHtml, flops, mean, percent, scriptJson, times } from '../../report/html.js';
import { STYLES } from '../../report/styles.js';

// What the page may load: its own styles, script and pictures, nothing from anywhere.
const POLICY =
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'";

/** The whole report, as UTF-8 text. */
export function renderReport(input: ReportInput): string {
  const { clip } = input;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<title>Video Sparse Attention: ${escapeHtml(clip.sourceName)}</title>
<style>${STYLES}</style>
</head>
<body>
<main>
${header(input)}
${explorer(input)}
${massSection(input)}
${costSection(input)}
${explanation(input)}
${setup(input)}
</main>
<script type="application/json" id="data">${scriptJson(pageData(input))}</script>
<script>${CLIENT_SCRIPT}</script>
</body>
</html>
`;
}

function header({ clip, grid, topK, measurement, settings, device }: ReportInput): string {
  const { vsa, random, times: time, flops: work } = measurement;
  const held = mean(vsa.heldByHead);
  const fact = (name: string, number: string, beside: string, accent = false) =>
    `<div><dt>${name}</dt><dd><span class="number${accent ? ' accent' : ''}">${number}</span><br>` +
    `<span class="beside">${beside}</span></dd></div>`;
  return `<header>
  <h1>Video Sparse Attention</h1>
  <p class="lede">${escapeHtml(clip.sourceName)}: ${clip.frames} frames at ${clip.width}×${clip.height} pixels, cut into
    ${grid.length.toLocaleString('en')} tokens and ${grid.tileCount} tiles. Each tile attends to ${topK} of them. This is
    what it keeps of dense attention, and what that saves.</p>
  <dl class="facts">
    ${fact('Tiles left out', percent(1 - topK / grid.tileCount, 0), `${topK} of ${grid.tileCount} kept`)}
    ${fact('Dense attention held', percent(held, 0), `random tiles: ${percent(mean(random.heldByHead), 0)}`, true)}
    ${fact('Faster than dense', times(time.dense.ms / time.vsa.ms), `${duration(time.vsa.ms)} against ${duration(time.dense.ms)}, ${device.toString()}`)}
    ${fact('Fewer operations', times(work.dense / work.vsa), `${settings.heads} heads of ${settings.headDim}, forward`)}
  </dl>
</header>`;
}

function massSection(input: ReportInput): string {
  const { measurement, topK } = input;
  const shown = shownHeads(input);
  const rest = shown < input.settings.heads ? ` Heads 0 to ${shown - 1} of ${input.settings.heads} are drawn.` : '';
  return `<section aria-labelledby="mass-title">
  <h2 id="mass-title">How much of dense attention the selection holds</h2>
  <p class="lead">Dense attention spreads every query token’s weight over the whole clip. The mass of a choice of tiles is
    the share of that weight which falls on them, averaged over all query tokens.</p>
  <div class="columns">
    <div class="card"><h3>By head</h3><p>Best possible: the ${topK} heaviest tiles of each query tile, which only dense
      attention can know.</p><div class="head-bars">${massBars(input)}</div></div>
    <div class="card"><h3>By number of tiles kept</h3><p>All heads together, in per cent. Tiles are kept in the order of
      their coarse scores.</p>${massCurveChart(measurement.curve, topK)}</div>
  </div>
  <div class="card" style="margin-top:22px"><h3>Where selected tiles lie</h3>
    <p>Seen from the query tile, which is outlined: the stronger the colour, the more often the tile at that distance is
      selected.${rest}</p>
    <div class="offsets">${offsetMaps(input, shown)}</div></div>
</section>`;
}

function costSection(input: ReportInput): string {
  const { measurement, device } = input;
  const { vsa, random, times: time } = measurement;
  const runs = Math.min(...Object.values(time).map((timing) => timing.runs));
  const error = (value: number) => value.toPrecision(3);
  const rows = vsa.errors
    .map((own, head) => {
      const other = random.errors[head]!;
      return (
        `<tr><th scope="row">${head} · ${headKind(head).name}</th><td>${error(own.relative)}</td><td>${error(own.max)}</td>` +
        `<td>${error(other.relative)}</td><td>${error(other.max)}</td></tr>`
      );
    })
    .join('');
  return `<section aria-labelledby="cost-title">
  <h2 id="cost-title">What it costs and what it changes</h2>
  <div class="columns">
    <div class="card"><h3>Time of one call</h3><p>On ${escapeHtml(device.name)} (${device.toString()}), all heads;
      ${runs > 1 ? 'medians' : 'medians where a call is fast enough to repeat'}. VSA includes pooling and
      selection.</p>${timeBars(input)}</div>
    <div class="card"><h3>Output against dense attention</h3><p>Relative: L2 of the difference over L2 of the dense
      output. Fine stage alone, coarse output skipped.</p>
      <table><thead><tr><th scope="col">Head</th><th scope="col">VSA, relative</th><th scope="col">max</th>
        <th scope="col">random, relative</th><th scope="col">max</th></tr></thead><tbody>${rows}</tbody></table></div>
  </div>
  <p class="note" style="margin-top:14px">Mass and error are not the same. Where attention is spread over half the clip, the
    values average out, and a random sample of tiles may come closer to the dense output than the heaviest tiles do. A model
    that is trained with VSA has the coarse branch for that: it adds what all tiles say on average.</p>
</section>`;
}

function explanation({ topK, grid }: ReportInput): string {
  return `<section aria-labelledby="what-title">
  <h2 id="what-title">What happens here</h2>
  <ol class="steps">
    <li><h3>Pool</h3><p>Every ${grid.tile.join('×')} cube of tokens is a tile. The queries and keys of a tile are averaged
      into one vector each.</p></li>
    <li><h3>Score</h3><p>Each tile’s query vector is multiplied with all ${grid.tileCount} key vectors: a tiny attention
      over tiles.</p></li>
    <li><h3>Select</h3><p>Each query tile keeps the ${topK} tiles with the largest scores. The choice is exact, and
      differs by head and by tile.</p></li>
    <li><h3>Attend</h3><p>Its 64 tokens attend to the tokens of those tiles, one by one, and to nothing
      else.</p></li>
  </ol>
  <div class="prose" style="margin-top:18px">
  <p><b>No trained model is at work.</b> Queries, keys and values are fixed random projections, the same for the same seed,
    of what a token shows (colour and change of its 16 quadrants of 4×4 pixels) and where it is. The four kinds of head
    weigh the two differently. So the numbers show how the operator behaves on real video with attention that is about as
    peaked as a trained model’s; they do not tell how good a model with it would be.</p>
  <p>Video Sparse Attention: <cite>VSA: Faster Video Diffusion with Trainable Sparse Attention</cite>, arXiv
    2505.13389.</p></div>
</section>`;
}

function setup({ clip, grid, topK, settings, device, measurement }: ReportInput): string {
  const { memory, flops: work } = measurement;
  const padded = grid.slots - grid.length;
  const rows: [string, string][] = [
    ['Clip', `${clip.sourceName}, ${clip.frames} frames, ${clip.width}×${clip.height} pixels`],
    ['Token grid', `${grid.toString()} = ${grid.length.toLocaleString('en')} tokens of 4 frames and 16×16 pixels`],
    [
      'Tiles',
      `${grid.tileCounts.join('×')} = ${grid.tileCount} of ${grid.tile.join('×')}; ${padded.toLocaleString('en')} slots of partial tiles are empty`,
    ],
    ['Selection', `${topK} tiles for each query tile, sparsity ${settings.sparsity}`],
    ['Attention', `${settings.heads} heads of ${settings.headDim}, ${settings.dtype}, seed ${settings.seed}`],
    ['Operations', `${flops(work.vsa)} in VSA’s fine stage, ${flops(work.dense)} dense`],
    ['Memory', `${bytes(memory.numBytes)} in ${memory.numTensors} tensors after VSA’s forward, inputs included`],
    ['Device', `${device.name} (${device.toString()}), Node ${process.versions.node}`],
  ];
  const body = rows
    .map(([name, value]) => `<tr><th scope="row">${name}</th><td class="wide">${escapeHtml(value)}</td></tr>`)
    .join('');
  return `<section aria-labelledby="setup-title"><h2 id="setup-title">Setup</h2>
  <div class="card"><table><tbody>${body}</tbody></table></div></section>`;
}
