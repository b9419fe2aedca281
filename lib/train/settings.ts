/** The settings of a training run: names, defaults, checks. They are kept beside the run, and resuming takes them. */

import { TileGrid, type Triple } from '../attention/grid.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { checkBoolean, checkChoice, checkInteger, checkNumber, checkOptions } from '../validate.js';

export interface TrainOptions {
  /** Settings to start from, overridden by those given beside it. Default 'tiny'. */
  preset?: PresetName;
  /** 'shapes': the built-in generator; else a folder of video files. Default 'shapes'. */
  data?: string;
  /** Of a clip: frames, height, width in pixels, multiples of the patch. */
  video?: Triple;
  /** Pixels of a token: frames, height, width. */
  patch?: Triple;
  /** Model width, a multiple of heads. */
  width?: number;
  heads?: number;
  layers?: number;
  /** Width of the feed-forward network. Default 4 * width. */
  ffn?: number;
  attention?: 'full' | 'vsa';
  /** Share of key tiles left out, 0 to 1; of 'vsa' only. */
  sparsity?: number;
  /** Of 'vsa' only. */
  fineGate?: boolean;
  /** Of activations: 'float32', 'bfloat16' or 'float16'. */
  dtype?: 'float32' | 'bfloat16' | 'float16';
  /** Recompute blocks in the backward instead of keeping their activations. */
  checkpointing?: boolean;
  /** Clips a step. */
  batch?: number;
  steps?: number;
  /** The peak of the schedule. */
  learningRate?: number;
  /** Steps of linear warm-up. Default: the preset's, but no more than a fifth of the steps. */
  warmup?: number;
  schedule?: 'constant' | 'cosine';
  weightDecay?: number;
  /** Largest norm of the gradient; 0: not clipped. */
  clip?: number;
  /** Decay of the moving average of the weights, which samples are drawn with; 0: none. */
  ema?: number;
  /** Of weights, data, noise and times, 0 to 2^32 - 1. */
  seed?: number;
  /** Steps from one checkpoint to the next; the last step always has one. */
  checkpointEvery?: number;
  /** A checkpoint of a dense model to make sparse: gates start at zero, K at all tiles (VSA's recipe for finetuning). */
  adapt?: string;
  /** Of `adapt`: steps between two increases of the sparsity. */
  adaptInterval?: number;
  /** Of `adapt`: sparsity added by each. */
  adaptRate?: number;
}

/** Checked settings, every one there. */
export type TrainSettings = Required<Omit<TrainOptions, 'preset' | 'adapt'>> & { readonly adapt: string | null };

const BASE: TrainSettings = {
  data: 'shapes',
  video: [8, 32, 32],
  patch: [1, 4, 4], // of 8x8, 192 numbers a token would have to pass a width of 128
  width: 128,
  heads: 2,
  layers: 4,
  ffn: 0,
  attention: 'vsa',
  sparsity: 0.5,
  fineGate: true,
  dtype: 'float32',
  checkpointing: false,
  batch: 1,
  steps: 1500,
  learningRate: 2e-3,
  warmup: 40,
  schedule: 'cosine',
  weightDecay: 0.01,
  clip: 1,
  ema: 0.995,
  seed: 1,
  checkpointEvery: 100,
  adapt: null,
  adaptInterval: 50,
  adaptRate: 0.03,
};

/** Settings by name. */
export const PRESETS = {
  /** Moving shapes on a CPU, two minutes on two cores. */
  tiny: BASE,
  /** 120M parameters at 16,384 tokens: the model of the paper's scaling study (arXiv 2505.13389). */
  'dit-120m': {
    ...BASE,
    ...{ video: [16, 128, 128], patch: [1, 4, 4], width: 768, heads: 12, layers: 12, ffn: 3072, sparsity: 0.875 },
    ...{ dtype: 'bfloat16', steps: 4000, learningRate: 6e-4, warmup: 100, schedule: 'constant', ema: 0.999 },
    checkpointEvery: 1000,
  },
} as const satisfies Record<string, TrainSettings>;
export type PresetName = keyof typeof PRESETS;

export const TRAIN_OPTIONS = ['preset', ...Object.keys(BASE)] as readonly (keyof TrainOptions)[];

function checkTriple(argument: string, value: unknown): Triple {
  const valid =
    Array.isArray(value) && value.length === 3 && value.every((n) => Number.isSafeInteger(n) && n >= 1 && n <= 65536);
  if (valid) return [...(value as unknown as Triple)];
  const wanted = 'three whole numbers of at least 1: frames, height, width';
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted });
}

function checkRange(argument: string, value: unknown, least: number, most: number): number {
  const number = checkNumber(argument, value);
  if (number >= least && number <= most) return number;
  const wanted = `a number from ${String(least)} to ${String(most)}`;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted });
}

function checkText(argument: string, value: unknown): string {
  if (typeof value === 'string' && value !== '' && !value.includes('\0')) return value;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a text that is not empty' });
}

/** Tokens of a clip: its pixels over the patch. */
export function tokenGrid({ video, patch }: Pick<TrainSettings, 'video' | 'patch'>): TileGrid {
  const tokens = video.map((pixels, dim) => pixels / patch[dim]!);
  if (!tokens.every(Number.isInteger)) {
    const [got, wanted] = [show(video), `multiples of the patch ${show(patch)}`];
    throw new VsaRangeError({ code: 'ERR_GRID', argument: 'video', got, wanted });
  }
  return new TileGrid({ tokens: tokens as unknown as Triple });
}

/** Numbers of a token: its pixels' colours. */
export function channelsOf({ patch }: Pick<TrainSettings, 'patch'>): number {
  return patch[0] * patch[1] * patch[2] * 3;
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws VsaTypeError or VsaRangeError ERR_ARGUMENT, ERR_GRID or ERR_HEAD_DIM.
 */
export function parseTrainOptions(options: TrainOptions = {}): TrainSettings {
  checkOptions('options', options, TRAIN_OPTIONS);
  const preset = checkChoice('preset', options.preset ?? 'tiny', Object.keys(PRESETS) as PresetName[]);
  const given = Object.entries(options).filter(([name, value]) => name !== 'preset' && value !== undefined);
  const all = { ...PRESETS[preset], ...Object.fromEntries(given) } as TrainSettings;
  const width = checkInteger('width', all.width, 1, 65536);
  const heads = checkInteger('heads', all.heads, 1, 1024);
  if (![64, 96, 128].includes(width / heads)) {
    const got = `width ${String(width)} in ${String(heads)} heads`;
    throw new VsaRangeError({ code: 'ERR_HEAD_DIM', argument: 'heads', got, wanted: 'heads of 64, 96 or 128' });
  }
  const settings: TrainSettings = {
    data: checkText('data', all.data),
    video: checkTriple('video', all.video),
    patch: checkTriple('patch', all.patch),
    width,
    heads,
    layers: checkInteger('layers', all.layers, 1, 1024),
    ffn: all.ffn === 0 ? 4 * width : checkInteger('ffn', all.ffn, 1, 2 ** 20),
    attention: checkChoice('attention', all.attention, ['full', 'vsa']),
    sparsity: checkRange('sparsity', all.sparsity, 0, 1),
    fineGate: checkBoolean('fineGate', all.fineGate),
    dtype: checkChoice('dtype', all.dtype, ['float32', 'bfloat16', 'float16']),
    checkpointing: checkBoolean('checkpointing', all.checkpointing),
    batch: checkInteger('batch', all.batch, 1, 65536),
    steps: checkInteger('steps', all.steps, 1),
    learningRate: checkRange('learningRate', all.learningRate, 0, 1e3),
    warmup: checkInteger('warmup', options.warmup ?? Math.min(all.warmup, Math.floor(all.steps / 5)), 0),
    schedule: checkChoice('schedule', all.schedule, ['constant', 'cosine']),
    weightDecay: checkRange('weightDecay', all.weightDecay, 0, 1e3),
    clip: checkRange('clip', all.clip, 0, Number.MAX_VALUE),
    ema: checkRange('ema', all.ema, 0, 1),
    seed: checkInteger('seed', all.seed, 0, 2 ** 32 - 1),
    checkpointEvery: checkInteger('checkpointEvery', all.checkpointEvery, 1),
    adapt: all.adapt === null ? null : checkText('adapt', all.adapt),
    adaptInterval: checkInteger('adaptInterval', all.adaptInterval, 1),
    adaptRate: checkRange('adaptRate', all.adaptRate, 0, 1),
  };
  tokenGrid(settings);
  if (settings.schedule === 'cosine' && settings.warmup >= settings.steps) {
    const [got, wanted] = [String(settings.warmup), `fewer than the ${String(settings.steps)} steps, with 'cosine'`];
    throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'warmup', got, wanted });
  }
  if (settings.adapt !== null && settings.attention !== 'vsa') {
    const got = "'full' beside adapt";
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'attention', got, wanted: "'vsa', which it adapts to" });
  }
  return settings;
}
