import { tidy, type TileLists } from '../../lib/index.js';
import type { VideoDiTOptions } from '../../lib/models/config.js';
import type { VideoDiT, VideoDiTInputs } from '../../lib/models/video-dit.js';
import { meanSquaredError } from '../../lib/nn/functional.js';
import { ditGradients, type DitGradients } from '../../lib/oracle/dit.js';
import { useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import { gradientsOf, inputsOf, KINDS, numbersOf, relativeL2, tinyModel } from './support.js';

useGuardedMemory();

const exactly = (values: ArrayLike<number>) => Float64Array.from(values);

/** The key tiles of every query tile; none for full lists. */
function tilesOf({ offsets, indices }: TileLists): number[][] {
  if (offsets === undefined || indices === undefined) return [];
  const [from, tiles] = [offsets.dataSync(), indices.dataSync()];
  return Array.from({ length: from.length - 1 }, (_, row) => [...tiles.subarray(from[row], from[row + 1])]);
}

/** The same in float64, with the tiles that the model chose. */
function reference(model: VideoDiT, inputs: VideoDiTInputs, target: Float32Array, lists: number[][][]): DitGradients {
  const { channels, width, heads, ffn, layers, context, attention, coarseGate, fineGate, tokens } = model.config;
  const parameters = [...model.parameters()].map(([name, tensor]) => [name, exactly(numbersOf(tensor))] as const);
  const gates = { coarseGate: coarseGate === true, fineGate: fineGate === true };
  const sizes = { channels, width, heads, ffn, blocks: layers, attention, ...gates };
  return ditGradients(
    {
      sizes: { ...sizes, ...(context !== undefined && { contextWidth: context.width }) },
      grid: { tokens, tile: [4, 4, 4], prefix: 0 },
      ...{ times: inputs.times, x: exactly(numbersOf(inputs.x)), parameters: Object.fromEntries(parameters) },
      ...(inputs.context !== undefined && { context: exactly(numbersOf(inputs.context)) }),
      ...(attention === 'vsa' && { choice: { lists } }),
    },
    exactly(target),
  );
}

/** Relative errors of the output and of every gradient, each over all its elements. */
function errorsOf(options: Partial<VideoDiTOptions>): Map<string, number> {
  return tidy(() => {
    const model = tinyModel(options);
    const batch = model.config.dtype === 'float32' ? 2 : 1; // the oracle is slow
    const inputs = inputsOf(model, { batch, dtype: model.config.dtype });
    const target = fresh.randn(inputs.x.shape, { seed: 8 });
    const lists: number[][][] = [];
    const output = model.forward({ ...inputs, observe: (state) => lists.push(tilesOf(state.lists)) });
    meanSquaredError({ prediction: output.cast('float32'), target }).backward();
    const wanted = reference(model, inputs, numbersOf(target), lists);
    const errors = new Map([['output', relativeL2(numbersOf(output), wanted.output)]]);
    for (const [name, gradient] of gradientsOf(model)) {
      errors.set(name, relativeL2(numbersOf(gradient), wanted.parameters[name]!));
    }
    return errors;
  });
}

// Half a step of the format at 1, times what a chain of two blocks makes of it: about twice the largest seen. Biases of
// q and k have gradients that are what is left of sums that cancel, as a softmax does not see a shift.
const LIMITS = { float32: 128 * 2 ** -24, bfloat16: 32 * 2 ** -9, float16: 32 * 2 ** -12 };
const limitOf = (name: string, dtype: keyof typeof LIMITS) => (/\.[qk]\.bias$/.test(name) ? 3 : 1) * LIMITS[dtype];

const cases = Object.entries(KINDS).flatMap(([kind, options]) =>
  (['float32', 'bfloat16', 'float16'] as const).map((dtype) => [kind, dtype, options] as const),
);

test.each(cases)('%s in %s: the output and every gradient are those of float64', (_, dtype, options) => {
  const errors = errorsOf({ ...options, dtype });
  const wrong = [...errors].filter(([name, error]) => !(error <= limitOf(name, dtype)));
  expect(wrong).toEqual([]);
});
