/** Rows of real runs: their fields, and what they say about failures. */

import { backends } from '../../lib/attention/backends.js';
import { type Op, OPERATION_OF, OPS } from '../../lib/bench/cases.js';
import type { BenchRow } from '../../lib/bench/row.js';
import { native } from '../../lib/binding.js';
import { here } from '../under-test.js';
import { rowsOf } from './support.js';

/** As the issue lists them, and the temperature. */
const FIELDS = [
  ...['op', 'direction', 'backend', 'B', 'H', 'Hkv', 'grid', 'tokens', 'slots', 'D', 'dtype', 'tiles', 'tile', 'K'],
  ...['sparsity', 'lists', 'data', 'seed', 'overlap', 'order', 'prefix', 'coarse', 'fineGate', 'cache', 'graph'],
  ...[
    'deterministic',
    'forced',
    'ms',
    'ms_p10',
    'ms_p90',
    'samples',
    'host_us',
    'stages',
    'peak_bytes',
    'gflop',
    'tflops',
  ],
  ...['tflops_slots', 'mfu', 'gbs', 'bound', 'bound_ms', 'bound_share', 'ok', 'error', 'device', 'driver', 'cuda'],
  ...['sm_mhz', 'watts', 'celsius', 'package', 'commit', 'date'],
];

describe('every operation', () => {
  let rows: BenchRow[];
  beforeAll(async () => {
    rows = await rowsOf({ op: 'all', direction: 'forward,backward,both', graph: 'off,on', fineGate: 'on' });
  });

  test('has a row for every direction it has, called and replayed', () => {
    for (const op of OPS) {
      const directions = rows.filter((row) => row.op === op).map(({ direction, graph }) => `${direction} ${graph}`);
      const wanted = op === 'select' ? ['forward'] : ['forward', 'backward', 'both'];
      expect({ op, directions }).toEqual({ op, directions: wanted.flatMap((one) => [`${one} false`, `${one} true`]) });
    }
  });

  test('is right', () => {
    expect(rows.filter(({ ok }) => ok !== true).map(({ op, direction, error }) => ({ op, direction, error }))).toEqual(
      [],
    );
  });

  test('rows are flat, with all fields and no others, and survive JSON', () => {
    for (const row of rows) {
      expect(Object.keys(row).sort()).toEqual([...FIELDS].sort());
      expect(JSON.parse(JSON.stringify(row))).toEqual(row);
    }
  });

  test('times, and what follows from them', () => {
    for (const row of rows) {
      const { ms, ms_p10: p10, ms_p90: p90, samples, host_us: host } = row;
      expect(samples).toHaveLength(3);
      expect(Math.min(...samples)).toBeGreaterThan(0);
      expect(p10!).toBeLessThanOrEqual(ms!);
      expect(ms!).toBeLessThanOrEqual(p90!);
      expect([...samples].sort((a, b) => a - b)[1]).toBeCloseTo(ms!, 6);
      expect(host).toBeGreaterThan(0);
      if (row.gflop !== null) expect(row.tflops! * ms!).toBeCloseTo(row.gflop, 1);
      if (row.gflop !== null) expect(row.tflops_slots!).toBeGreaterThanOrEqual(row.tflops!);
      expect(row.gbs).toBeGreaterThan(0);
    }
  });

  test('stages are those of the call; a replay has none', () => {
    const stagesOf = (op: string, direction: string) =>
      Object.keys(rows.find((row) => row.op === op && row.direction === direction && !row.graph)!.stages).sort();
    expect(stagesOf('pool', 'forward')).toEqual(['pool']);
    expect(stagesOf('lists', 'both')).toEqual(['bits', 'transpose']);
    expect(stagesOf('fine', 'backward')).toEqual(['fine', 'transpose']);
    expect(stagesOf('vsa', 'forward')).toEqual(['coarse', 'fine', 'pool', 'select']);
    expect(stagesOf('vsa', 'backward')).toEqual(['coarse', 'combine', 'fine', 'transpose']);
    for (const row of rows) if (row.graph) expect(row.stages).toEqual({});
  });

  test('say where they come from', () => {
    const { commit, version } = native().build();
    for (const row of rows) {
      expect(row).toMatchObject({ grid: '5x9x10', tokens: 450, slots: 18 * 64, tiles: 18, tile: '4x4x4', B: 1, H: 2 });
      expect(row).toMatchObject({
        commit,
        package: version,
        data: 'randn',
        seed: 1,
        forced: false,
        backend: backends(here).findLast(({ operation, serves }) => serves && operation === OPERATION_OF[row.op as Op])!
          .backend,
      });
      expect(row.device).toContain(here.name);
      expect(new Date(row.date).getTime()).toBeGreaterThan(Date.now() - 600_000);
      if (here.type === 'cpu') expect(row).toMatchObject({ mfu: null, bound: null, bound_ms: null, sm_mhz: null });
    }
  });
});

test.each([
  [
    'tiled order, GQA, a prefix, batches',
    { op: 'fine,dense,vsa', order: 'tiled', kvHeads: '1', prefix: '70', batch: '2' },
  ],
  ['float32 and float16', { op: 'pool,fine,vsa', dtype: 'float32,float16', coarse: 'add' }],
  ['no coarse output', { op: 'vsa', coarse: 'skip' }],
  ['kinds of lists, the cache emptied', { op: 'fine,lists', lists: 'random,tight,dense', cache: 'cold' }],
  ['a plain sequence', { op: 'dense,vsa', grid: undefined, length: '200' }],
  ['one token', { op: 'all', grid: '1x1x1', topK: '1' }],
  ['a forced backend', { op: 'pool', backend: here.type }],
])('%s: all is right', async (_, options) => {
  const rows = await rowsOf({ direction: 'both,forward', graph: 'off', ...options });
  expect(rows.length).toBeGreaterThan(0);
  expect(rows.map(({ ok, error }) => ({ ok, error }))).toEqual(rows.map(() => ({ ok: true, error: null })));
  if ('backend' in options) expect(rows[0]).toMatchObject({ backend: here.type, forced: true });
});

test('what does not fit into memory is a row that says so, and the run goes on', async () => {
  const rows = await rowsOf({ op: 'pool', grid: '4000x4000x4000,5x9x10', direction: 'forward', graph: 'off,on' });
  expect(rows.map(({ ok }) => ok)).toEqual([false, false, true, true]);
  for (const row of rows.slice(0, 2)) {
    expect(row).toMatchObject({ ms: null, samples: [], tflops: null, op: 'pool' });
    expect(row.error).toMatch(/ERR_OUT_OF_MEMORY.*wanted/);
  }
});

test('a forced backend that does not serve a row: it says so, and the run goes on', async () => {
  const { runBench } = await import('../../lib/bench/run.js');
  const { parse, SMALL } = await import('./support.js');
  const settings = parse({ ...SMALL, op: 'pool,coarse', direction: 'forward', graph: 'off' });
  const other = here.type === 'cpu' ? ('cuda' as const) : ('cpu' as const);
  const cases = settings.cases.map((one) => (one.op === 'pool' ? { ...one, backend: other } : one));
  const rows: BenchRow[] = [];
  const none = () => {};
  await runBench({ ...settings, cases }, { begin: none, progress: none, row: (row) => rows.push(row) });
  expect(rows).toEqual([
    expect.objectContaining({ op: 'pool', backend: other, forced: true, ok: false, ms: null }),
    expect.objectContaining({ op: 'coarse', ok: true }),
  ]);
  expect(rows[0]!.error).toMatch(/^ERR_BACKEND: backend: got/);
});

test('lists that nobody could hold are a row as well', async () => {
  const [row] = await rowsOf({ op: 'fine', grid: '1000x1000x1000', topK: '1000', direction: 'forward' });
  expect(row).toMatchObject({ ok: false, ms: null });
  expect(row!.error).toContain('ERR_LISTS');
});

test('a signal ends the run between samples', async () => {
  const controller = new AbortController();
  controller.abort(new Error('enough'));
  const { runBench } = await import('../../lib/bench/run.js');
  const { parse, SMALL } = await import('./support.js');
  const none = () => {};
  const run = runBench(parse({ ...SMALL, op: 'pool' }), { begin: none, progress: none, row: none }, controller.signal);
  await expect(run).rejects.toThrow('enough');
});
