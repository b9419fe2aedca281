/** What a VideoDiT is: its options, checked and completed. */

import { HEAD_DIMS } from '../attention/checks.js';
import { TileGrid, type Triple } from '../attention/grid.js';
import { topK as topKOf } from '../attention/schedules.js';
import { checkRule } from '../attention/selection.js';
import type { Device, DeviceString } from '../device/device.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { checkDType, type DType, FLOAT_DTYPES } from '../tensor/dtype.js';
import { checkBoolean, checkChoice, checkInteger, checkOptions } from '../validate.js';

export interface VideoDiTOptions {
  /** Token grid `[T, Y, X]` after patchify, or `'8x16x16'`. */
  tokens: Triple | string;
  /** Channels of a token, in and out. */
  channels: number;
  /** Channels inside: heads times a head dim of 64, 96 or 128. */
  width: number;
  heads: number;
  /** Number of blocks. */
  layers: number;
  /** Hidden channels of the feed-forward. Default: 4 * width. */
  ffn?: number;
  /** Cross attention to a condition (text): its number of tokens and their channels. Default: none. */
  context?: { tokens: number; width: number };
  /** Self attention over every token, or video sparse attention. */
  attention: 'full' | 'vsa';
  /** K: key tiles that each query tile keeps. VSA wants this or `sparsity`. */
  topK?: number;
  /** Share of key tiles left out, 0 to 1. */
  sparsity?: number;
  /** VSA: add the coarse output times a learned gate. Default true. */
  coarseGate?: boolean;
  /** VSA: multiply the fine output by a learned gate, as the paper does from scratch. Default false. */
  fineGate?: boolean;
  /** Of activations; parameters, the time path and modulation are float32. Default 'float32'. */
  dtype?: DType;
  /** Every parameter begins at values of this seed and its name. Default 0. */
  seed?: number | bigint;
  /** Default: the best there is. */
  device?: Device | DeviceString;
  /** Keep the inputs of blocks only, and compute their insides again in the backward. Default false. */
  checkpointing?: boolean;
}

/** The architecture, complete and plain, as a checkpoint may carry it: `new VideoDiT(config)` is the same again. */
export interface VideoDiTConfig {
  readonly tokens: Triple;
  readonly channels: number;
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  readonly ffn: number;
  readonly context?: { readonly tokens: number; readonly width: number };
  readonly attention: 'full' | 'vsa';
  /** VSA only, as the two gates: what the model was made with. */
  readonly topK?: number;
  readonly coarseGate?: boolean;
  readonly fineGate?: boolean;
  readonly dtype: DType;
  readonly checkpointing: boolean;
}

const OPTIONS = [
  ...['tokens', 'channels', 'width', 'heads', 'layers', 'ffn', 'context', 'attention', 'topK', 'sparsity'],
  ...['coarseGate', 'fineGate', 'dtype', 'seed', 'device', 'checkpointing'],
];

const LARGEST = 2 ** 24;

function checkWidth(width: number, heads: number): void {
  if (HEAD_DIMS.includes(width / heads)) return;
  throw new VsaRangeError({
    code: 'ERR_HEAD_DIM',
    argument: 'width',
    got: `${String(width)} in ${String(heads)} heads, ${String(width / heads)} each`,
    wanted: `a head dim of ${HEAD_DIMS.join(', ')}`,
  });
}

function checkContext(context: unknown): { tokens: number; width: number } {
  checkOptions('context', context, ['tokens', 'width']);
  const { tokens, width } = context as { tokens?: unknown; width?: unknown };
  return {
    tokens: checkInteger('context.tokens', tokens, 1, LARGEST),
    width: checkInteger('context.width', width, 1, LARGEST),
  };
}

/** K, from itself or from a sparsity. */
function checkSparsity({ topK, sparsity }: VideoDiTOptions, grid: TileGrid): number {
  if ((topK === undefined) === (sparsity === undefined)) {
    const got = topK === undefined ? 'neither topK nor sparsity' : `${show(topK)} beside a sparsity`;
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'topK', got, wanted: "one of the two with 'vsa'" });
  }
  if (sparsity !== undefined) return topKOf(grid, { sparsity });
  return checkTopK(topK, grid);
}

/** @internal */
export function checkTopK(topK: unknown, grid: TileGrid): number {
  return checkRule({ topK }, grid, grid).topK;
}

/** @internal The options of a model, checked and completed. */
export function checkConfig(options: VideoDiTOptions): VideoDiTConfig {
  checkOptions('options', options, OPTIONS);
  const grid = new TileGrid({ tokens: options.tokens });
  const channels = checkInteger('channels', options.channels, 1, LARGEST);
  const width = checkInteger('width', options.width, 1, LARGEST);
  const heads = checkInteger('heads', options.heads, 1, LARGEST);
  checkWidth(width, heads);
  const layers = checkInteger('layers', options.layers, 1, LARGEST);
  const ffn = checkInteger('ffn', options.ffn ?? 4 * width, 1, LARGEST);
  const context = options.context === undefined ? undefined : checkContext(options.context);
  const attention = checkChoice('attention', options.attention, ['full', 'vsa']);
  const dtype = checkDType('dtype', options.dtype ?? 'float32', FLOAT_DTYPES);
  const checkpointing = checkBoolean('checkpointing', options.checkpointing ?? false);
  const common = { tokens: grid.tokens, channels, width, heads, layers, ffn, dtype, checkpointing };
  const shape = { ...common, ...(context !== undefined && { context }) };
  if (attention === 'full') {
    for (const name of ['topK', 'sparsity', 'coarseGate', 'fineGate'] as const) {
      if (options[name] === undefined) continue;
      const got = `${show(options[name])} with attention 'full'`;
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: name, got, wanted: "attention: 'vsa'" });
    }
    return Object.freeze({ ...shape, attention });
  }
  const topK = checkSparsity(options, grid);
  const coarseGate = checkBoolean('coarseGate', options.coarseGate ?? true);
  const fineGate = checkBoolean('fineGate', options.fineGate ?? false);
  return Object.freeze({ ...shape, attention, topK, coarseGate, fineGate });
}
