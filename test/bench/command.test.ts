/** `vsa bench` as a program: what it prints where, what it leaves in files, and how it ends. Runs dist. */

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BenchRow } from '../../lib/bench/row.js';
import { ROOT } from '../binding/node.js';
import { here } from '../under-test.js';

const MAIN = join(ROOT, 'dist', 'cli', 'main.js');
const SMALL = ['--device', here.toString(), '--grid', '5x9x10', '--heads', '2', '--head-dim', '64', '--samples', '3'];

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vsa-bench-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function bench(...args: string[]) {
  const options = { encoding: 'utf8', cwd: folder, timeout: 60_000 } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, 'bench', ...args], options);
  return { status, stdout, stderr };
}

const lines = (text: string): BenchRow[] =>
  text.trimEnd().split('\n').map((line) => JSON.parse(line) as BenchRow); // prettier-ignore

test('a Markdown table on stdout, progress on stderr', () => {
  const { status, stdout, stderr } = bench('pool,select', ...SMALL);
  expect(status).toBe(0);
  expect(stdout).toMatch(/^\| op /m);
  expect(stdout).toContain('0 failed');
  expect(stderr).toContain('pool 5x9x10 H2 D64 bfloat16 grid forward: ');
});

test('--json: a line for every row; --out: the same, appended; --html: a page; --compare: ratios', () => {
  const args = ['fine', ...SMALL, '--direction', 'forward', '--graph', 'off', '--out', 'rows.jsonl'];
  const first = bench(...args, '--json');
  expect(first.status).toBe(0);
  const [row, ...more] = lines(first.stdout);
  expect(more).toEqual([]);
  expect(row).toMatchObject({ op: 'fine', direction: 'forward', ok: true });
  expect(lines(readFileSync(join(folder, 'rows.jsonl'), 'utf8'))).toEqual([row]);

  const second = bench(...args, '--html', 'page.html', '--compare', 'rows.jsonl');
  expect(second.status).toBe(0);
  expect(second.stdout).toMatch(/against base[\s\S]*\d\.\d\dx/);
  expect(lines(readFileSync(join(folder, 'rows.jsonl'), 'utf8'))).toHaveLength(2);
  expect(readFileSync(join(folder, 'page.html'), 'utf8')).toMatch(/^<!doctype html>/);
  expect(readdirSync(folder).sort()).toEqual(['page.html', 'rows.jsonl']);

  const third = bench(...args, '--compare', 'rows.jsonl', '--json');
  expect(lines(third.stdout)[0]).toMatchObject({
    base_ms: expect.any(Number) as number,
    ratio: expect.any(Number) as number,
    ...{ base_device: row!.device, base_commit: row!.commit },
  });
});

test('--from: rows of files as a table, a page, JSON; exit 0 whatever they say, and nothing is measured', () => {
  const failing = ['pool', ...SMALL, '--grid', '4000x4000x4000,5x9x10', '--direction', 'forward', '--graph', 'off'];
  const measured = bench(...failing, '--out', 'rows.jsonl');
  expect(measured.status).toBe(1);
  const shown = bench('--from', 'rows.jsonl', '--html', 'page.html');
  expect(shown).toEqual({ status: 0, stdout: `${measured.stdout}\nReport: page.html\n`, stderr: '' });
  expect(readFileSync(join(folder, 'page.html'), 'utf8')).toContain('1 of 2 rows failed');
  const twice = bench('--from', 'rows.jsonl', 'rows.jsonl', '--compare', 'rows.jsonl');
  expect(twice.stdout).toMatch(/base: .*commit[\s\S]*either way: 1\.000[\s\S]*2 ok, 2 failed/);
  const json = bench('--json', '--from', 'rows.jsonl');
  expect(json.stdout).toBe(readFileSync(join(folder, 'rows.jsonl'), 'utf8'));
});

test.each([
  ['a file that is not there', ['--from', 'nowhere.jsonl'], 1, 'ERR_FILE'],
  ['options of a measurement', ['fine', '--from', 'nowhere.jsonl'], 2, 'ERR_ARGUMENT'],
  ['no file at all', ['--from'], 2, 'argument missing'],
])('--from with %s', (_, args, code, text) => {
  const { status, stdout, stderr } = bench(...args);
  expect({ status, stdout }).toEqual({ status: code, stdout: '' });
  expect(stderr).toContain(text);
});

test('a row that fails: exit 1, and the others are there', () => {
  const args = ['pool', ...SMALL, '--grid', '4000x4000x4000,5x9x10', '--direction', 'forward', '--graph', 'off'];
  const { status, stdout } = bench(...args, '--json');
  expect(status).toBe(1);
  expect(lines(stdout).map(({ ok }) => ok)).toEqual([false, true]);
});

test.each([
  ['an unknown operation', ['fly'], 2, 'ERR_ARGUMENT'],
  ['an excess argument', ['fine', 'dense'], 2, 'too many arguments'],
  ['an impossible grid', ['--grid', '4x4'], 2, 'ERR_GRID'],
  ['K above N', ['--grid', '4x4x4', '--top-k', '2'], 2, 'ERR_TOP_K'],
  ['an unknown device', ['--device', 'tpu'], 2, 'ERR_DEVICE'],
  ['no such GPU', ['--device', 'cuda:99'], 1, 'ERR_DEVICE'],
  ['a base that is not there', ['--compare', 'nowhere.jsonl'], 1, 'ERR_FILE'],
  ['a report in no folder', ['--html', join('no', 'page.html')], 1, 'ERR_FILE'],
  ['a backend that cannot serve', ['--backend', 'sm90', '--device', 'cpu'], 1, 'ERR_BACKEND'],
])('%s is said before any work', (_, args, code, text) => {
  const device = args.includes('--device') ? [] : ['--device', here.toString()];
  const { status, stdout, stderr } = bench(...args, ...device);
  expect({ status, stdout }).toEqual({ status: code, stdout: '' });
  expect(stderr).toContain(text);
  expect(stderr).not.toContain('    at ');
});

test('the help has the presets, examples and exit codes', () => {
  const { status, stdout } = bench('--help');
  expect(status).toBe(0);
  for (const text of [
    'wan-14b-720p',
    'fine-40k',
    '24x32x52',
    'vsa bench',
    'Examples:',
    '--json',
    'Exit codes:',
    '130',
  ]) {
    expect(stdout).toContain(text);
  }
});

test('Ctrl-C: finished rows are printed and written, exit 130', async () => {
  // The first shape is over at once, the second would take minutes.
  const args = ['dense', ...SMALL, '--grid', '5x9x10,32x64x64', '--graph', 'off', '--direction', 'forward', '--json'];
  args.push('--out', 'rows.jsonl', '--html', 'page.html', '--samples', here.type === 'cpu' ? '3' : '20000');
  const child = spawn(process.execPath, [MAIN, 'bench', ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  const end = new Promise<number | NodeJS.Signals | null>((resolve) =>
    child.on('close', (code, signal) => resolve(signal ?? code)),
  );
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const written = join(folder, 'rows.jsonl');
  for (let tries = 0; !(existsSync(written) && readFileSync(written, 'utf8').endsWith('\n')) && tries < 2000; tries++) {
    await new Promise((resume) => setTimeout(resume, 20));
  }
  // Now in the middle of the second.
  await new Promise((resume) => setTimeout(resume, 200));
  child.kill('SIGINT');
  expect(await end).toBe(130);
  expect(lines(stdout)).toEqual([expect.objectContaining({ op: 'dense', grid: '5x9x10', ok: true })]);
  expect(lines(readFileSync(written, 'utf8'))).toHaveLength(1);
  expect(existsSync(join(folder, 'page.html'))).toBe(true);
  expect(stderr).not.toContain('    at ');
});
