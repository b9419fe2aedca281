import { type BenchCase, caseName, directionsOf } from '../../lib/bench/cases.js';
import { type BenchOptions, checkServed, parseBenchOptions } from '../../lib/bench/options.js';
import { numbers } from '../../lib/bench/parse.js';
import { PRESETS, presetsHelp } from '../../lib/bench/presets.js';
import { TileGrid } from '../../lib/attention/grid.js';
import { here } from '../under-test.js';

const parse = (options: BenchOptions) => parseBenchOptions({ device: here.toString(), ...options });
const names = (options: BenchOptions) => parse(options).cases.map(caseName);

describe('numbers', () => {
  const anything = { least: 0, most: 1e6, whole: false };
  test.each([
    ['8', [8]],
    ['8,16', [8, 16]],
    ['8..32:8', [8, 16, 24, 32]],
    ['8..64x2', [8, 16, 32, 64]],
    ['1..3', [1, 2, 3]],
    ['0.8..0.95:0.05', [0.8, 0.85, 0.9, 0.95]],
    ['1,4..6', [1, 4, 5, 6]],
  ])('%s', (text, want) => {
    expect(numbers('n', text, anything)).toEqual(want);
  });

  test.each(['', 'x', '1,,2', '8..4', '1..9:0', '1..9x1', '0..9x2', '-1', '1e9', '1..100000'])('%p is none', (text) => {
    expect(() => numbers('n', text, anything)).toThrow(/wanted/);
  });

  test('whole ones and bounds', () => {
    expect(() => numbers('n', '1.5', { ...anything, whole: true })).toThrow('whole numbers');
    expect(() => numbers('n', '2000000', anything)).toThrow('0 to 1000000');
  });
});

describe('presets', () => {
  test.each([...PRESETS.values()])('$name is a shape that can run, and is in the help', (preset) => {
    const grid = new TileGrid({ tokens: preset.grid });
    expect(preset.K === 'all' ? 1 : preset.K).toBeLessThanOrEqual(grid.tileCount);
    const { name, H, D, K } = preset;
    const line = presetsHelp()
      .split('\n')
      .find((one) => one.trim().startsWith(`${name} `));
    for (const text of [preset.grid, `H=${H}`, `D=${D}`, `K=${K}`]) expect(line).toContain(text);
    expect(parse({ preset: name }).cases.length).toBeGreaterThan(0);
  });

  test('those that results are quoted for', () => {
    expect(PRESETS.get('fine-40k')).toMatchObject({ grid: '24x32x52', H: 12, D: 128, K: 62 });
    expect(names({ preset: 'dense-32k', op: 'fine' })).toEqual(['fine 32x32x32 H12 D128 bfloat16 K512 dense grid']);
  });

  test('options replace parts of a preset; its K is for its own grid', () => {
    expect(names({ preset: 'fine-40k', op: 'fine', lists: 'tight', heads: '4' })).toEqual([
      'fine 24x32x52 H4 D128 bfloat16 K62 tight grid',
    ]);
    expect(names({ preset: 'fine-40k', op: 'fine', lists: 'tight', grid: '16x32x32' })).toEqual([
      'fine 16x32x32 H12 D128 bfloat16 K26 tight grid',
    ]);
  });
});

describe('cases', () => {
  const shape = { grid: '21x30x52', heads: '2', headDim: '64' };

  test('lists multiply', () => {
    const options = { ...shape, op: 'fine', sparsity: '0.8,0.9,0.95', dtype: 'bfloat16,float32', order: 'grid,tiled' };
    const { cases } = parse(options);
    expect(cases).toHaveLength(12);
    expect(new Set(cases.map(({ K }) => K))).toEqual(new Set([125, 63, 32]));
  });

  test('what an operation does not depend on does not multiply', () => {
    const options = { ...shape, op: 'all', sparsity: '0.8,0.9', lists: 'random,local', coarse: 'skip,gate' };
    const ops = parse(options).cases.map(({ op }) => op);
    const count = (op: string) => ops.filter((one) => one === op).length;
    expect(['pool', 'select', 'lists', 'coarse', 'fine', 'dense', 'vsa'].map(count)).toEqual([1, 2, 4, 1, 4, 1, 4]);
  });

  test('a fine gate multiplies, for the operator alone', () => {
    const { cases } = parse({ ...shape, op: 'vsa,fine', fineGate: 'off,on' });
    expect(cases.map(({ op, fineGate }) => [op, fineGate])).toEqual([['vsa', false], ['vsa', true], ['fine', null]]); // prettier-ignore
    expect(caseName(cases[1]!)).toMatch(/gate fine gate$/);
    expect(parse({ ...shape, op: 'vsa' }).cases[0]!.fineGate).toBe(false);
  });

  test('a backend that serves some of them is no error; one that serves none is', () => {
    const { cases } = parse({ ...shape, op: 'pool,coarse' });
    const [pool, coarse] = cases as [BenchCase, BenchCase];
    const other = (one: BenchCase): BenchCase => ({ ...one, backend: here.type === 'cpu' ? 'cuda' : 'cpu' });
    expect(() => checkServed([other(pool), coarse], here)).not.toThrow();
    expect(() => checkServed([other(pool), other(coarse)], here)).toThrow(
      expect.objectContaining({ code: 'ERR_BACKEND' }) as Error,
    );
  });

  test('a length is a plain sequence', () => {
    const [one] = parse({ op: 'dense', length: '100', headDim: '64' }).cases;
    expect(one!.grid.toString()).toBe('1x1x100 in 1x1x64');
  });

  test('a selection has no backward, and that alone cannot be asked for', () => {
    expect(directionsOf('select')).toEqual(['forward']);
    expect(() => parse({ op: 'select', direction: 'backward' })).toThrow('no gradient');
    expect(names({ op: 'select,pool', direction: 'backward', ...shape })).toHaveLength(1);
  });
});

describe('bad input', () => {
  test.each<[string, BenchOptions, string]>([
    ['an unknown operation', { op: 'fly' }, 'ERR_ARGUMENT'],
    ['an unknown preset', { preset: 'huge' }, 'ERR_ARGUMENT'],
    ['an unknown direction', { direction: 'up' }, 'ERR_ARGUMENT'],
    ['an unknown dtype', { dtype: 'int8' }, 'ERR_DTYPE'],
    ['an impossible grid', { grid: '0x4x4' }, 'ERR_GRID'],
    ['a tile of another volume', { tile: '2x2x2' }, 'ERR_GRID'],
    ['a head dim without kernels', { headDim: '80' }, 'ERR_HEAD_DIM'],
    ['K above N', { grid: '8x8x8', topK: '9' }, 'ERR_TOP_K'],
    ['K of nothing', { topK: '0' }, 'ERR_ARGUMENT'],
    ['a sparsity above 1', { sparsity: '1.5' }, 'ERR_ARGUMENT'],
    ['K and sparsity', { topK: '4', sparsity: '0.5' }, 'ERR_ARGUMENT'],
    ['a grid and a length', { grid: '8x8x8', length: '64' }, 'ERR_ARGUMENT'],
    ['key heads that do not divide', { heads: '4', kvHeads: '3' }, 'ERR_SHAPE'],
    ['lists of a file that is not named', { lists: 'file' }, 'ERR_ARGUMENT'],
    ['a file for lists that are made', { lists: 'random', listsFile: 'x.npy' }, 'ERR_ARGUMENT'],
    ['lists that only an operation makes', { lists: 'selected' }, 'ERR_ARGUMENT'],
    ['a backend that does not serve the device', { backend: 'sm90', device: 'cpu' }, 'ERR_BACKEND'],
    ['an unknown backend', { backend: 'tpu' }, 'ERR_ARGUMENT'],
    ['an unknown device', { device: 'tpu' }, 'ERR_DEVICE'],
    ['a GPU that is not there', { device: 'cuda:99' }, 'ERR_DEVICE'],
    ['a fine gate of another kind', { fineGate: 'yes' }, 'ERR_ARGUMENT'],
    ['two seeds', { seed: '1,2' }, 'ERR_ARGUMENT'],
    ['no samples', { samples: '0' }, 'ERR_ARGUMENT'],
    ['far too many cases', { heads: '1..900', batch: '1..3', op: 'pool' }, 'ERR_ARGUMENT'],
  ])('%s', (_, options, code) => {
    expect(() => parse(options)).toThrow(expect.objectContaining({ code }) as Error);
  });
});
