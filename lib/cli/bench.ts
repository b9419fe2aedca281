/** `vsa bench`: prints what lib/bench measures. Ctrl-C ends it with what is finished. */

import { bench } from '../bench/command.js';
import type { BenchOptions } from '../bench/options.js';
import { EXIT } from './report.js';

export type { BenchOptions } from '../bench/options.js';

/** As shells count: 128 and the signal's number. */
const INTERRUPTED = 130;

export async function runBenchCommand(options: BenchOptions): Promise<number> {
  const { stdout, stderr } = process;
  const controller = new AbortController();
  // A second Ctrl-C ends the process as it ends any other.
  const stop = () => controller.abort(new Error('interrupted'));
  process.once('SIGINT', stop);
  try {
    const io = { stdout, stderr, isTTY: stderr.isTTY };
    const { ok, interrupted } = await bench(options, io, controller.signal);
    // A call may still be running on the device, for minutes; nobody waits for it any more.
    if (interrupted) process.exit(INTERRUPTED);
    return ok ? EXIT.ok : EXIT.failed;
  } finally {
    process.removeListener('SIGINT', stop);
  }
}
