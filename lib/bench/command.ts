/** `vsa bench`: runs what was asked for, and reports it. */

import { appendFile } from 'node:fs/promises';
import { checkWritable } from '../demo/checks.js';
import { createProgress, type DemoIo } from '../demo/progress.js';
import { VsaError } from '../errors.js';
import { writeFileAtomic } from '../files/atomic.js';
import { Base } from './compare.js';
import { type Machine, machineOf } from '../device/machine.js';
import { type BenchOptions, type BenchSettings, parseBenchOptions } from './options.js';
import { readRecorded, readRows } from './recorded.js';
import { renderBench } from './report/page.js';
import type { BenchRow } from './row.js';
import { runBench } from './run.js';
import { markdown } from './table.js';

export interface BenchOutcome {
  readonly rows: readonly BenchRow[];
  /** All were measured, and all are right. */
  readonly ok: boolean;
  /** The signal came before the end. */
  readonly interrupted: boolean;
}

/**
 * Runs the benchmark, or with `from` shows what files hold, whatever that says: progress on `io.stderr`; on `io.stdout`
 * a Markdown table at the end or, with `json`, a line for every row as it comes. Interrupted, it reports the rows that
 * are finished.
 *
 * @throws As parseBenchOptions; VsaError ERR_FILE, ERR_FILE_FORMAT for the files that were named; whatever ends a run.
 */
export async function bench(options: BenchOptions, io: DemoIo, signal?: AbortSignal): Promise<BenchOutcome> {
  if (options.from !== undefined) return showRecorded(options, io);
  const settings = parseBenchOptions(options);
  for (const name of ['out', 'html'] as const) {
    const path = settings[name];
    if (path !== undefined) await checkWritable(name, path);
  }
  const base = settings.compare === undefined ? undefined : new Base(await readRows(settings.compare));
  const machine = machineOf(settings.device);
  await settings.device.synchronize(); // a device that does not work is one error, not one for every row

  const rows: BenchRow[] = [];
  let interrupted = false;
  try {
    await measure(settings, base, rows, io, signal);
  } catch (error) {
    interrupted = signal?.aborted === true;
    if (!interrupted) {
      if (rows.length > 0) await report({ ...settings, base, machine }, rows, io);
      throw error;
    }
  }
  await report({ ...settings, base, machine }, rows, io);
  return { rows, ok: !interrupted && rows.every((row) => row.ok === true), interrupted };
}

async function showRecorded(options: BenchOptions, io: DemoIo): Promise<BenchOutcome> {
  const rows = await readRecorded(options);
  const { html, compare, json = false } = options;
  if (html !== undefined) await checkWritable('html', html);
  const base = compare === undefined ? undefined : new Base(await readRows(compare));
  if (json) for (const row of rows) io.stdout.write(lineOf(row, base));
  await report({ html, json, base, machine: commonMachine(rows) }, rows, io);
  return { rows, ok: true, interrupted: false };
}

/** Undefined where rows come from different ones. The CPU's names are no GPU's. */
function commonMachine(rows: readonly BenchRow[]): Machine | undefined {
  const machines = new Set(rows.map(({ device: name }) => machineOf({ type: 'cuda', name })));
  return machines.size === 1 ? [...machines][0] : undefined;
}

async function measure(
  settings: BenchSettings,
  base: Base | undefined,
  rows: BenchRow[],
  io: DemoIo,
  signal: AbortSignal | undefined,
): Promise<void> {
  const progress = createProgress(io);
  const writes: Promise<void>[] = [];
  let completed = false;
  const events = {
    begin: (name: string, total: number) => progress.stage(name, 1 / total),
    progress: (part: number) => progress.advance(part),
    row: (row: BenchRow) => {
      rows.push(row);
      if (settings.json) io.stdout.write(lineOf(row, base));
      // One after the other; a failure is told when all is over.
      if (settings.out !== undefined) writes.push(append(settings.out, row, writes.at(-1)));
    },
  };
  try {
    const run = runBench(settings, events, signal);
    await (signal === undefined ? run : Promise.race([run, aborted(signal, run)]));
    completed = true;
  } finally {
    progress.end(completed);
    await Promise.all(writes);
  }
}

/** Rejects at once, where a long call is still running on the device. */
function aborted(signal: AbortSignal, run: Promise<void>): Promise<never> {
  return new Promise((_, reject) => {
    const stop = () => {
      run.catch(() => undefined);
      reject(signal.reason as Error);
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}

async function append(path: string, row: BenchRow, before: Promise<void> | undefined): Promise<void> {
  await before;
  try {
    await appendFile(path, `${JSON.stringify(row)}\n`);
  } catch (cause) {
    throw new VsaError({
      code: 'ERR_FILE',
      argument: path,
      got: 'a write that failed',
      wanted: 'room for rows',
      cause,
    });
  }
}

/** The row; where there is something to compare with, that beside its own fields. */
function lineOf(row: BenchRow, base: Base | undefined): string {
  const ratio = base?.ratio(row);
  const compared = ratio !== undefined && {
    ...{ base_ms: ratio.base, base_device: ratio.device, base_commit: ratio.commit },
    ...{ ratio: ratio.ratio, beyond_noise: ratio.beyondNoise },
  };
  return `${JSON.stringify({ ...row, ...compared })}\n`;
}

interface Reported {
  readonly html: string | undefined;
  readonly json: boolean;
  readonly base: Base | undefined;
  readonly machine: Machine | undefined;
}

async function report({ html, json, base, machine }: Reported, rows: readonly BenchRow[], io: DemoIo): Promise<void> {
  if (html !== undefined) await writeFileAtomic(html, renderBench(rows, machine, base));
  if (json) return;
  io.stdout.write(`${markdown(rows, machine, base)}\n`);
  if (html !== undefined) io.stdout.write(`\nReport: ${html}\n`);
}
