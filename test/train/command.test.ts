/** `vsa train` as a process: signals, crashes, and what is left on the disk. Runs dist, which `npm test` builds. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { device } from '../../lib/device/device.js';
import { loadCheckpoint } from '../../lib/train/checkpoint.js';
import { here } from '../under-test.js';
import { checkpointOf, rowsOf, temporaryFolder } from './support.js';

const COMMAND = resolve(__dirname, '../../dist/cli/main.js');
const folder = temporaryFolder();
const ON = ['--device', here.toString()];
const SMALL = [
  ...ON,
  '--video',
  '4x64x64',
  '--patch',
  '1x8x8',
  '--width',
  '64',
  '--heads',
  '1',
  '--layers',
  '2',
  '--ffn',
  '128',
];

function start(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [COMMAND, 'train', ...args], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
}

function vsa(args: readonly string[]) {
  const options = { cwd: folder, encoding: 'utf8', timeout: 120_000 } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [COMMAND, ...args], options);
  return { status, stdout, stderr };
}

function ending(child: ChildProcess): Promise<NodeJS.Signals | number | null> {
  return new Promise((done) => child.on('close', (code, signal) => done(signal ?? code)));
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); tries++) {
    if (tries > 2000) throw new Error(`waited in vain for ${what}`);
    await new Promise((resume) => setTimeout(resume, 20));
  }
}

const steps = (out: string) => (existsSync(join(out, 'log.jsonl')) ? rowsOf(out).length : 0);

test('Ctrl-C saves what was done, and --resume goes on', async () => {
  const out = join(folder, 'interrupted');
  const child = start([...SMALL, '--steps', '100000', '--out', out]);
  const end = ending(child);
  await until('three steps', () => steps(out) >= 3);
  child.kill('SIGINT');
  expect(await end).toBe(130);
  const { facts, tensors } = await loadCheckpoint(checkpointOf(out), device('cpu'));
  for (const part of Object.values(tensors)) for (const tensor of part.values()) tensor.dispose();
  expect(facts.step).toBe(steps(out));
  expect(readdirSync(out).sort()).toEqual(['checkpoint.safetensors', 'log.jsonl', 'settings.json']);
  const again = start([...ON, '--out', out, '--resume']);
  const second = ending(again);
  await until('more steps', () => steps(out) > facts.step + 2);
  again.kill('SIGTERM');
  expect(await second).toBe(130);
});

test('kill -9, also in the middle of a checkpoint, leaves a whole one', async () => {
  const out = join(folder, 'killed');
  for (const delay of [0, 7, 23]) {
    // A checkpoint after every step: most of the time is spent on writing it.
    const child = start(
      existsSync(checkpointOf(out))
        ? [...ON, '--out', out, '--resume']
        : [...SMALL, '--steps', '100000', '--checkpoint-every', '1', '--out', out],
    );
    const end = ending(child);
    const before = steps(out);
    await until('steps', () => existsSync(checkpointOf(out)) && steps(out) >= before + 3);
    await new Promise((resume) => setTimeout(resume, delay));
    child.kill('SIGKILL');
    expect(await end).toBe('SIGKILL');
    const { facts, tensors } = await loadCheckpoint(checkpointOf(out), device('cpu'));
    for (const part of Object.values(tensors)) for (const tensor of part.values()) tensor.dispose();
    expect(facts.step).toBeGreaterThan(0);
    expect(Math.abs(facts.step - steps(out))).toBeLessThanOrEqual(2);
  }
});

test('trains, samples and reports', () => {
  const trained = vsa(['train', ...SMALL, '--steps', '3', '--out', 'small', '--json']);
  expect(trained).toMatchObject({ status: 0 });
  expect(JSON.parse(trained.stdout)).toMatchObject({ step: 3, interrupted: false });
  expect(existsSync(join(folder, 'small', 'report.html'))).toBe(true);
  const sampled = vsa(['sample', '--checkpoint', 'small/checkpoint.safetensors', '--steps', '3', ...ON]);
  expect(sampled).toMatchObject({ status: 0, stdout: 'sample.gif: 4x64x64, after 3 steps\n' });
  expect(readFileSync(join(folder, 'sample.gif')).subarray(0, 6).toString()).toBe('GIF89a');
});

test.each([
  [['train', '--resume', '--steps', '4'], 2, "steps: got 'steps' beside resume"],
  [['train', '--width', '100'], 2, 'heads: got width 100 in 2 heads'],
  [['train', '--video', '8x64'], 2, 'three whole numbers'],
  [['train', '--learning-rate', 'fast'], 2, 'It takes a number'],
  [['train', '--out', 'nothing-here', '--resume'], 1, 'ERR_FILE'],
  [['sample', '--checkpoint', 'missing.safetensors'], 1, 'ERR_FILE'],
  [['report', '--runs', 'missing'], 1, 'ERR_FILE'],
])('vsa %j ends with code %i', (args, code, text) => {
  const { status, stderr } = vsa([...args, ...ON]);
  expect(stderr).toContain(text);
  expect(status).toBe(code);
});
