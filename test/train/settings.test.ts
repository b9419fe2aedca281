import { parseTrainOptions, PRESETS, tokenGrid, type TrainOptions } from '../../lib/train/settings.js';
import { checkFailure, type Failure } from '../tensor/support.js';

const failureOf = (options: unknown): Failure => {
  try {
    parseTrainOptions(options as TrainOptions);
  } catch (error) {
    return error as Failure;
  }
  throw new Error('a failure was expected');
};

test('presets are settings, and defaults fill what is left out', () => {
  for (const preset of Object.keys(PRESETS) as (keyof typeof PRESETS)[]) {
    const settings = parseTrainOptions({ preset });
    expect(settings).toEqual({ ...PRESETS[preset], ffn: settings.ffn });
    expect(parseTrainOptions(settings as unknown as TrainOptions)).toEqual(settings); // as a checkpoint brings them
  }
  expect(parseTrainOptions()).toEqual(parseTrainOptions({ preset: 'tiny' }));
  expect(parseTrainOptions({ steps: 10 }).warmup).toBe(2);
  expect(parseTrainOptions({ width: 192, heads: 2 })).toMatchObject({ width: 192, ffn: 768 });
});

test('the model of the paper has its 16,384 tokens and 32 of 256 tiles', () => {
  const grid = tokenGrid(PRESETS['dit-120m']);
  expect([grid.tokens, grid.length, grid.tileCount]).toEqual([[16, 32, 32], 16384, 256]);
  expect(Math.ceil((1 - PRESETS['dit-120m'].sparsity) * grid.tileCount)).toBe(32);
});

test.each([
  [{ video: [8, 62, 64] }, 'ERR_GRID', 'video'],
  [{ video: [8, 64] }, 'ERR_ARGUMENT', 'video'],
  [{ patch: [1, 0, 8] }, 'ERR_ARGUMENT', 'patch'],
  [{ width: 100 }, 'ERR_HEAD_DIM', 'heads'],
  [{ heads: 0 }, 'ERR_ARGUMENT', 'heads'],
  [{ attention: 'dense' }, 'ERR_ARGUMENT', 'attention'],
  [{ sparsity: 1.5 }, 'ERR_ARGUMENT', 'sparsity'],
  [{ learningRate: -1 }, 'ERR_ARGUMENT', 'learningRate'],
  [{ learningRate: NaN }, 'ERR_ARGUMENT', 'learningRate'],
  [{ steps: 0 }, 'ERR_ARGUMENT', 'steps'],
  [{ seed: 2 ** 32 }, 'ERR_ARGUMENT', 'seed'],
  [{ steps: 5, warmup: 5 }, 'ERR_ARGUMENT', 'warmup'],
  [{ ema: 2 }, 'ERR_ARGUMENT', 'ema'],
  [{ data: '' }, 'ERR_ARGUMENT', 'data'],
  [{ adapt: 'dense.safetensors', attention: 'full' }, 'ERR_ARGUMENT', 'attention'],
  [{ preset: 'huge' }, 'ERR_ARGUMENT', 'preset'],
  [{ lr: 1 }, 'ERR_ARGUMENT', 'options'],
  [{ fineGate: 1 }, 'ERR_ARGUMENT', 'fineGate'],
  [{ dtype: 'int32' }, 'ERR_ARGUMENT', 'dtype'],
])('%j is refused', (options, code, argument) => {
  const failure = failureOf(options);
  checkFailure(failure, {
    type: failure.constructor as never,
    code: code as never,
    argument,
    got: /./,
    wanted: /./,
  });
});
