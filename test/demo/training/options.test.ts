import { Device, device } from '../../../lib/device/device.js';
import { VsaError } from '../../../lib/errors.js';
import { chooseDemo } from '../../../lib/demo/kind.js';
import { placeToTrain } from '../../../lib/demo/training/place.js';
import { JOBS, parseTrainingDemoOptions, trainSettings } from '../../../lib/demo/training/settings.js';
import { tokenGrid } from '../../../lib/train/settings.js';
import { failureOf } from '../support.js';

describe('which demo', () => {
  test('training, unless an option is of the other one', () => {
    const shared = { device: 'cpu', seed: 3, out: 'a.html', json: true };
    expect(chooseDemo({})).toEqual({ kind: 'training', options: {} });
    expect(chooseDemo({ ...shared, steps: 5 })).toEqual({ kind: 'training', options: { ...shared, steps: 5 } });
    expect(chooseDemo({ ...shared, full: false, video: undefined })).toEqual({ kind: 'training', options: shared });
    expect(chooseDemo({ ...shared, attention: true })).toEqual({ kind: 'attention', options: shared });
  });

  test.each([
    [{ video: 'clip.mp4' }],
    [{ tokens: 'clip.safetensors' }],
    [{ grid: '4x4x4' }],
    [{ full: true }],
    [{ sparsity: '0.8' }],
    [{ heads: '2' }],
    [{ headDim: '128' }],
    [{ dtype: 'bfloat16' }],
    [{ exportTokens: 'clip.safetensors' }],
  ])('%j asks for attention, and not beside steps or minutes', async (options) => {
    expect(chooseDemo(options)).toEqual({ kind: 'attention', options });
    const [name] = Object.keys(options);
    for (const training of ['steps', 'minutes']) {
      const error = await failureOf(() => chooseDemo({ ...options, [training]: '3' }));
      expect(error).toMatchObject({
        code: 'ERR_ARGUMENT',
        argument: training,
        got: `both '${name}' and '${training}'`,
      });
    }
  });
});

test('has a default for everything, and takes numbers as a command line gives them', () => {
  const defaults = { device: undefined, steps: undefined, minutes: undefined };
  expect(parseTrainingDemoOptions()).toEqual({ ...defaults, seed: 1, out: 'vsa-demo.html', json: false });
  expect(parseTrainingDemoOptions({ steps: '12', seed: '7' })).toMatchObject({ steps: 12, seed: 7 });
  expect(parseTrainingDemoOptions({ minutes: '0.5' })).toMatchObject({ minutes: 0.5 });
});

test.each<[string, object, string]>([
  ['an unknown option', { layers: 3 }, 'options'],
  ['no steps', { steps: 0 }, 'steps'],
  ['half a step', { steps: '2.5' }, 'steps'],
  ['no minutes', { minutes: 0 }, 'minutes'],
  ['minutes that are no number', { minutes: 'few' }, 'minutes'],
  ['steps and minutes', { steps: 3, minutes: 3 }, 'minutes'],
  ['a negative seed', { seed: -1 }, 'seed'],
  ['an empty file name', { out: '' }, 'out'],
  ['json that is no flag', { json: 'yes' }, 'json'],
])('refuses %s', async (_name, options, argument) => {
  const error = await failureOf(() => parseTrainingDemoOptions(options));
  expect(error).toMatchObject({ code: 'ERR_ARGUMENT', argument });
  expect(error.message).toMatch(/got .+, wanted .+/);
});

test.each(['cpu', 'cuda'] as const)('the job on %s is settings of vsa train, for any number of steps', (type) => {
  for (const steps of [1, 3, 100, 2000]) {
    const settings = trainSettings(JOBS[type], steps, 4);
    expect(settings).toMatchObject({ attention: 'vsa', steps, seed: 4 });
    const { tileCount, length } = tokenGrid(settings);
    expect(length).toBe(64 * tileCount); // no partial tiles
    expect(Math.ceil((1 - settings.sparsity) * tileCount)).toBeLessThan(tileCount);
  }
});

describe('where it trains', () => {
  const gpu = Object.assign(Object.create(Device.prototype) as Device, { type: 'cuda', index: 0, name: 'A GPU' });
  const fail = (code: 'ERR_BACKEND' | 'ERR_DEVICE_LOST') => () =>
    Promise.reject(new VsaError({ code, message: 'no cuBLASLt' }));

  test('the best there is, if it can', async () => {
    expect(
      await placeToTrain(
        undefined,
        () => gpu,
        () => Promise.resolve(),
      ),
    ).toEqual({ device: gpu });
    expect(await placeToTrain(undefined, () => device('cpu'))).toEqual({ device: device('cpu') });
  });

  test('the CPU where the GPU has no matrix products, and why', async () => {
    const place = await placeToTrain(undefined, () => gpu, fail('ERR_BACKEND'));
    expect(place).toEqual({ device: device('cpu'), why: 'cuda:0 (A GPU) cannot train: no cuBLASLt' });
  });

  test('nowhere else where a device was named, or where something else is wrong', async () => {
    expect(await placeToTrain('cpu', () => gpu)).toEqual({ device: device('cpu') });
    const lost = await failureOf(() => placeToTrain(undefined, () => gpu, fail('ERR_DEVICE_LOST')));
    expect(lost.code).toBe('ERR_DEVICE_LOST');
    expect((await failureOf(() => placeToTrain('abacus'))).code).toBe('ERR_DEVICE');
  });
});
