/** `vsa demo`: one of its two demos. */

import { type AnyDemoOptions, chooseDemo } from '../demo/kind.js';
import { runDemo } from '../demo/run.js';
import { runTrainingDemo } from '../demo/training/run.js';
import type { TrainingDemoOptions } from '../demo/training/settings.js';
import { EXIT } from './report.js';

/** As shells count: 128 and the signal's number. */
const INTERRUPTED = 130;

export async function runDemoCommand(all: AnyDemoOptions): Promise<number> {
  const demo = chooseDemo(all);
  if (demo.kind === 'training') return trainingDemo(demo.options);
  const { stdout, stderr } = process;
  await runDemo(demo.options, { stdout, stderr, isTTY: stderr.isTTY });
  return EXIT.ok;
}

async function trainingDemo(options: TrainingDemoOptions): Promise<number> {
  const { stdout, stderr } = process;
  const controller = new AbortController();
  // A second Ctrl-C ends the process as it ends any other.
  const stop = () => controller.abort();
  process.once('SIGINT', stop);
  try {
    const io = { stdout, stderr, isTTY: stderr.isTTY };
    const result = await runTrainingDemo(options, io, { signal: controller.signal });
    if (result !== undefined) return EXIT.ok;
    stderr.write('\ninterrupted: no page is written\n');
    return INTERRUPTED;
  } finally {
    process.removeListener('SIGINT', stop);
  }
}
