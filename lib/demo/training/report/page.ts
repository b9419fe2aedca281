/** The page about the demo's training: one HTML file, no network, no script. */
import { duration, escapeHtml, flops, percent, times } from '../../../report/html.js';
import { STYLES } from '../../../report/styles.js';
import { lossChart, massBars, selectionMaps, short } from '../../../train/report/charts.js';
import { RUN_STYLES } from '../../../train/report/styles.js';
import { numbersOf, type TrainingReport } from './data.js';
import { denoisingTable, pictureStyles, samplePictures } from './pictures.js';

const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'";

/** The whole page, as UTF-8 text. */
export function renderTrainingReport(report: TrainingReport): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<title>Video Sparse Attention: a model that learns to denoise</title>
<style>${STYLES}${RUN_STYLES}${pictureStyles(report.settings)}</style>
</head>
<body>
<main>
${header(report)}
${denoising(report)}
${samples(report)}
${training(report)}
${selection(report)}
</main>
</body>
</html>
`;
}

function header(report: TrainingReport): string {
  const { settings, device, grid, parameterCount, rows, views, config } = report;
  const { time, loss: losses, attentionFlops } = numbersOf(report);
  const [first] = views;
  const fact = (name: string, number: string, beside: string, accent = false) =>
    `<div><dt>${name}</dt><dd><span class="number${accent ? ' accent' : ''}">${number}</span><br>` +
    `<span class="beside">${beside}</span></dd></div>`;
  const clips = short(rows.length * settings.batch);
  return `<header>
  <h1>A model that learns to denoise</h1>
  <p class="lede">In ${duration(time.seconds * 1000)} on ${escapeHtml(device.name)}, a video diffusion transformer of
    ${short(parameterCount)} parameters saw ${clips} clips of moving shapes, none of them twice. It began with random
    weights. Its attention is Video Sparse Attention: every tile of ${grid.tile.join('×')} tokens attends to
    ${config.topK!} of ${grid.tileCount} tiles, and learns which.</p>
  <dl class="facts">
    ${fact('Error of noisy clips', times(first!.noisy.error / first!.after.error), 'smaller after one step of the model', true)}
    ${fact('Loss', losses.last.toFixed(3), `${losses.first.toFixed(3)} at first`)}
    ${fact('Training', `${short(time.tokensPerSecond)}/s`, `tokens; ${rows.length} steps of ${duration(time.msPerStep)}`)}
    ${fact('Attention', times(attentionFlops.dense / attentionFlops.vsa), 'fewer operations than dense')}
  </dl>
</header>`;
}

function denoising(report: TrainingReport): string {
  return `<section aria-labelledby="denoising-title">
  <h2 id="denoising-title">Clips that it has never seen</h2>
  <p class="lead">At time 0 there is the clip, at time 1 nothing but noise, between them a mixture. The model says in which
    direction the noise lies. Taking that much of it away in a single step gives the pictures called trained. Untrained, its
    last layer is zero: it changes nothing.</p>
  ${denoisingTable(report)}
</section>`;
}

function samples(report: TrainingReport): string {
  return `<section aria-labelledby="samples-title">
  <h2 id="samples-title">Clips drawn from noise</h2>
  <p class="lead">Noise alone, carried to time 0 in many small steps. No clip is behind these: the model makes up background,
    shapes and motion.</p>
  <div class="samples small">${samplePictures(report)}</div>
</section>`;
}

function training(report: TrainingReport): string {
  const { settings, device, grid, config, rows } = report;
  const { video, patch, batch, learningRate, warmup, schedule, seed, sparsity, dtype } = settings;
  const { time, modelFlops } = numbersOf(report);
  const speed = `${flops(time.tflops * 1e12)}/s${time.mfu === null ? '' : `, MFU ${percent(time.mfu)}`}`;
  const lines: [string, string][] = [
    ['Model', `${config.layers} layers, ${config.heads} heads, ${config.width} wide, ${dtype}`],
    ['Clips', `${video.join('×')}, ${batch} a step, in patches of ${patch.join('×')}: ${grid.toString()} tokens each`],
    ['Selection', `${config.topK!} of ${grid.tileCount} tiles, sparsity ${sparsity}`],
    ['Forward of a clip', `${flops(modelFlops.vsa)}; ${flops(modelFlops.dense)} with dense attention`],
    ['Steps', `${rows.length}, median ${duration(time.msPerStep)}, ${speed}`],
    ['Learning rate', `${learningRate}, ${schedule}, ${warmup} steps of warm-up`],
    ['Seed', `${seed}: with as many steps, the same model on the same device`],
    ['Device', `${device.name} (${device.toString()}), Node ${process.versions.node}`],
  ];
  const body = lines
    .map(([name, value]) => `<tr><th scope="row">${name}</th><td class="wide">${escapeHtml(value)}</td></tr>`)
    .join('');
  return `<section aria-labelledby="training-title">
  <h2 id="training-title">Training</h2>
  <div class="columns">
    <div class="card"><h3>Loss</h3><p>Mean squared error of the direction (rectified flow), means of neighbouring steps. A
      step’s own loss depends on the times that it drew.</p>
      ${lossChart([{ name: 'Training', rows: [...rows] }], 'step')}</div>
    <div class="card"><h3>Setup</h3><table><tbody>${body}</tbody></table></div>
  </div>
</section>`;
}

function selection(report: TrainingReport): string {
  const { grid, config, layers } = report;
  const { held, attentionFlops } = numbersOf(report);
  const shown = { layers: [...layers], topK: config.topK!, grid };
  return `<section aria-labelledby="selection-title">
  <h2 id="selection-title">What attention selected</h2>
  <p class="lead">Every query tile keeps ${config.topK!} of ${grid.tileCount} key tiles, those whose pooled keys answer its
    pooled queries best. In the first clip above, half-way to noise, they hold ${percent(held, 0)} of dense attention.
    Attention takes ${flops(attentionFlops.vsa)} a clip instead of ${flops(attentionFlops.dense)}.</p>
  <div class="columns">
    <div class="card"><h3>Dense attention held, by layer</h3><p>Dots are heads, bars their mean.</p>${massBars(shown)}</div>
    <div class="card"><h3>Where selected tiles lie</h3><p>Seen from the query tile, which is outlined: the stronger the colour,
      the more often the tile at that distance is selected.</p><div class="offsets">${selectionMaps(shown)}</div></div>
  </div>
</section>`;
}
