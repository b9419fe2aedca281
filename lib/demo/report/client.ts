/**
 * The report's script, as text: it runs in a browser, not here. Plain ES2020 without dependencies. It reads the page's
 * data, and on every change of head, query tile, frame or mode rewrites attributes of what explorer.ts has drawn.
 */
export const CLIENT_SCRIPT = String.raw`
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const [T] = data.tokens;
  const [Nt, Ny, Nx] = data.tileCounts;
  const perLayer = Ny * Nx;
  const N = Nt * perLayer;
  const K = data.topK;
  const lists = new Uint16Array(bytes(data.lists).buffer);
  const mass = bytes(data.mass);
  const held = Object.fromEntries(Object.entries(data.held).map(([k, v]) => [k, new Float32Array(bytes(v).buffer)]));
  const share = (byte) => (byte / 255) ** 2;
  const percent = (value, digits = 1) => (value * 100).toFixed(digits) + ' %';

  const $ = (id) => document.getElementById(id);
  const explorer = $('explorer');
  const stage = $('stage');
  const layers = [...document.querySelectorAll('.strip li')];
  const pictures = layers.flatMap((layer) => [...layer.querySelectorAll('img')]);
  const stageTiles = layers[0].querySelector('svg').cloneNode(true);
  stage.append(stageTiles);
  document.documentElement.classList.add('scripted');

  const layerOf = (frame) => Math.floor(frame / data.tile[0]);
  const framesOf = (layer) => [layer * data.tile[0], Math.min(T, (layer + 1) * data.tile[0]) - 1];
  const state = { head: data.opening.head, query: data.opening.tile, frame: 0 };
  state.frame = middleFrame(Math.floor(state.query / perLayer));

  function middleFrame(layer) {
    const [first, last] = framesOf(layer);
    return Math.min(last, first + 1);
  }

  /** The row of the current head and query tile: what is selected, and how strong each key tile is. */
  function currentRow() {
    const row = state.head * N + state.query;
    const shares = Float64Array.from(mass.subarray(row * N, (row + 1) * N), share);
    return { row, shares, heaviest: Math.max(...shares), selected: new Set(lists.subarray(row * K, (row + 1) * K)) };
  }

  function paint(rectangles, offset, { shares, heaviest, selected }) {
    rectangles.forEach((rectangle, at) => {
      const tile = offset + at;
      rectangle.setAttribute('data-tile', tile);
      rectangle.setAttribute('class', (selected.has(tile) ? 'on ' : '') + (tile === state.query ? 'query' : ''));
      rectangle.style.setProperty('--m', heaviest > 0 ? Math.sqrt(shares[tile] / heaviest).toFixed(2) : 0);
    });
  }

  function showFrame(row) {
    const { frame } = state;
    const layer = layerOf(frame);
    $('stage-picture').src = pictures[frame].src;
    $('stage-picture').alt = pictures[frame].alt;
    $('frame').value = frame;
    const first = frame === 0 ? 0 : 4 * frame - 3;
    $('frame-label').textContent = 'Latent frame ' + frame + (frame === 0 ? ', video frame 0' : ', video frames ' + first + '–' + 4 * frame);
    layers.forEach((item, at) => {
      item.classList.toggle('current', at === layer);
      const visible = at === layer ? frame : middleFrame(at);
      item.querySelectorAll('img').forEach((img) => { img.hidden = Number(img.dataset.frame) !== visible; });
    });
    paint([...stageTiles.querySelectorAll('rect')], layer * perLayer, row);
  }

  function showSelection(row) {
    layers.forEach((item, layer) => {
      const tiles = [...item.querySelectorAll('rect')];
      paint(tiles, layer * perLayer, row);
      let count = 0;
      let sum = 0;
      let all = 0;
      for (let tile = layer * perLayer; tile < (layer + 1) * perLayer; tile++) {
        all += row.shares[tile];
        if (row.selected.has(tile)) { count++; sum += row.shares[tile]; }
      }
      const dense = explorer.classList.contains('mode-dense');
      item.querySelector('.layer-held').textContent = dense
        ? percent(all, 0) + ' of the mass'
        : count + (count === 1 ? ' tile, ' : ' tiles, ') + percent(sum, 0);
    });
    const [t, y, x] = [Math.floor(state.query / perLayer), Math.floor(state.query / Nx) % Ny, state.query % Nx];
    const head = data.heads[state.head];
    const bar = (name, label) => {
      const value = held[name][row.row];
      return '<div class="meter ' + name + '"><span>' + label + '</span><i><b style="width:' + (value * 100).toFixed(1)
        + '%"></b></i><em>' + percent(value) + '</em></div>';
    };
    $('readout').innerHTML = '<p>Query tile <b>t ' + t + ', y ' + y + ', x ' + x + '</b>. Head ' + state.head + ' '
      + head.description + '.</p><p class="legend">Share of its dense attention held by ' + K + ' tiles</p>'
      + bar('vsa', 'selected') + bar('best', 'best possible') + bar('random', 'random');
  }

  function render(what = 'all') {
    const row = currentRow();
    if (what === 'all') showSelection(row);
    showFrame(row);
  }

  function setQuery(tile, frame) {
    state.query = tile;
    state.frame = frame ?? middleFrame(Math.floor(tile / perLayer));
    render();
  }

  function tileAt(event) {
    const rectangle = event.target.closest('rect');
    return rectangle === null ? undefined : Number(rectangle.dataset.tile);
  }

  stage.addEventListener('click', (event) => {
    const tile = tileAt(event);
    if (tile !== undefined) setQuery(tile, state.frame);
  });
  layers.forEach((layer) => layer.addEventListener('click', (event) => {
    const tile = tileAt(event);
    if (tile !== undefined) setQuery(tile);
  }));
  stage.addEventListener('keydown', (event) => {
    const steps = { ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1], ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0],
      PageUp: [-1, 0, 0], PageDown: [1, 0, 0] };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const at = [Math.floor(state.query / perLayer), Math.floor(state.query / Nx) % Ny, state.query % Nx];
    const [t, y, x] = at.map((value, axis) => Math.min(data.tileCounts[axis] - 1, Math.max(0, value + step[axis])));
    setQuery((t * Ny + y) * Nx + x);
  });
  stageTiles.addEventListener('pointermove', (event) => {
    const tile = tileAt(event);
    if (tile === undefined) return;
    const { shares } = currentRow();
    stage.title = 'Holds ' + percent(shares[tile], 2) + ' of the query tile’s dense attention';
  });
  explorer.querySelectorAll('input[name=head]').forEach((input) => input.addEventListener('change', () => {
    state.head = Number(input.value);
    render();
  }));
  explorer.querySelectorAll('input[name=mode]').forEach((input) => input.addEventListener('change', () => {
    explorer.classList.toggle('mode-dense', input.value === 'dense');
    explorer.classList.toggle('mode-selected', input.value !== 'dense');
    render();
  }));
  explorer.querySelectorAll('button[data-query]').forEach((button) => button.addEventListener('click', () => {
    setQuery(Number(button.dataset.query));
  }));
  $('frame').addEventListener('input', () => {
    state.frame = Number($('frame').value);
    render('frame');
  });

  let timer;
  $('play').addEventListener('click', () => {
    if (timer === undefined) {
      timer = setInterval(() => { state.frame = (state.frame + 1) % T; render('frame'); }, 220);
    } else {
      clearInterval(timer);
      timer = undefined;
    }
    $('play').textContent = timer === undefined ? 'Play' : 'Pause';
    $('play').setAttribute('aria-pressed', String(timer !== undefined));
  });

  // A reload may keep the form's state while the page starts anew.
  explorer.querySelector('input[name=head][value="' + state.head + '"]').checked = true;
  explorer.querySelector('input[name=mode][value=selected]').checked = true;
  render();
})();
`;
