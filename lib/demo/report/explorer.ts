/**
 * The picture of the report: the clip's latent frames with the tile grid over them, and which tiles a query tile
 * selected. What is written here stands by itself; the script in client.ts only changes attributes of it.
 */
import { tilePlace } from '../../attention/offsets.js';
import { headKind } from '../projection.js';
import { encodePng } from '../pictures.js';
import { massRow, openingView, presets, selectedTiles, shownHeads, videoFrames } from './data.js';
import type { ReportInput } from './data.js';
import { escapeHtml, percent } from '../../report/html.js';

/** Part of a token that stays free around a tile's rectangle: the grid's lines. */
const GAP = 0.04;

export function explorer(input: ReportInput): string {
  const { grid, topK, measurement, settings } = input;
  const { head, tile } = openingView(input);
  const [T, Y, X] = grid.tokens;
  const [Nt] = grid.tileCounts;
  const shown = shownHeads(input);
  const place = tilePlace(grid, tile);
  const heads = Array.from({ length: shown }, (_, h) => {
    const label = `${h} · ${headKind(h).name}`;
    return radio('head', String(h), label, h === head);
  }).join('');
  const rest =
    shown < settings.heads ? `<p class="note">Heads 0 to ${shown - 1} of ${settings.heads} are shown.</p>` : '';
  const buttons = presets(input)
    .map((preset) => `<button type="button" data-query="${preset.tile}">${escapeHtml(preset.label)}</button>`)
    .join('');
  const held = measurement.vsa.held[head * grid.tileCount + tile]!;
  return `
<section id="explorer" class="mode-selected" aria-labelledby="explorer-title">
  <h2 id="explorer-title">Where does a tile look?</h2>
  <p class="lead">The <b class="query-word">outlined</b> tile is the query. The <b class="selected-word">bright</b> tiles are
    the ${topK} of ${grid.tileCount} that it selected, the warmer the more of its dense attention they hold; the rest of the
    clip is never read.<span class="script"> Click any tile to make it the query, or use the arrow keys.</span></p>
  <div class="stage-grid script">
    <div>
    <div id="stage" class="frame" tabindex="0" role="group" style="aspect-ratio:${X}/${Y}"
      aria-label="Latent frame with its tiles. Arrow keys move the query tile, Page Up and Page Down move it in time.">
      <img alt="" id="stage-picture">
    </div>
    <div class="time">
      <button type="button" id="play" aria-pressed="false">Play</button>
      <input type="range" id="frame" min="0" max="${T - 1}" value="${place[0] * grid.tile[0]}" step="1"
        aria-label="Latent frame">
      <output id="frame-label" for="frame"></output>
    </div>
    </div>
    <div class="panel">
      <fieldset><legend>Head</legend><div class="pills">${heads}</div></fieldset>${rest}
      <fieldset><legend>Show</legend><div class="pills">
        ${radio('mode', 'selected', 'Selected tiles', true)}${radio('mode', 'dense', 'Dense attention', false)}
      </div><p class="note dense-note">The brighter a tile, the more of the query’s dense attention falls on it. Framed: the
        selected ones.</p></fieldset>
      <div role="group" aria-label="Query tiles worth a look"><span class="legend">Query tile</span>
        <div class="pills presets">${buttons}</div></div>
      <div id="readout" aria-live="polite"></div>
    </div>
  </div>
  <p class="note static">This still picture shows head ${head} (${headKind(head).name}) and the query tile at
    t ${place[0]}, y ${place[1]}, x ${place[2]}: its ${topK} selected tiles hold ${percent(held)} of its dense attention. With
    JavaScript the picture is interactive.</p>
  <ol class="strip" aria-label="All tile layers of the clip, in time">
    ${Array.from({ length: Nt }, (_, layer) => stripLayer(input, layer)).join('')}
  </ol>
</section>`;
}

function radio(name: string, value: string, label: string, checked: boolean): string {
  const state = checked ? ' checked' : '';
  return `<label><input type="radio" name="${name}" value="${value}"${state}><span>${escapeHtml(label)}</span></label>`;
}

/** One layer of tiles: up to four latent frames, of which one is seen at a time, under the layer's tiles. */
function stripLayer(input: ReportInput, layer: number): string {
  const { clip, grid } = input;
  const { head, tile } = openingView(input);
  const [T, Y, X] = grid.tokens;
  const [ct] = grid.tile;
  const [, Ny, Nx] = grid.tileCounts;
  const first = layer * ct;
  const last = Math.min(T, first + ct) - 1;
  const visible = Math.min(last, first + 1);
  const [from, to] = videoFrames(first, last);
  const pictures = clip.pictures
    .slice(first, last + 1)
    .map((picture, at) => {
      const data = encodePng(picture).toString('base64');
      const hidden = first + at === visible ? '' : ' hidden';
      const alt = `Latent frame ${first + at} of ${escapeHtml(clip.sourceName)}`;
      return `<img src="data:image/png;base64,${data}" alt="${alt}" data-frame="${first + at}"${hidden}>`;
    })
    .join('');
  const selected = new Set(selectedTiles(input, head, tile));
  const mass = massRow(input, head, tile);
  const heaviest = Math.max(...mass);
  let count = 0;
  let held = 0;
  const rectangles = Array.from({ length: Ny * Nx }, (_, at) => {
    const index = layer * Ny * Nx + at;
    const [, y, x] = tilePlace(grid, index);
    const isSelected = selected.has(index);
    if (isSelected) {
      count++;
      held += mass[index]!;
    }
    const classes = [isSelected ? 'on' : '', index === tile ? 'query' : ''].filter((name) => name !== '').join(' ');
    const strength = heaviest > 0 ? Math.sqrt(mass[index]! / heaviest).toFixed(2) : '0';
    const [left, top] = [x * grid.tile[2], y * grid.tile[1]];
    const width = Math.min(grid.tile[2], X - left) - 2 * GAP;
    const height = Math.min(grid.tile[1], Y - top) - 2 * GAP;
    return (
      `<rect data-tile="${index}" x="${(left + GAP).toFixed(2)}" y="${(top + GAP).toFixed(2)}" ` +
      `width="${width.toFixed(2)}" height="${height.toFixed(2)}" class="${classes}" style="--m:${strength}"/>`
    );
  }).join('');
  return `<li data-layer="${layer}"><figure>
    <div class="frame" style="aspect-ratio:${X}/${Y}">${pictures}
      <svg class="tiles" viewBox="0 0 ${X} ${Y}" preserveAspectRatio="none" aria-hidden="true">${rectangles}</svg></div>
    <figcaption><b>${from === to ? `Frame ${from}` : `Frames ${from}–${to}`}</b>
      <span class="layer-held">${count} ${count === 1 ? 'tile' : 'tiles'}, ${percent(held, 0)}</span></figcaption>
  </figure></li>`;
}
