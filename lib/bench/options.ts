/** The options of `vsa bench`: names, defaults, checks, and the cases that they multiply to. */

import type { Backend } from '../attention/backends.js';
import { chooseBackend } from '../attention/backends.js';
import { HEAD_DIMS } from '../attention/checks.js';
import { type Order, TileGrid } from '../attention/grid.js';
import { topK } from '../attention/schedules.js';
import { type Device, device as deviceOf, type DeviceString } from '../device/device.js';
import { type ErrorCode, VsaRangeError, VsaTypeError } from '../errors.js';
import {
  backendOf,
  type BenchCase,
  type BenchDType,
  type Cache,
  caseName,
  type CoarseMode,
  DATA_KINDS,
  type DataKind,
  type Direction,
  DIRECTIONS,
  directionsOf,
  normalized,
  type Op,
  OPS,
} from './cases.js';
import { LISTS_KINDS, type ListsKind } from './lists.js';
import { choices, combinations, numbers, words } from './parse.js';
import { DEFAULT_PRESET, type Preset, PRESETS } from './presets.js';

/** As the command line gives them: text, lists separated by commas; undefined is left out. */
export interface BenchOptions {
  /** Operations; default: those of the preset. */
  op?: string | undefined;
  preset?: string | undefined;
  /** Default 'forward,backward'. */
  direction?: string | undefined;
  device?: string | undefined;
  backend?: string | undefined;
  batch?: string | undefined;
  heads?: string | undefined;
  kvHeads?: string | undefined;
  grid?: string | undefined;
  /** Instead of a grid: a plain sequence. */
  length?: string | undefined;
  tile?: string | undefined;
  prefix?: string | undefined;
  headDim?: string | undefined;
  dtype?: string | undefined;
  topK?: string | undefined;
  sparsity?: string | undefined;
  lists?: string | undefined;
  listsFile?: string | undefined;
  order?: string | undefined;
  coarse?: string | undefined;
  /** 'randn' or 'smooth'; default 'randn'. */
  data?: string | undefined;
  /** 'on', 'off' or both; default 'off'. */
  fineGate?: string | undefined;
  cache?: string | undefined;
  /** 'on', 'off' or both. */
  graph?: string | undefined;
  seed?: string | number | undefined;
  /** Of every row, instead of what 1 s takes. */
  samples?: string | number | undefined;
  out?: string | undefined;
  html?: string | undefined;
  compare?: string | undefined;
  /** Files of rows to show; nothing is measured. */
  from?: string | readonly string[] | undefined;
  json?: boolean | undefined;
}

/** Checked options. */
export interface BenchSettings {
  readonly device: Device;
  readonly cases: readonly BenchCase[];
  readonly directions: readonly Direction[];
  readonly caches: readonly Cache[];
  /** Whether the operation is called, or replayed as a graph. */
  readonly graphs: readonly boolean[];
  readonly samples: number | undefined;
  readonly out: string | undefined;
  readonly html: string | undefined;
  readonly compare: string | undefined;
  readonly json: boolean;
}

const MOST = 2 ** 31 - 1;
const COUNT = { least: 1, most: MOST, whole: true };
/** Most cases of one run: beyond, something was mistyped. */
const MAX_CASES = 2000;

/** @throws VsaTypeError or VsaRangeError for what no run could take; VsaError ERR_DEVICE, ERR_BACKEND. */
export function parseBenchOptions(options: BenchOptions): BenchSettings {
  const device = deviceOf(options.device as DeviceString | undefined);
  const backends = choices('backend', options.backend ?? 'auto', ['auto', 'cpu', 'cuda', 'sm90']);
  for (const backend of backends) chooseBackend(device, backend);
  const directions = choices('direction', options.direction ?? 'forward,backward', DIRECTIONS);
  const cases = unique(presetsOf(options, device).flatMap((preset) => casesOf(preset, backends, options)));
  if (cases.length > MAX_CASES) {
    throw range('ERR_ARGUMENT', 'options', `${cases.length} cases`, `at most ${MAX_CASES} in one run`);
  }
  const measured = cases.filter(({ op }) => directionsOf(op).some((one) => directions.includes(one)));
  if (measured.length === 0) {
    throw range('ERR_ARGUMENT', 'direction', `'${directions.join(',')}'`, 'forward: a selection has no gradient');
  }
  checkServed(measured, device);
  const graphs = choices('graph', options.graph ?? (device.type === 'cuda' ? 'off,on' : 'off'), ['off', 'on']);
  return {
    device,
    cases: measured,
    directions,
    caches: choices('cache', options.cache ?? 'warm', ['warm', 'cold']),
    graphs: graphs.map((graph) => graph === 'on'),
    samples: options.samples === undefined ? undefined : one('samples', options.samples, 1, 100_000),
    out: text('out', options.out),
    html: text('html', options.html),
    compare: text('compare', options.compare),
    json: options.json === true,
  };
}

/**
 * That there is something to measure: rows whose backend does not serve them say so.
 * @internal
 */
export function checkServed(cases: readonly BenchCase[], device: Device): void {
  let problem: unknown;
  for (const each of cases) {
    try {
      backendOf(each, device);
      return;
    } catch (error) {
      problem ??= error;
    }
  }
  throw problem;
}

/** The named presets; without one a shape of its own on the default's head count, or the default itself. */
function presetsOf(options: BenchOptions, device: Device): Preset[] {
  if (options.preset === undefined) return [PRESETS.get(DEFAULT_PRESET[device.type])!];
  const known = [...PRESETS.keys(), 'all'];
  const names = choices('preset', options.preset, known);
  return [...new Set(names.includes('all') ? PRESETS.keys() : names)].map((name) => PRESETS.get(name)!);
}

function casesOf(preset: Preset, backends: readonly ('auto' | Backend)[], options: BenchOptions): BenchCase[] {
  const named = options.op === undefined ? undefined : choices('op', options.op, [...OPS, 'all']);
  const heads = options.heads === undefined ? [preset.H] : numbers('heads', options.heads, COUNT);
  const kvHeads: (number | undefined)[] =
    options.kvHeads === undefined ? [undefined] : numbers('kvHeads', options.kvHeads, COUNT);
  const seed = one('seed', options.seed ?? 1, 0, 2 ** 32 - 1);
  const combined = combinations<{
    grid: TileGrid;
    op: Op;
    backend: 'auto' | Backend;
    B: number;
    H: number;
    Hkv: number | undefined;
    D: number;
    dtype: BenchDType;
    lists: ListsKind;
    order: Order;
    coarse: CoarseMode;
    fineGate: 'off' | 'on';
    data: DataKind;
    density: Density;
  }>({
    grid: gridsOf(preset, options),
    B: options.batch === undefined ? [1] : numbers('batch', options.batch, COUNT),
    H: heads,
    Hkv: kvHeads,
    D: headDims(preset, options),
    dtype: choices('dtype', options.dtype ?? 'bfloat16', ['float32', 'bfloat16', 'float16'], 'ERR_DTYPE'),
    density: densities(preset, options),
    op: named === undefined ? preset.ops : named.includes('all') ? OPS : (named as Op[]),
    lists: listsOf(preset, options),
    order: choices('order', options.order ?? 'grid', ['grid', 'tiled']),
    coarse: choices('coarse', options.coarse ?? 'gate', ['skip', 'add', 'gate']),
    fineGate: choices('fineGate', options.fineGate ?? 'off', ['off', 'on']),
    data: choices('data', options.data ?? 'randn', DATA_KINDS),
    backend: backends,
  });
  return combined.map(({ density, Hkv, fineGate: gate, ...rest }) => {
    const { H, grid } = rest;
    if (Hkv !== undefined && H % Hkv !== 0) {
      throw range('ERR_SHAPE', 'kvHeads', `${Hkv} for ${H} heads`, 'a number that divides heads');
    }
    const { listsFile } = options;
    const fineGate = gate === 'on';
    return normalized({ ...rest, ...kept(density, grid), Hkv: Hkv ?? H, fineGate, listsFile, seed });
  });
}

/** How many tiles a query tile keeps. */
type Density = { readonly K: number | 'all' } | { readonly sparsity: number };

function densities(preset: Preset, options: BenchOptions): Density[] {
  if (options.topK !== undefined && options.sparsity !== undefined) {
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: 'sparsity',
      got: "both 'topK' and 'sparsity'",
      wanted: 'one of them: each says how many tiles are kept',
    });
  }
  if (options.topK !== undefined) return numbers('topK', options.topK, COUNT).map((K) => ({ K }));
  if (options.sparsity !== undefined) {
    const values = numbers('sparsity', options.sparsity, { least: 0, most: 1, whole: false });
    return values.map((sparsity) => ({ sparsity }));
  }
  // The preset's K is meant for its own grid.
  const ownGrid = options.grid === undefined && options.length === undefined;
  return [ownGrid || preset.K === 'all' ? { K: preset.K } : { sparsity: 0.9 }];
}

function kept(density: Density, grid: TileGrid): { K: number; sparsity: number } {
  const N = grid.tileCount;
  if ('sparsity' in density) return { K: topK(grid, density), sparsity: density.sparsity };
  const K = density.K === 'all' ? N : density.K;
  if (K > N) throw range('ERR_TOP_K', 'topK', `K = ${K}`, `1 to ${N}, the video tiles of grid ${grid.toString()}`);
  return { K, sparsity: Number((1 - K / N).toFixed(4)) };
}

function gridsOf(preset: Preset, options: BenchOptions): TileGrid[] {
  const prefixes =
    options.prefix === undefined ? [0] : numbers('prefix', options.prefix, { least: 0, most: MOST, whole: true });
  if (options.length !== undefined) {
    for (const other of ['grid', 'tile'] as const) {
      if (options[other] === undefined) continue;
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: other,
        got: `both 'length' and '${other}'`,
        wanted: 'one of them: a length stands for a plain sequence in tiles of 1x1x64',
      });
    }
    const lengths = numbers('length', options.length, COUNT);
    return lengths.flatMap((length) =>
      prefixes.map((prefix) => new TileGrid({ tokens: [1, 1, length], tile: [1, 1, 64], prefix })),
    );
  }
  const tiles = words('tile', options.tile ?? '4x4x4');
  return words('grid', options.grid ?? preset.grid).flatMap((tokens) =>
    tiles.flatMap((tile) => prefixes.map((prefix) => new TileGrid({ tokens, tile, prefix }))),
  );
}

function headDims(preset: Preset, options: BenchOptions): number[] {
  const dims = options.headDim === undefined ? [preset.D] : numbers('headDim', options.headDim, COUNT);
  for (const D of dims) {
    if (!HEAD_DIMS.includes(D)) throw range('ERR_HEAD_DIM', 'headDim', String(D), HEAD_DIMS.join(', '));
  }
  return dims;
}

function listsOf(preset: Preset, options: BenchOptions): ListsKind[] {
  const { listsFile } = options;
  const given = options.lists ?? (listsFile === undefined ? undefined : 'file');
  const kinds = given === undefined ? [...preset.lists] : choices('lists', given, LISTS_KINDS.slice(0, -1));
  if (kinds.includes('file') === (listsFile !== undefined)) return kinds;
  throw new VsaTypeError({
    code: 'ERR_ARGUMENT',
    argument: 'listsFile',
    got: listsFile === undefined ? "lists 'file' and no listsFile" : `a listsFile beside lists '${kinds.join(',')}'`,
    wanted: "both or neither: 'file' takes its lists from there",
  });
}

/** Cases that came to the same are measured once. */
function unique(cases: readonly BenchCase[]): BenchCase[] {
  const key = (one: BenchCase) => `${caseName(one)} ${one.backend} ${one.sparsity ?? ''}`;
  return [...new Map(cases.map((one) => [key(one), one])).values()];
}

function one(argument: string, value: string | number, least: number, most: number): number {
  const values = numbers(argument, value, { least, most, whole: true });
  if (values.length === 1) return values[0]!;
  throw range('ERR_ARGUMENT', argument, `'${value}'`, 'one number');
}

function text(argument: string, value: string | undefined): string | undefined {
  if (value === undefined || (value !== '' && !value.includes('\0'))) return value;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: "''", wanted: "a file's name" });
}

function range(code: ErrorCode, argument: string, got: string, wanted: string): VsaRangeError {
  return new VsaRangeError({ code, argument, got, wanted });
}
