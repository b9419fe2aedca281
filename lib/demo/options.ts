/** The options of the demo of attention: names, defaults, checks. */
import { TileGrid } from '../attention/grid.js';
import { VsaRangeError, show } from '../errors.js';
import { checkOptions } from '../validate.js';
import type { TokenShape } from './cells.js';
import { decimal, flag, oneOf, refuseBoth, text, wholeNumber } from './checks.js';

/** As the command line gives them: text, or values of the right type; undefined is left out. */
export interface DemoOptions {
  /** A video file. Without it and without `tokens`: a built-in synthetic clip. */
  video?: string | undefined;
  /** Patch tokens written by `exportTokens`. */
  tokens?: string | undefined;
  /** 'cpu', 'cuda', 'cuda:N'. Default: the best there is. */
  device?: string | undefined;
  /** Token grid, 'TxYxX'. Default 21x15x26: 81 frames at half the resolution of `full`. */
  grid?: string | undefined;
  /** The grid of Wan2.1 at 480p, 21x30x52. Default false. */
  full?: boolean | undefined;
  /** Share of tiles that a query tile does not attend to, from 0 to 1. Default 0.9. */
  sparsity?: number | string | undefined;
  /** Default 4, one of each kind. */
  heads?: number | string | undefined;
  /** 64, 96 or 128. Default 64. */
  headDim?: number | string | undefined;
  /** Of q, k and v: 'float32', 'bfloat16' or 'float16'. Default 'float32'. */
  dtype?: string | undefined;
  /** Of the projections and the random lists, 0 to 2^32 - 1. Default 1. */
  seed?: number | string | undefined;
  /** The report. Default 'vsa-demo.html'. */
  out?: string | undefined;
  /** Also write the clip's patch tokens to this safetensors file. */
  exportTokens?: string | undefined;
  /** Print one JSON object instead of tables. Default false. */
  json?: boolean | undefined;
}

const DTYPES = ['float32', 'bfloat16', 'float16'] as const;

export type ClipSource =
  | { readonly kind: 'video'; readonly path: string; readonly shape: TokenShape }
  | { readonly kind: 'synthetic'; readonly shape: TokenShape }
  | { readonly kind: 'tokens'; readonly path: string };

/** Checked options. */
export interface DemoSettings {
  readonly source: ClipSource;
  readonly device: string | undefined;
  readonly sparsity: number;
  readonly heads: number;
  readonly headDim: number;
  readonly dtype: (typeof DTYPES)[number];
  readonly seed: number;
  readonly out: string;
  readonly exportTokens: string | undefined;
  readonly json: boolean;
}

export const DEFAULT_GRID = '21x15x26';
export const FULL_GRID = '21x30x52';

/** Every option's name. */
export const DEMO_OPTIONS = [
  ...['video', 'tokens', 'device', 'grid', 'full', 'sparsity', 'heads', 'headDim', 'dtype', 'seed', 'out'],
  ...['exportTokens', 'json'],
] as const satisfies readonly (keyof DemoOptions)[];

/** Most tokens of a clip: dense attention, which the demo measures too, grows with their square. */
const MAX_TOKENS = 131_072;
/** Most numbers of q, of k and of v: 1 GiB of float32 each. */
const MAX_ELEMENTS = 2 ** 28;
/** Most entries of the mass map [H, N, N]: 256 MiB of float32. */
const MAX_MASS = 2 ** 26;

/**
 * Checks the options and fills in the defaults. Nothing is opened.
 * @throws VsaTypeError or VsaRangeError ERR_ARGUMENT, ERR_GRID, ERR_DTYPE or ERR_HEAD_DIM.
 */
export function parseDemoOptions(options: DemoOptions = {}): DemoSettings {
  checkOptions('options', options, DEMO_OPTIONS);
  const heads = wholeNumber('heads', options.heads ?? 4, 1, 64);
  const headDim = oneOf('headDim', Number(options.headDim ?? 64), [64, 96, 128], 'ERR_HEAD_DIM', options.headDim);
  const source = sourceOf(options);
  if (source.kind !== 'tokens') checkSize('grid', source.shape, heads, headDim);
  return {
    source,
    device: text('device', options.device),
    sparsity: decimal('sparsity', options.sparsity ?? 0.9, 0, 1),
    heads,
    headDim,
    dtype: oneOf('dtype', options.dtype ?? 'float32', DTYPES, 'ERR_DTYPE', options.dtype),
    seed: wholeNumber('seed', options.seed ?? 1, 0, 2 ** 32 - 1),
    out: text('out', options.out) ?? 'vsa-demo.html',
    exportTokens: text('exportTokens', options.exportTokens),
    json: flag('json', options.json),
  };
}

function sourceOf(options: DemoOptions): ClipSource {
  const video = text('video', options.video);
  const tokens = text('tokens', options.tokens);
  const grid = text('grid', options.grid);
  const full = flag('full', options.full);
  refuseBoth('video', video, 'tokens', tokens);
  refuseBoth('grid', grid, 'full', full || undefined);
  if (tokens !== undefined) {
    refuseBoth('tokens', tokens, 'grid', grid, 'the file has a grid of its own');
    refuseBoth('tokens', tokens, 'full', full || undefined, 'the file has a grid of its own');
    return { kind: 'tokens', path: tokens };
  }
  const shape = gridShape(grid ?? (full ? FULL_GRID : DEFAULT_GRID));
  return video === undefined ? { kind: 'synthetic', shape } : { kind: 'video', path: video, shape };
}

function gridShape(grid: string): TokenShape {
  try {
    return TileGrid.parse(grid).tokens;
  } catch (cause) {
    const wanted = "three positive whole numbers, as '21x30x52'";
    throw new VsaRangeError({ code: 'ERR_GRID', argument: 'grid', got: show(grid), wanted, cause });
  }
}

/** @throws VsaRangeError ERR_GRID for a grid that is too large to measure dense attention on. */
export function checkSize(argument: string, shape: TokenShape, heads: number, headDim: number): void {
  const grid = new TileGrid({ tokens: shape });
  const { length: L, tileCount: N } = grid;
  const fail = (got: string, wanted: string): never => {
    throw new VsaRangeError({ code: 'ERR_GRID', argument, got: `${grid.toString()} with ${got}`, wanted });
  };
  if (L > MAX_TOKENS) fail(`${L} tokens`, `at most ${MAX_TOKENS}`);
  if (L * heads * headDim > MAX_ELEMENTS) {
    fail(`${heads} heads of ${headDim}`, `at most ${MAX_ELEMENTS} numbers in q: fewer heads or a smaller grid`);
  }
  if (N * N * heads > MAX_MASS) {
    fail(
      `${N} tiles and ${heads} heads`,
      `at most ${MAX_MASS} pairs of tiles in all heads: fewer heads or a smaller grid`,
    );
  }
}
