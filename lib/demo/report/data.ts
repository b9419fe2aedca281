/** What the report shows, taken from a measurement: presets, distances of selected tiles, arrays for the page. */
import type { TileGrid } from '../../attention/grid.js';
import type { Device } from '../../device/device.js';
import type { Clip } from '../clip.js';
import { contentOf, headKind } from '../projection.js';
import { tilesOfTokens } from '../../attention/mass.js';
import { CELL_FRAMES, TOKEN_FEATURES, quadrantFeatures } from '../cells.js';
import type { Measurement } from '../measure.js';
import type { DemoSettings } from '../options.js';
import { mean } from '../../report/html.js';

export interface ReportInput {
  clip: Clip;
  grid: TileGrid;
  topK: number;
  settings: DemoSettings;
  device: Device;
  measurement: Measurement;
}

/** Bytes of the mass map in the page; heads beyond are left out of the explorer. */
const MAX_MASS_BYTES = 4_000_000;

/** Heads that the explorer shows: all, but for very many or very large ones. */
export function shownHeads({ settings, grid }: ReportInput): number {
  return Math.max(1, Math.min(settings.heads, Math.floor(MAX_MASS_BYTES / grid.tileCount ** 2)));
}

/** A query tile worth a look. */
export interface Preset {
  label: string;
  tile: number;
}

/** Query tiles that show something: found in the clip and in the measurement, the best and the worst alike. */
export function presets({ clip, grid, measurement }: ReportInput): Preset[] {
  const N = grid.tileCount;
  const tiles = tilesOfTokens(grid);
  const motion = new Float64Array(N);
  const contrast = new Float64Array(N);
  const content = contentOf(clip.tokens, grid.length);
  for (let token = 0; token < grid.length; token++) {
    const tile = tiles[token]!;
    let squares = 0;
    for (let f = 0; f < TOKEN_FEATURES; f++) squares += content[token * TOKEN_FEATURES + f]! ** 2;
    contrast[tile] = contrast[tile]! + Math.sqrt(squares) / grid.valid(tile);
    for (let quadrant = 0; quadrant < 16; quadrant++) {
      const { change } = quadrantFeatures(quadrant >> 2, quadrant & 3);
      motion[tile] = motion[tile]! + clip.tokens[token * TOKEN_FEATURES + change]! / grid.valid(tile);
    }
  }
  const heads = measurement.vsa.held.length / N;
  const held = Float64Array.from({ length: N }, (_, tile) =>
    mean(Array.from({ length: heads }, (_, head) => measurement.vsa.held[head * N + tile]!)),
  );
  const [Nt, Ny, Nx] = grid.tileCounts;
  const centre = (Math.floor(Nt / 2) * Ny + Math.floor(Ny / 2)) * Nx + Math.floor(Nx / 2);
  // Tiles cut short by the clip's end or edge are no good example.
  const whole = (score: Float64Array) => score.map((value, tile) => (grid.valid(tile) < 48 ? -Infinity : value));
  const candidates: Preset[] = [
    { label: 'Most unusual', tile: argMax(whole(contrast)) },
    { label: 'Most motion', tile: argMax(whole(motion)) },
    { label: 'Centre', tile: centre },
    { label: 'Best held', tile: argMax(whole(held)) },
    { label: 'Worst held', tile: argMax(whole(held.map((value) => -value))) },
  ];
  return candidates.filter(({ tile }, at) => candidates.findIndex((other) => other.tile === tile) === at);
}

function argMax(values: Float64Array): number {
  return values.reduce((best, value, at) => (value > values[best]! ? at : best), 0);
}

/** Head and query tile that the page opens with: the last head of the first four, which mixes content and place. */
export function openingView(input: ReportInput): { head: number; tile: number } {
  return { head: Math.min(3, shownHeads(input) - 1), tile: presets(input)[0]!.tile };
}

/** The query tile's selected key tiles under a head, ascending. */
export function selectedTiles({ grid, topK, measurement }: ReportInput, head: number, tile: number): Int32Array {
  const row = head * grid.tileCount + tile;
  return measurement.lists.subarray(row * topK, (row + 1) * topK);
}

/** Dense attention's mass from the query tile to every key tile, [N]. */
export function massRow({ grid, measurement }: ReportInput, head: number, tile: number): Float32Array {
  const N = grid.tileCount;
  const row = head * N + tile;
  return measurement.mass.subarray(row * N, (row + 1) * N);
}

/** First and last video frame, 0-based, behind latent frames `from` to `to`. */
export function videoFrames(from: number, to: number): [first: number, last: number] {
  return [from === 0 ? 0 : CELL_FRAMES * (from - 1) + 1, CELL_FRAMES * to];
}

/** What the page's script reads. Arrays are base64; `mass` holds round(255 sqrt(share)). */
export interface PageData {
  tokens: readonly number[];
  tileCounts: readonly number[];
  tile: readonly number[];
  topK: number;
  heads: { name: string; description: string }[];
  /** uint16 [heads, N, K] */
  lists: string;
  /** uint8 [heads, N, N] */
  mass: string;
  /** float32 [heads, N] each. */
  held: { vsa: string; random: string; best: string };
  opening: { head: number; tile: number };
}

export function pageData(input: ReportInput): PageData {
  const { grid, topK, measurement } = input;
  const N = grid.tileCount;
  const shown = shownHeads(input);
  const held = (values: Float32Array) => base64(values.slice(0, shown * N));
  return {
    tokens: grid.tokens,
    tileCounts: grid.tileCounts,
    tile: grid.tile,
    topK,
    heads: Array.from({ length: shown }, (_, head) => {
      const { name, description } = headKind(head);
      return { name, description };
    }),
    lists: base64(Uint16Array.from(measurement.lists.subarray(0, shown * N * topK))),
    mass: base64(Uint8Array.from(measurement.mass.subarray(0, shown * N * N), (share) => encodeShare(share))),
    held: {
      vsa: held(measurement.vsa.held),
      random: held(measurement.random.held),
      best: held(measurement.best.held),
    },
    opening: openingView(input),
  };
}

/** A share of 0..1 in a byte; the square root keeps small shares apart. */
export function encodeShare(share: number): number {
  return Math.round(255 * Math.sqrt(Math.min(1, Math.max(0, share))));
}

function base64(values: Uint8Array | Uint16Array | Float32Array): string {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64');
}
