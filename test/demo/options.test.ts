import { parseDemoOptions } from '../../lib/demo/options.js';
import { failureOf } from './support.js';

test('has a default for everything, and partial tiles in the default grid', () => {
  const settings = parseDemoOptions();
  expect(settings).toEqual({
    source: { kind: 'synthetic', shape: [21, 15, 26] },
    device: undefined,
    sparsity: 0.9,
    heads: 4,
    headDim: 64,
    dtype: 'float32',
    seed: 1,
    out: 'vsa-demo.html',
    exportTokens: undefined,
    json: false,
  });
});

test('takes numbers as a command line gives them, and undefined for what was not given', () => {
  const settings = parseDemoOptions({
    sparsity: '0.75',
    heads: '2',
    headDim: '128',
    seed: '7',
    grid: '5x6x7',
    json: undefined,
  });
  expect(settings).toMatchObject({ sparsity: 0.75, heads: 2, headDim: 128, seed: 7, json: false });
  expect(settings.source).toEqual({ kind: 'synthetic', shape: [5, 6, 7] });
});

test('knows where the clip comes from', () => {
  expect(parseDemoOptions({ video: 'a.mp4', full: true }).source).toEqual({
    kind: 'video',
    path: 'a.mp4',
    shape: [21, 30, 52],
  });
  expect(parseDemoOptions({ tokens: 'a.safetensors' }).source).toEqual({ kind: 'tokens', path: 'a.safetensors' });
});

test.each<[string, object, string, string]>([
  ['an unknown option', { gird: '1x2x3' }, 'ERR_ARGUMENT', 'options'],
  ['a grid that is none', { grid: '21x30' }, 'ERR_GRID', 'grid'],
  ['an empty grid dim', { grid: '0x4x4' }, 'ERR_GRID', 'grid'],
  ['a grid too large for dense attention', { grid: '100x100x100' }, 'ERR_GRID', 'grid'],
  ['a grid of too many tiles', { grid: '1x1x130000' }, 'ERR_GRID', 'grid'],
  ['too many numbers', { grid: '21x45x80', heads: 64, headDim: 128 }, 'ERR_GRID', 'grid'],
  ['a sparsity above 1', { sparsity: 1.1 }, 'ERR_ARGUMENT', 'sparsity'],
  ['a sparsity that is no number', { sparsity: 'most' }, 'ERR_ARGUMENT', 'sparsity'],
  ['a sparsity that is empty', { sparsity: '' }, 'ERR_ARGUMENT', 'sparsity'],
  ['no heads', { heads: 0 }, 'ERR_ARGUMENT', 'heads'],
  ['half a head', { heads: 2.5 }, 'ERR_ARGUMENT', 'heads'],
  ['a head dim of 80', { headDim: 80 }, 'ERR_HEAD_DIM', 'headDim'],
  ['an unknown dtype', { dtype: 'float64' }, 'ERR_DTYPE', 'dtype'],
  ['a negative seed', { seed: -1 }, 'ERR_ARGUMENT', 'seed'],
  ['a seed beyond 32 bits', { seed: 2 ** 32 }, 'ERR_ARGUMENT', 'seed'],
  ['an empty file name', { out: '' }, 'ERR_ARGUMENT', 'out'],
  ['a file name with a zero byte', { video: 'a\0b' }, 'ERR_ARGUMENT', 'video'],
  ['a file name that is no text', { tokens: 3 }, 'ERR_ARGUMENT', 'tokens'],
  ['json that is no flag', { json: 'yes' }, 'ERR_ARGUMENT', 'json'],
  ['video and tokens', { video: 'a', tokens: 'b' }, 'ERR_ARGUMENT', 'tokens'],
  ['grid and full', { grid: '4x4x4', full: true }, 'ERR_ARGUMENT', 'full'],
  ['tokens and grid', { tokens: 'a', grid: '4x4x4' }, 'ERR_ARGUMENT', 'grid'],
  ['tokens and full', { tokens: 'a', full: true }, 'ERR_ARGUMENT', 'full'],
])('refuses %s', async (_name, options, code, argument) => {
  const error = await failureOf(() => parseDemoOptions(options));
  expect(error).toMatchObject({ code, argument });
  expect(error.message).toMatch(/got .+, wanted .+/);
});

test('full may be false beside a grid or tokens', () => {
  expect(parseDemoOptions({ grid: '4x4x4', full: false }).source).toMatchObject({ shape: [4, 4, 4] });
  expect(parseDemoOptions({ tokens: 'a', full: false }).source).toMatchObject({ kind: 'tokens' });
});
