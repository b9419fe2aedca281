/** `vsa` as a program: what it prints where, and the code it exits with. Runs dist, which `npm test` builds. */

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CHECKED_OPS } from '../../lib/check/index.js';
import { type BackendSupport, OPERATIONS } from '../../lib/attention/backends.js';
import { here } from '../under-test.js';

/** On the device under test. */
const ON = ['--device', here.toString()];
const MAIN = join(__dirname, '..', '..', 'dist', 'cli', 'main.js');

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vsa-cli-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

function vsa(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    cwd: folder,
    timeout: 120_000,
  });
  return { status, stdout, stderr };
}

interface Info {
  package: string;
  addon: { version: string; cuda: string | null };
  cpu: { threads: number };
  cuda: { problem: string; devices: { index: number; hasCode: boolean }[] };
  backends: Record<string, BackendSupport[]>;
  automatic: Record<string, string>;
}

describe('vsa', () => {
  test('--help names every command, an example and the exit codes', () => {
    const { status, stdout } = vsa(['--help']);
    expect(status).toBe(0);
    for (const text of ['info', 'check', 'bench', 'demo', 'Examples:', 'Exit codes:']) expect(stdout).toContain(text);
  });

  test.each(['info', 'check', 'bench', 'demo'])('%s --help has examples, --json and the exit codes', (command) => {
    const { status, stdout } = vsa([command, '--help']);
    expect(status).toBe(0);
    for (const text of [`vsa ${command}`, 'Examples:', '--json', 'Exit codes:']) expect(stdout).toContain(text);
  });

  test('--version is the package version', () => {
    const { version } = JSON.parse(readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8')) as {
      version: string;
    };
    expect(vsa(['--version'])).toMatchObject({ status: 0, stdout: `${version}\n` });
  });

  test.each([
    ['no command', []],
    ['an unknown command', ['fly']],
    ['an unknown option', ['info', '--loud']],
    ['an excess argument', ['info', 'more']],
    ['a seed that is no number', ['check', '--seed', 'x']],
    ['an unknown device', ['check', '--device', 'tpu']],
    ['an unknown operation', ['check', '--only', 'everything']],
    ['options that exclude each other', ['demo', '--video', 'a.mp4', '--tokens', 'b.safetensors']],
    ['steps beside the demo of attention', ['demo', '--attention', '--steps', '3']],
    ['a sparsity above 1', ['demo', '--sparsity', '2']],
  ])('%s is wrong usage: exit 2, said on stderr, nothing on stdout', (_, args) => {
    const { status, stdout, stderr } = vsa(args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).not.toBe('');
    expect(stderr).not.toContain('    at '); // a stack
  });
});

describe('vsa info', () => {
  test('prints devices, versions, and why a backend does not serve', () => {
    const { status, stdout, stderr } = vsa(['info']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    for (const text of ['addon', 'node', 'cpu backend', 'GPUs', 'sm90', 'without backend: cpu', ...OPERATIONS])
      expect(stdout).toContain(text);
  });

  test('--json holds the same', () => {
    const info = JSON.parse(vsa(['info', '--json'], { VSA_NUM_THREADS: '3' }).stdout) as Info;
    expect(info.package).toBe(info.addon.version);
    expect(info.cpu.threads).toBe(3);
    expect(info.cuda.devices.length > 0 || info.cuda.problem !== '').toBe(true);
    const gpus = info.cuda.devices.filter((gpu) => gpu.hasCode).map((gpu) => `cuda:${gpu.index}`);
    expect(Object.keys(info.backends)).toEqual(['cpu', ...gpus]);
    expect(Object.keys(info.automatic)).toEqual(['cpu', ...gpus]);
    for (const [device, rows] of Object.entries(info.backends)) {
      expect(new Set(rows.map((row) => row.operation))).toEqual(new Set(OPERATIONS));
      for (const row of rows) {
        if (row.backend !== 'sm90') expect(row.serves).toBe(row.backend === device.replace(/:.*/, ''));
        expect(row.why === '').toBe(row.serves);
      }
      const hopper = rows.some((row) => row.backend === 'sm90' && row.serves);
      expect(info.automatic[device]).toMatch(hopper ? /^sm90 for .*, else cuda$/ : device.replace(/:.*/, ''));
    }
  });
});

describe('vsa check', () => {
  test('an operation: a table, all rows hold, exit 0', () => {
    const { status, stdout } = vsa(['check', ...ON, '--only', 'coarseAttention']);
    expect(status).toBe(0);
    for (const text of ['coarseAttention', 'lse', 'dq', 'dk', 'dv', 'worst element', '0 failed']) {
      expect(stdout).toContain(text);
    }
  });

  test('--json: every row with its verdict and the place of its worst element', () => {
    const { status, stdout } = vsa(['check', ...ON, '--only', 'tilePooling', 'tile', '--json', '--seed', '7']);
    const report = JSON.parse(stdout) as {
      ok: boolean;
      seed: number;
      rows: { op: string; tensor: string; ok: boolean; worst: { coordinates: number[] } | null }[];
    };
    expect({ status, ok: report.ok, seed: report.seed }).toEqual({ status: 0, ok: true, seed: 7 });
    expect(new Set(report.rows.map((row) => row.op))).toEqual(new Set(['tilePooling', 'tile']));
    expect(report.rows.every((row) => row.ok && row.worst !== null && row.worst.coordinates.length > 0)).toBe(true);
  });

  test('the operations that can be asked for are all that are exported', () => {
    expect(CHECKED_OPS).toEqual(expect.arrayContaining([...OPERATIONS]));
  });

  test('a device that is not there: exit 1, the code and the reason', () => {
    const { status, stdout, stderr } = vsa(['check', '--device', 'cuda:99', '--json']);
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'ERR_DEVICE' } });
    expect(stderr).toContain('[ERR_DEVICE]');
  });
});

describe('vsa demo', () => {
  const SMALL = ['demo', ...ON, '--grid', '5x6x7', '--heads', '1'];

  test('writes the report, prints a summary, leaves no other file', () => {
    const out = join(folder, 'demo', 'report.html');
    mkdirSync(join(folder, 'demo'));
    const { status, stdout } = vsa([...SMALL, '--out', out]);
    expect(status).toBe(0);
    expect(stdout).toContain(out);
    expect(readFileSync(out, 'utf8')).toMatch(/^<!doctype html>/i);
    expect(readdirSync(join(folder, 'demo'))).toEqual(['report.html']);
  });

  test('--json prints one object', () => {
    const { status, stdout } = vsa([...SMALL, '--out', join(folder, 'json.html'), '--json']);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toEqual(expect.any(Object));
  });

  test('a folder that does not exist: exit 1 before any work', () => {
    const { status, stderr } = vsa([...SMALL, '--out', join(folder, 'nowhere', 'x.html')]);
    expect(status).toBe(1);
    expect(stderr).toContain('[ERR_FILE]');
  });

  test('without ffmpeg a sentence that says what to do', () => {
    const video = join(folder, 'clip.mp4');
    writeFileSync(video, 'no video');
    const { status, stderr } = vsa(['demo', '--video', video, '--out', join(folder, 'x.html')], { PATH: folder });
    expect(status).toBe(1);
    expect(stderr).toMatch(/ffmpeg.*\[ERR_VIDEO\]/s);
    expect(stderr).toContain('--tokens');
  });
});
