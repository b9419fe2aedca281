/** The two demos of `vsa demo`, and which of them options ask for. */
import { VsaTypeError } from '../errors.js';
import type { DemoOptions } from './options.js';
import type { TrainingDemoOptions } from './training/settings.js';

export interface AnyDemoOptions extends DemoOptions, TrainingDemoOptions {
  /** VSA against dense attention on a clip, though no other option says so. */
  attention?: boolean | undefined;
}

const ATTENTION = [
  ...['attention', 'video', 'tokens', 'grid', 'full', 'sparsity', 'heads', 'headDim', 'dtype', 'exportTokens'],
] as const satisfies readonly (keyof AnyDemoOptions)[];
const TRAINING = ['steps', 'minutes'] as const satisfies readonly (keyof AnyDemoOptions)[];

export type ChosenDemo =
  | { readonly kind: 'training'; readonly options: TrainingDemoOptions }
  | { readonly kind: 'attention'; readonly options: DemoOptions };

/**
 * The demo that options belong to: training, unless one of them is the other demo's.
 *
 * @throws VsaTypeError ERR_ARGUMENT for options of both.
 */
export function chooseDemo(all: AnyDemoOptions): ChosenDemo {
  const given = (name: keyof AnyDemoOptions) => all[name] !== undefined && all[name] !== false;
  const [ofAttention, ofTraining] = [ATTENTION.find(given), TRAINING.find(given)];
  if (ofAttention === undefined) return { kind: 'training', options: without(all, ATTENTION) };
  if (ofTraining === undefined) return { kind: 'attention', options: without(all, ['attention', ...TRAINING]) };
  throw new VsaTypeError({
    code: 'ERR_ARGUMENT',
    argument: ofTraining,
    got: `both '${ofAttention}' and '${ofTraining}'`,
    wanted: `one of them: '${ofAttention}' is of the demo of attention, which trains nothing`,
  });
}

function without(options: AnyDemoOptions, names: readonly string[]): AnyDemoOptions {
  return Object.fromEntries(Object.entries(options).filter(([name]) => !names.includes(name)));
}
