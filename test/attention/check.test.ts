/** The check itself: that it finds what is wrong, says where, and never falls over. */
import { CHECK_CASES } from '../../lib/check/cases.js';
import { CHECKED_OPS, CheckReport, type CheckRow, formatCheck, runCheck } from '../../lib/check/index.js';
import { philox4x32, philoxIntegers, philoxNormals, philoxWords } from '../../lib/check/philox.js';
import { CaseRows } from '../../lib/check/report.js';
import {
  blockSparseAttention,
  memory,
  tile,
  tilePooling,
  tileSelection,
  videoSparseAttention,
} from '../../lib/index.js';
import { expectError } from './misuse.js';
import { expectRows, inContext, useGuardedMemory } from './support.js';
import { fresh, here } from '../under-test.js';

useGuardedMemory();

/** Known answers that its authors publish with Philox4x32-10. */
test('the generator gives the published words', () => {
  const ones = 0xffffffff;
  expect(philox4x32([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  expect(philox4x32([ones, ones, ones, ones], [ones, ones])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
  const digitsOfPi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344] as const;
  const words = [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1];
  expect(philox4x32(digitsOfPi, [0xa4093822, 0x299f31d0])).toEqual(words);
});

test('words and normals by element', () => {
  expect([...philoxWords(0n, 2)]).toEqual([0x6627e8d5, 0xe169c58d]);
  expect([...philoxWords(7n, 9)].slice(0, 5)).toEqual([...philoxWords(7n, 5)]);
  const z = philoxNormals(1n, 100_000, 0, 1);
  const mean = z.reduce((sum, value) => sum + value, 0) / z.length;
  const moment = (power: number) => z.reduce((sum, value) => sum + value ** power, 0) / z.length;
  expect(Math.abs(mean)).toBeLessThan(0.01);
  expect(moment(2)).toBeCloseTo(1, 1);
  expect(moment(4)).toBeCloseTo(3, 0);
  const integer = philoxIntegers(3n);
  const drawn = Array.from({ length: 1000 }, () => integer(5));
  expect([...new Set(drawn)].sort()).toEqual([0, 1, 2, 3, 4]);
});

test('the cases: every public operation, no two of one name, all dtypes, head dims and orders', () => {
  const ops = ['tilePooling', 'tileSelection', 'coarseAttention', 'blockSparseAttention', 'denseAttention'];
  expect(CHECKED_OPS).toEqual(
    expect.arrayContaining([...ops, 'gatedCombination', 'tile', 'untile', 'videoSparseAttention']),
  );
  expect(CHECKED_OPS).toEqual(expect.arrayContaining(['Tensor.randn', 'Tensor.randbits', 'Tensor.cast']));
  const names = CHECK_CASES.map((c) => `${c.op}: ${c.name}`);
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  for (const op of [
    'blockSparseAttention',
    'videoSparseAttention',
    'tilePooling',
    'gatedCombination',
    'denseAttention',
  ]) {
    for (const dtype of ['float32', 'bfloat16', 'float16']) {
      for (const headDim of [64, 96, 128]) {
        for (const order of ['grid', 'tiled']) expect(names).toContain(`${op}: ${dtype}, D ${headDim}, ${order} order`);
      }
    }
  }
});

test('rows, progress, and nothing left behind', async () => {
  const before = memory();
  const only = ['tile', 'Tensor.cast'];
  const seen: string[] = [];
  const report = await runCheck({ device: here, only }, ({ op, done, total, rows }) => {
    seen.push(`${op} ${done}/${total}`);
    expect(rows.length).toBeGreaterThan(0);
  });
  const cases = CHECK_CASES.filter((c) => only.includes(c.op));
  expect(seen).toEqual(cases.map((c, i) => `${c.op} ${i + 1}/${cases.length}`));
  expect(report).toMatchObject({ device: here.toString(), seed: 1, failed: 0, passed: report.rows.length, ok: true });
  expect(report.rows.map((row) => row.tensor).slice(-2)).toEqual(['output', 'dx']);
  expect(report.seconds).toBeGreaterThan(0);
  expect(memory()).toEqual(before);
});

test('random numbers and casts are those of their definitions', async () => {
  const { rows } = await runCheck({ device: here, only: ['Tensor.randbits', 'Tensor.randn', 'Tensor.cast'] });
  expectRows(rows);
});

test('the same seed gives the same rows, whichever other operations run; another seed others', async () => {
  const rows = async (seed: number, only: string[]) => {
    const report = await runCheck({ device: here, seed, only });
    return report.rows.filter((row) => row.op === 'tileSelection');
  };
  const first = await rows(5, ['tileSelection']);
  expect(await rows(5, ['untile', 'tileSelection'])).toEqual(first);
  expect(await rows(6, ['tileSelection'])).not.toEqual(first);
});

describe('what is wrong is found', () => {
  afterEach(() => {
    jest.restoreAllMocks();
  });

  test('an operation that throws is a failed row, and frees what it held', async () => {
    const before = memory();
    jest.spyOn(tile, 'forward').mockImplementation(() => {
      throw new Error('no kernel for that');
    });
    const report = await runCheck({ device: here, only: ['tile'] });
    expect(report.ok).toBe(false);
    expect(report.failed).toBe(report.rows.length);
    const row = { op: 'tile', case: 'float32', tensor: 'all', ok: false, worst: null, error: 'no kernel for that' };
    expect(report.rows[0]).toMatchObject(row);
    expect(formatCheck(report)).toContain('tile, float32, all: no kernel for that');
    expect(memory()).toEqual(before);
  });

  /** The rows of one case. */
  async function runCase(op: string, name: string): Promise<CheckRow[]> {
    const found = CHECK_CASES.find((c) => c.op === op && c.name === name);
    return inContext(1, (context) => found!.run(context));
  }

  test('a single wrong element, and its place', async () => {
    const actual = { ...tilePooling };
    jest.spyOn(tilePooling, 'forward').mockImplementation((options) => {
      const result = actual.forward(options);
      const values = result.output.dataSync();
      values[3 * 2 * 64 + 7]! += 1e-3; // batch 0, tile 3, head 0, channel 7
      result.output.copyFrom(values);
      return result;
    });
    const [output, dx] = await runCase('tilePooling', 'whole tiles');
    expect(output).toMatchObject({ tensor: 'output', ok: false, worst: { coordinates: [0, 3, 0, 7] } });
    expect(output!.maxError).toBeCloseTo(1e-3, 5);
    expect(output!.worst!.got - output!.worst!.want).toBeCloseTo(1e-3, 5);
    expect(dx).toMatchObject({ tensor: 'dx', ok: true });
  });

  test.each([
    ['an element that is NaN', NaN, 1, 'grid'],
    ['a token that is 0', 0, 64, 'tiled'],
  ])('of a gradient %s', async (_, wrong, count, order) => {
    const actual = { ...blockSparseAttention };
    jest.spyOn(blockSparseAttention, 'backward').mockImplementation((saved, gradient) => {
      const grads = actual.backward(saved, gradient);
      using element = fresh.full([1], wrong, { dtype: grads.k.dtype });
      const values = grads.k.dataSync();
      values.fill(element.dataSync()[0]!, 64, 64 + count); // token 0, head 1
      grads.k.copyFrom(values);
      return grads;
    });
    for (const dtype of ['float32', 'bfloat16', 'float16']) {
      const rows = await runCase('blockSparseAttention', `${dtype}, D 64, ${order} order`);
      expect(rows.filter((row) => !row.ok).map((row) => row.tensor)).toEqual(['dk']);
    }
  });

  test('padding that was not cleared', async () => {
    const actual = { ...videoSparseAttention };
    jest.spyOn(videoSparseAttention, 'forward').mockImplementation((options) => {
      const result = actual.forward(options);
      const values = result.output.dataSync();
      values[values.length - 1] = 1e-30;
      result.output.copyFrom(values);
      return result;
    });
    const rows = await runCase('videoSparseAttention', 'float32, D 64, tiled order');
    const [row, ...others] = rows.filter((found) => !found.ok);
    expect(row).toMatchObject({ tensor: 'output' });
    expect(row!.error).toMatch(/padding slot 255: got 1\.0.*e-30, wanted 0/);
    expect(others).toEqual([]);
  });

  test('a list with one tile exchanged', async () => {
    const actual = { ...tileSelection };
    jest.spyOn(tileSelection, 'forward').mockImplementation((options) => {
      const result = actual.forward(options);
      const indices = result.lists.indices!.dataSync();
      const last = indices.length - 1;
      indices[last] = indices[last] === options.grid.totalTileCount - 1 ? 0 : indices[last]! + 1;
      result.lists.indices!.copyFrom(indices);
      return result;
    });
    const rows = await runCase('tileSelection', 'batch 2');
    expect(rows.map((row) => [row.tensor, row.ok])).toEqual([
      ['scores', true],
      ['lists', false],
    ]);
    expect(rows[1]).toMatchObject({ maxError: 1, limit: 0, worst: { coordinates: [1, 1, 59, 6] } });
  });
});

test('wrong options', async () => {
  const failing = async (options: object, code: string, argument: string) => {
    await expect(runCheck(options)).rejects.toMatchObject({ code, argument });
  };
  await failing({ only: ['pooling'] }, 'ERR_ARGUMENT', 'only');
  await failing({ device: 'tpu' }, 'ERR_DEVICE', 'device');
  for (const seed of [-1, 1.5, NaN, 2 ** 32, '1']) await failing({ seed }, 'ERR_ARGUMENT', 'seed');
  expectError(() => fresh.randn([1], { seed: -1 }), 'ERR_ARGUMENT', 'seed');
});

describe('a report', () => {
  const row = (change: Partial<CheckRow>): CheckRow => ({
    ...{ op: 'denseAttention', case: 'first', tensor: 'dq', maxError: 1e-3, limit: 2e-3, relativeL2: 1e-4 },
    ...{ limitL2: 3e-3, worst: { coordinates: [0, 1, 2], got: 1.001, want: 1 }, ok: true, ...change },
  });
  const rows = [row({}), row({ case: 'second', maxError: 1.5e-3 }), row({ case: 'third', maxError: 1e-4 })];

  test('shows the case nearest to its limits, or all of them', () => {
    const text = formatCheck(new CheckReport('cpu', 'a CPU', 1, 2.5, rows));
    expect(text).toMatch(
      /denseAttention +│ dq +│ +3 │ second .* 1\.5e-3 \/ 2\.0e-3 .* \[0, 1, 2\] got 1\.001, want 1 +│ ok/,
    );
    expect(text).not.toContain('first');
    expect(text).toContain('cpu (a CPU), seed 1: 3 passed, 0 failed, 2.5 s');
    const all = formatCheck(new CheckReport('cpu', 'a CPU', 1, 2.5, rows), { all: true });
    for (const name of ['first', 'second', 'third']) expect(all).toContain(name);
  });

  test('shows every row that failed', () => {
    const bad = [
      row({ case: 'fourth', ok: false, maxError: Infinity }),
      row({ case: 'fifth', ok: false, maxError: 1 }),
    ];
    const report = new CheckReport('cpu', 'a CPU', 1, 2.5, [...rows, ...bad]);
    const text = formatCheck(report);
    expect(report.ok).toBe(false);
    expect(text).toMatch(/fourth.*FAIL/);
    expect(text).toMatch(/fifth.*FAIL/);
    expect(text).toContain('3 passed, 2 failed');
  });

  test('is coloured only if asked', () => {
    const report = new CheckReport('cpu', 'a CPU', 1, 2.5, rows);
    const escape = String.fromCharCode(27);
    expect(formatCheck(report)).not.toContain(escape);
    expect(formatCheck(report, { colours: true })).toContain(`${escape}[32mok`);
  });

  test('survives JSON with its NaN and infinities', () => {
    const lse = row({ limitL2: Infinity, maxError: Infinity, worst: { coordinates: [3], got: NaN, want: -Infinity } });
    const read = JSON.parse(JSON.stringify(new CheckReport('cpu', 'a CPU', 1, 2.5, [lse]))) as object;
    const worst = { coordinates: [3], got: 'NaN', want: '-Infinity' };
    expect(read).toMatchObject({ ok: true, rows: [{ limitL2: 'Infinity', maxError: 'Infinity', limit: 2e-3, worst }] });
  });

  test('of nothing is not well', () => {
    expect(new CheckReport('cpu', 'a CPU', 1, 0, []).ok).toBe(false);
  });
});

test('lists are compared entry by entry', () => {
  const compare = (got: number[][], want: number[][]) => {
    const rows = new CaseRows('op', 'case');
    rows.lists('lists', got, want, [1, 1, want.length]);
    return rows.rows[0]!;
  };
  expect(compare([[0, 2], []], [[0, 2], []])).toMatchObject({ ok: true, maxError: 0 });
  expect(compare([[0, 2], [1]], [[0, 2], []])).toMatchObject({ ok: false, maxError: 1, worst: { got: 1, want: NaN } });
  expect(compare([[0], []], [[0, 2], []]).worst).toEqual({ coordinates: [0, 0, 0, 1], got: NaN, want: 2 });
  expect(compare([[2, 0]], [[0, 2]])).toMatchObject({
    ok: false,
    worst: { coordinates: [0, 0, 0, 0], got: 2, want: 0 },
  });
  expect(compare([[0]], [[0], [1]]).ok).toBe(false);
});
