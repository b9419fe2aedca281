/** Programs in a process of their own: for what ends a process, or is measured on one. They run what is built in dist. */

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { here } from '../under-test.js';

export const ROOT = join(__dirname, '..', '..');
export const DIST = join(ROOT, 'dist', 'index.js');

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface NodeOptions {
  flags?: readonly string[];
  /** Beside those of this process. */
  env?: Readonly<Record<string, string>>;
  cwd?: string;
  /** What `device()` gives there: it sees no GPU if that is the CPU. Default: the device under test. */
  device?: 'cpu' | 'cuda';
  /** Runs the command with these words before `node`. */
  prefix?: readonly string[];
}

/** Runs a program given as text and waits for its end. */
export function runNode(source: string, options: NodeOptions = {}): Promise<Outcome> {
  const { flags = [], env = {}, cwd = ROOT, device = here.type, prefix = [] } = options;
  const gpus = device === 'cpu' ? { CUDA_VISIBLE_DEVICES: '' } : {};
  const [command, ...args] = [...prefix, process.execPath, ...flags, '-e', source];
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...gpus, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), 50_000);
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

/**
 * The text of a program that has the package's exports in scope as `vsa`, and may await; `report(value)` hands a value
 * to the test. `worker(work)` starts a thread that runs the function `work`, given as text, with `vsa` and
 * `parentPort` in scope; `message(worker)` and `exit(worker)` wait for it.
 */
export function program(body: string): string {
  return `
    const vsa = require(${JSON.stringify(DIST)});
    ${UTILITIES}
    (async () => { ${body} })();`;
}

/** In scope of every program. */
const UTILITIES = `
    const report = (value) => process.stdout.write(JSON.stringify(value) + '\\n');
    const worker = (work) => new (require('node:worker_threads').Worker)(
      \`const vsa = require(${JSON.stringify(JSON.stringify(DIST)).slice(1, -1)});
      const { parentPort } = require('node:worker_threads');
      (\${work})();\`, { eval: true });
    const once = (emitter, event) => new Promise((resolve, reject) => emitter.once(event, resolve).once('error', reject));
    const message = (thread) => once(thread, 'message');
    const exit = (thread) => once(thread, 'exit');`;

/** Runs a program, which must end by itself with 0 and print no error; returns what it reported last. */
export async function runProgram(body: string, options: NodeOptions = {}): Promise<unknown> {
  const outcome = await runNode(program(body), options);
  expect(outcome).toMatchObject({ code: 0, signal: null, stderr: '' });
  return JSON.parse(outcome.stdout.trimEnd().split('\n').at(-1)!);
}
