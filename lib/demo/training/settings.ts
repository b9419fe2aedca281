/** The demo that trains: its options, and what is trained on which kind of device. */
import type { MovingShapesOptions } from '../../data/index.js';
import type { DeviceType } from '../../device/device.js';
import { parseTrainOptions, type TrainOptions, type TrainSettings } from '../../train/settings.js';
import { checkOptions } from '../../validate.js';
import { decimal, flag, refuseBoth, text, wholeNumber } from '../checks.js';

/** As the command line gives them: text, or values of the right type; undefined is left out. */
export interface TrainingDemoOptions {
  /** 'cpu', 'cuda', 'cuda:N'. Default: the best there is. */
  device?: string | undefined;
  /** Steps to train for. Default: as many as fit into `minutes`. */
  steps?: number | string | undefined;
  /** Minutes of steps; drawing the pictures comes on top. Default: those of the device's job. */
  minutes?: number | string | undefined;
  /** Of weights, clips, noise and times, 0 to 2^32 - 1. Default 1. The same seed and steps give the same model. */
  seed?: number | string | undefined;
  /** The report. Default 'vsa-demo.html'. */
  out?: string | undefined;
  /** Print one JSON object instead of tables. Default false. */
  json?: boolean | undefined;
}

/** Checked options. */
export interface TrainingDemoSettings {
  readonly device: string | undefined;
  readonly steps: number | undefined;
  readonly minutes: number | undefined;
  readonly seed: number;
  readonly out: string;
  readonly json: boolean;
}

const OPTIONS = [
  ...['device', 'steps', 'minutes', 'seed', 'out', 'json'],
] as const satisfies readonly (keyof TrainingDemoOptions)[];

/**
 * Checks the options and fills in the defaults. Nothing is opened.
 * @throws VsaTypeError or VsaRangeError ERR_ARGUMENT.
 */
export function parseTrainingDemoOptions(options: TrainingDemoOptions = {}): TrainingDemoSettings {
  checkOptions('options', options, OPTIONS);
  const { steps, minutes } = options;
  refuseBoth('steps', steps, 'minutes', minutes, 'each says how long to train');
  return {
    device: text('device', options.device),
    steps: steps === undefined ? undefined : wholeNumber('steps', steps, 1, 1e9),
    minutes: minutes === undefined ? undefined : decimal('minutes', minutes, 0.01, 10_000),
    seed: wholeNumber('seed', options.seed ?? 1, 0, 2 ** 32 - 1),
    out: text('out', options.out) ?? 'vsa-demo.html',
    json: flag('json', options.json),
  };
}

/** What is trained, and what of it is shown. */
export interface Job {
  readonly model: TrainOptions;
  readonly shapes: Required<Pick<MovingShapesOptions, 'shapes' | 'kinds'>>;
  /** Of steps, where nobody says how many. */
  readonly minutes: number;
  /** Clips that are shown with noise and without. */
  readonly heldOut: number;
  /** Clips that are drawn from noise, and the steps of Euler's method for each. */
  readonly samples: number;
  readonly samplingSteps: number;
}

/** Large shapes of one colour each: what a small model learns first. */
const SHAPES = { shapes: [1, 2], kinds: ['disc', 'square', 'triangle'] } as const;

export const JOBS: Record<DeviceType, Job> = {
  /** 512 tokens in 8 tiles. In the same time, a small model comes further in many steps than a larger one in few. */
  cpu: {
    model: {
      ...{ video: [8, 32, 32], patch: [1, 4, 4], width: 128, heads: 2, layers: 3, ffn: 256, sparsity: 0.5 },
      ...{ dtype: 'float32', batch: 1, learningRate: 4e-3, warmup: 60 },
    },
    shapes: SHAPES,
    ...{ minutes: 2.1, heldOut: 3, samples: 6, samplingSteps: 30 },
  },
  /** 4,096 tokens in 64 tiles, four clips a step. */
  cuda: {
    model: {
      ...{ video: [16, 64, 64], patch: [1, 4, 4], width: 512, heads: 8, layers: 8, sparsity: 0.875 },
      ...{ dtype: 'bfloat16', batch: 4, learningRate: 1e-3, warmup: 200 },
    },
    shapes: { shapes: [2, 4], kinds: ['disc', 'square', 'triangle', 'digit'] },
    ...{ minutes: 3, heldOut: 4, samples: 6, samplingSteps: 50 },
  },
};

/** The averages of the weights, which pictures are drawn with, look back over this part of a run. */
const AVERAGED = 0.1;

/** The settings of a run of a job. */
export function trainSettings({ model }: Job, steps: number, seed: number): TrainSettings {
  const warmup = Math.min(model.warmup!, Math.floor(steps / 5));
  const ema = Math.max(0, 1 - 1 / (AVERAGED * steps));
  return parseTrainOptions({ ...model, attention: 'vsa', schedule: 'cosine', steps, warmup, ema, seed });
}
