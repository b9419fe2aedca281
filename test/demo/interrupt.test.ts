import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { temporaryFolder } from './support.js';
import { here } from '../under-test.js';

// The compiled command, which `npm test` builds first: a signal must meet a real process.
const COMMAND = resolve(__dirname, '../../dist/cli/main.js');
const folder = temporaryFolder();

/** Starts `vsa demo` in an empty folder. */
function start(
  name: string,
  args: string[],
  env: Record<string, string> = {},
): { child: ChildProcess; inside: string } {
  const inside = join(folder, name);
  mkdirSync(inside);
  const child = spawn(process.execPath, [COMMAND, 'demo', '--device', here.toString(), ...args], {
    cwd: inside,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  return { child, inside };
}

function ending(child: ChildProcess): Promise<NodeJS.Signals | number | null> {
  return new Promise((done) => child.on('close', (code, signal) => done(signal ?? code)));
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); tries++) {
    if (tries > 1000) throw new Error(`waited in vain for ${what}`);
    await new Promise((resume) => setTimeout(resume, 20));
  }
}

test('Ctrl-C while it trains ends it with 130, and leaves no file', async () => {
  const { child, inside } = start('training', ['--steps', '1000000']);
  const end = ending(child);
  let said = '';
  child.stderr!.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await until('the steps to begin', () => said.includes('parameters'));
  child.kill('SIGINT');
  expect(await end).toBe(130);
  expect(said).toContain('no page is written');
  expect(readdirSync(inside)).toEqual([]);
});

test('Ctrl-C in the middle leaves no file', async () => {
  const { child, inside } = start('middle', ['--export-tokens', 'tokens.safetensors']);
  const end = ending(child);
  let progress = '';
  child.stderr!.on('data', (chunk: Buffer) => (progress += chunk.toString()));
  await until('the attention to begin', () => progress.includes('projection:'));
  child.kill('SIGINT');
  expect(await end).toBe('SIGINT');
  // The tokens were complete by then; a report is not, and there is nothing that waits to be renamed.
  expect(readdirSync(inside)).toEqual(['tokens.safetensors']);
});

test('Ctrl-C while a video is decoded ends ffmpeg too', async () => {
  const ffmpeg = join(folder, 'ffmpeg');
  const pidFile = join(folder, 'pid');
  writeFileSync(
    ffmpeg,
    `#!/bin/sh\necho $$ > '${pidFile}.new' && mv '${pidFile}.new' '${pidFile}'\nexec cat /dev/zero\n`,
  );
  chmodSync(ffmpeg, 0o755);
  const { child, inside } = start('decoding', ['--video', ffmpeg, '--grid', '2000x4x4'], { VSA_FFMPEG: ffmpeg });
  const end = ending(child);
  await until('ffmpeg to start', () => existsSync(pidFile));
  const pid = Number(readFileSync(pidFile, 'utf8'));
  child.kill('SIGINT'); // to this process alone, not to its group as a terminal would
  expect(await end).toBe('SIGINT');
  await until('ffmpeg to end', () => !existsSync(`/proc/${pid}`));
  expect(readdirSync(inside)).toEqual([]);
});
