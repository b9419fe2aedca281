/** What becomes of rows: tables, comparisons, pages, converted baselines. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Base, comparisonText } from '../../lib/bench/compare.js';
import type { BenchOptions } from '../../lib/bench/options.js';
import { readRecorded, readRows } from '../../lib/bench/recorded.js';
import { machineOf } from '../../lib/device/machine.js';
import { renderBench } from '../../lib/bench/report/page.js';
import type { BenchRow } from '../../lib/bench/row.js';
import { markdown, ratioText, table } from '../../lib/bench/table.js';
import { ROOT } from '../binding/node.js';

const H100 = machineOf({ type: 'cuda', name: 'NVIDIA H100 80GB HBM3' })!;

function rowOf(more: Partial<BenchRow> = {}): BenchRow {
  return {
    ...{ op: 'fine', direction: 'forward', backend: 'cuda', B: 1, H: 12, Hkv: 12, grid: '24x32x52', tokens: 39936 },
    ...{ slots: 39936, D: 128, dtype: 'bfloat16', tiles: 624, tile: '4x4x4', K: 62, sparsity: 0.9, lists: 'local' },
    ...{ data: 'randn', seed: 1, overlap: 0.49, order: 'grid', prefix: 0, coarse: null, fineGate: null, cache: 'warm' },
    ...{
      graph: false,
      deterministic: true,
      forced: false,
      ms: 2.7,
      ms_p10: 2.6,
      ms_p90: 2.8,
      samples: [2.6, 2.7, 2.8],
    },
    ...{
      host_us: 90,
      stages: { fine: 2.7 },
      peak_bytes: 246e6,
      gflop: 973.6,
      tflops: 360.6,
      tflops_slots: 360.6,
      mfu: 0.364,
      gbs: 183,
    },
    ...{ bound: 'L2', bound_ms: 2.03, bound_share: 0.75, ok: true, error: null, device: H100_NAME, driver: '580.1' },
    ...{ cuda: '13.0', sm_mhz: 1680, watts: 695, celsius: 60, package: '0.1.0', commit: 'abc', date: '2026-01-01' },
    ...more,
  };
}
const H100_NAME = 'NVIDIA H100 80GB HBM3';

describe('Markdown', () => {
  test('a table that says what was measured, on what, and whether it is right', () => {
    const text = markdown([rowOf(), rowOf({ direction: 'backward', stages: { transpose: 0.02, fine: 2.6 } })], H100);
    for (const part of [
      ...[H100_NAME, '580.1', 'abc', '989.4 TFLOP/s', 'fine forward', '24x32x52', '62/624', 'local 49 %', '2.700'],
      ...[
        '2.600 to 2.800',
        '36.4 %',
        'L2 75 %',
        '1680',
        '  C |',
        ' 60 |',
        'transpose 0.02000, fine 2.600',
        '97.0 %',
        '2 ok, 0 failed',
      ],
    ]) {
      expect(text).toContain(part);
    }
  });

  test('rows of several sources: each is named once', () => {
    const baseline = { backend: 'cudnn', package: null, commit: null, cuda: null, ok: null };
    const other = { device: 'NVIDIA H200', commit: 'def' };
    const text = markdown([rowOf(), rowOf(baseline), rowOf(other), rowOf()], undefined);
    const [first] = text.split('\n');
    expect(first).toBe(
      `${H100_NAME}, driver 580.1, CUDA 13.0, video-sparse-attention 0.1.0 (abc). ` +
        `${H100_NAME}, driver 580.1, other programs (cudnn). ` +
        'NVIDIA H200, driver 580.1, CUDA 13.0, video-sparse-attention 0.1.0 (def). ' +
        'MFU and bounds are of the peaks of each row’s device.',
    );
  });

  test('lines are aligned, and columns without a value are left out', () => {
    const lines = table([rowOf({ mfu: null, watts: null }), rowOf({ op: 'vsa', mfu: null, watts: null })]).split('\n');
    expect(new Set(lines.map((line) => line.length)).size).toBe(1);
    expect(lines[0]).not.toMatch(/MFU|\bW\b/);
    expect(lines).toHaveLength(4);
  });

  test('a row that failed says why; one of another program is unchecked', () => {
    const failed = rowOf({ ok: false, error: 'ERR_OUT_OF_MEMORY: too large', ms: null, ms_p10: null, ms_p90: null });
    const text = markdown([failed, rowOf({ ok: null, backend: 'cudnn' })], H100);
    expect(text).toMatch(/FAIL fine forward.*ERR_OUT_OF_MEMORY: too large/);
    expect(text).toContain('unchecked');
    expect(text).toContain('0 ok, 1 failed, 1 unchecked');
  });

  test('no rows, no machine', () => {
    expect(markdown([], undefined)).toBe('No rows.');
    expect(markdown([rowOf({ mfu: null, bound: null })], undefined)).toContain('No peak is known');
  });
});

describe('a comparison', () => {
  const base = new Base([rowOf({ ms: 5.4, ms_p10: 5.3, ms_p90: 5.5 }), rowOf({ ms: 2.75, graph: true })]);

  test.each<[string, Partial<BenchRow>, string]>([
    ['faster', {}, '2.00x ▲'],
    ['slower', { ms: 10.8, ms_p10: 10.7, ms_p90: 10.9 }, '0.50x ▼'],
    ['within the noise', { graph: true }, '1.02x'],
    ['of another backend', { backend: 'sm90' }, '2.00x ▲ (cuda)'],
    ['of nothing', { K: 63 }, 'new'],
  ])('%s', (_, more, text) => {
    expect(ratioText(base.ratio(rowOf(more)))).toBe(text);
  });

  test('the same backend goes before others, and the latest before earlier ones', () => {
    const several = new Base([
      rowOf({ ms: 1 }),
      rowOf({ ms: 3 }),
      rowOf({ ms: 9, backend: 'sm90' }),
      rowOf({ ms: null }),
    ]);
    expect(several.ratio(rowOf())?.base).toBe(3);
    expect(several.ratio(rowOf({ backend: 'sm90' }))?.base).toBe(9);
  });

  test('names the base, and how far medians are apart at most, either way', () => {
    const rows = [rowOf({ ms: 5.5 }), rowOf({ ms: 2.7, graph: true }), rowOf({ K: 63 })];
    expect(comparisonText(rows, base)).toEqual([
      `base: ${H100_NAME}, commit abc`,
      'Largest ratio of two medians, either way: 1.019 (fine forward 24x32x52), of 2 rows that have a counterpart',
    ]);
    expect(comparisonText([rowOf({ ms: 10.8 })], base)[1]).toContain('either way: 2.000');
    expect(markdown(rows, H100, base)).toContain(`\n\nbase: ${H100_NAME}, commit abc\nLargest ratio`);
    expect(renderBench(rows, H100, base)).toContain(`base: ${H100_NAME}, commit abc<br>Largest ratio`);
  });

  test('warns of other devices', () => {
    const rows = [rowOf(), rowOf({ device: 'NVIDIA H200' })];
    expect(comparisonText(rows, base)[1]).toBe(
      `WARNING: 1 of 2 ratios are of different devices: NVIDIA H200 against ${H100_NAME}`,
    );
    expect(base.ratio(rows[1]!)).toMatchObject({ device: H100_NAME, commit: 'abc' });
    const several = new Base([rowOf(), rowOf({ commit: null, backend: 'cudnn' })]);
    expect(comparisonText([rowOf({ K: 1 })], several)).toEqual([
      `base: ${H100_NAME}, commit abc; ${H100_NAME}, no commit`,
      'No row has a counterpart.',
    ]);
  });

  test('has a column of its own', () => {
    expect(table([rowOf()], base)).toContain('2.00x ▲');
    expect(markdown([rowOf()], H100, base)).toContain('against base');
  });
});

describe('files of rows', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vsa-bench-report-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'rows');

  test('JSON lines and arrays', async () => {
    const rows = [rowOf(), rowOf({ op: 'vsa' })];
    writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join('\n'));
    expect(await readRows(path)).toEqual(rows);
    writeFileSync(path, JSON.stringify(rows, undefined, 2));
    expect(await readRows(path)).toEqual(rows);
  });

  test.each([
    ['no JSON', 'rows'],
    ['a line cut short', `${JSON.stringify(rowOf())}\n{"op": "fi`],
    ['other JSON', '{"a": 1}'],
    ['an array of something else', '[1, null]'],
    ['a time that is a text', JSON.stringify({ ...rowOf(), ms: '2.7' })],
    ['no device', JSON.stringify({ ...rowOf(), device: undefined })],
    ['a device that is null', JSON.stringify({ ...rowOf(), device: null })],
    ['samples that are none', JSON.stringify({ ...rowOf(), samples: ['a'] })],
    ['stages that are a list', JSON.stringify({ ...rowOf(), stages: [1] })],
  ])('%s', async (_, text) => {
    writeFileSync(path, text);
    await expect(readRows(path)).rejects.toMatchObject({ code: 'ERR_FILE_FORMAT' });
  });

  test('the field that is wrong is named', async () => {
    writeFileSync(path, [rowOf(), { ...rowOf(), K: '62' }].map((row) => JSON.stringify(row)).join('\n'));
    await expect(readRows(path)).rejects.toMatchObject({
      ...{ argument: path, got: "K '62' in row 2" },
      wanted: 'rows of vsa bench, as JSON lines or an array: there, a number or null',
    });
  });

  test('of earlier versions, or with fields of a comparison', async () => {
    const { peak_bytes, stages, samples, ...old } = rowOf();
    writeFileSync(path, JSON.stringify({ ...old, base_ms: 3, ratio: 1.1 }));
    expect([peak_bytes, stages, samples]).not.toContain(undefined);
    expect(await readRows(path)).toEqual([{ ...rowOf(), peak_bytes: null, stages: {}, samples: [] }]);
  });

  test('every recorded one can be shown', async () => {
    const results = join(ROOT, 'bench', 'results');
    const files = readdirSync(results).filter((name) => /^h100.*\.jsonl$/.test(name));
    expect(files.length).toBeGreaterThan(4);
    const from = files.map((name) => join(results, name));
    const rows = await readRecorded({ from });
    expect(markdown(rows, undefined)).not.toMatch(/NaN|undefined/);
    expect(await readRecorded({ from: from[0], json: true, html: 'x', compare: 'y', op: undefined })).toEqual(
      await readRows(from[0]!),
    );
  });

  test.each<[string, BenchOptions, string]>([
    ['no names', { from: [] }, 'from'],
    ['an empty name', { from: [''] }, 'from'],
    ['an operation', { from: 'rows', op: 'fine' }, 'op'],
    ['a file to append to', { from: 'rows', out: 'more' }, 'out'],
    ['samples', { from: 'rows', samples: 3 }, 'samples'],
  ])('nothing is measured beside: %s', async (_, options, argument) => {
    await expect(readRecorded(options)).rejects.toMatchObject({ code: 'ERR_ARGUMENT', argument });
  });

  test('no file', async () => {
    await expect(readRows(join(folder, 'nowhere'))).rejects.toMatchObject({ code: 'ERR_FILE' });
  });

  test('baselines become rows with the same fields', () => {
    const device = H100_NAME;
    const dense = { shape: [1, 12, 32768, 128], device };
    const times = { forward_ms: 10.5, forward_tflops: 628.2, backward_ms: 29.0, backward_tflops: 568.6 };
    const lines = [
      'a warning of torch',
      JSON.stringify({ name: 'cudnn', ...dense, ...times }),
      JSON.stringify({ name: 'flash2', ...dense, error: 'no kernel' }),
      JSON.stringify({
        name: 'flex-sparse',
        shape: [1, 12, 39936, 128],
        device,
        forward_ms: 3.2,
        forward_tflops: 304.2,
      }),
    ];
    const script = join(ROOT, 'bench', 'baseline-rows.mjs');
    writeFileSync(path, `${JSON.stringify(rowOf())}\n`);
    const options = { input: lines.join('\n'), encoding: 'utf8' } as const;
    const printed = execFileSync(process.execPath, [script, '--like', path], options);
    const rows = printed.trimEnd().split('\n').map((line) => JSON.parse(line) as BenchRow); // prettier-ignore
    expect(rows).toHaveLength(6);
    for (const row of rows) expect(Object.keys(row).sort()).toEqual(Object.keys(rowOf()).sort());
    const [forward, backward, failed] = rows;
    expect(forward).toMatchObject({ op: 'dense', backend: 'cudnn', ms: 10.5, tflops: 628.2, mfu: 0.6349, ok: null });
    expect(forward).toMatchObject({ tokens: 32768, K: 512, cache: 'cold', driver: '580.1', commit: null });
    expect(backward).toMatchObject({ direction: 'backward', ms: 29 });
    expect(backward!.gflop).toBeCloseTo(2.5 * forward!.gflop!);
    expect(failed).toMatchObject({ backend: 'flash2', ok: false, error: 'no kernel', ms: null });
    // bench/dense-baseline.py gives times alone.
    const alone = execFileSync(process.execPath, [script], {
      input: JSON.stringify({ name: 'cudnn', ...dense, forward_ms: 10.5, backward_ms: 29 }),
      encoding: 'utf8',
    });
    expect((JSON.parse(alone.split('\n')[0]!) as BenchRow).tflops).toBeCloseTo(628.3, 1);
    expect(rows[4]).toMatchObject({ op: 'fine', backend: 'flex', K: 62, lists: 'random' });
    expect(table(rows)).toContain('cudnn');
  });
});

describe('the page', () => {
  const rows = [
    rowOf(),
    rowOf({ op: 'vsa', direction: 'backward', stages: { combine: 0.1, fine: 2.5 } }),
    rowOf({
      op: 'pool',
      gflop: null,
      tflops: null,
      tflops_slots: null,
      mfu: null,
      K: null,
      lists: null,
      overlap: null,
    }),
    rowOf({ ok: false, error: 'dq: got <b> & "wrong"' }),
  ];

  test('loads nothing, runs nothing, and escapes what it is given', () => {
    const page = renderBench(rows, H100, new Base([rowOf()]));
    expect(page).toMatch(/^<!doctype html>/);
    expect(page).toContain("default-src 'none'");
    expect(page).not.toMatch(/<script|https?:|src=/);
    expect(page).not.toContain('<b>');
    expect(page).toContain('dq: got &lt;b&gt; &amp; &quot;wrong&quot;');
    expect(page).toContain('prefers-color-scheme: dark');
  });

  test('has bars with bounds, stages, a roofline and all rows', () => {
    const page = renderBench(rows, H100);
    expect(page.match(/<svg/g)).toHaveLength(4);
    expect(page.match(/class="bound"/g)!.length).toBeGreaterThanOrEqual(rows.length);
    expect(page.match(/class="point"/g)).toHaveLength(3);
    expect(page.match(/role="img" aria-label="[^"]+"/g)).toHaveLength(4);
    expect(page.match(/<tr>/g)).toHaveLength(rows.length + 1);
    expect(page).not.toMatch(/NaN|undefined|Infinity/);
  });

  test('of a machine without a known peak, of a row without a time, of nothing', () => {
    const bare = rows.map((row) => ({ ...row, mfu: null, bound: null, bound_ms: null, bound_share: null }));
    expect(renderBench(bare, undefined)).not.toMatch(/NaN|undefined|Infinity|Roofline/);
    const none = {
      ms: null,
      ms_p10: null,
      ms_p90: null,
      gflop: null,
      tflops: null,
      gbs: null,
      samples: [],
      stages: {},
    };
    expect(renderBench([rowOf({ ...none, ok: false, error: 'x' })], H100)).not.toMatch(/NaN|undefined|Infinity/);
    expect(renderBench([], H100)).toContain('No row was finished');
  });
});
