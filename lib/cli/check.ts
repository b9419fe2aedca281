/** `vsa check`: prints what lib/check finds. */

import { type CheckBackend, formatCheck, runCheck } from '../check/index.js';
import { createProgress } from '../demo/progress.js';
import { device, type DeviceString } from '../device/device.js';
import { EXIT, printJson } from './report.js';

export interface CheckCommandOptions {
  device?: string;
  seed: number;
  only?: string[];
  backend: CheckBackend;
  all?: boolean;
  json: boolean;
}

export async function runCheckCommand(options: CheckCommandOptions): Promise<number> {
  const { seed, only, backend } = options;
  const on = device(options.device as DeviceString | undefined);
  await on.synchronize(); // a device that does not work is one error, not one for every case
  const { stdout, stderr } = process;
  const progress = createProgress({ stdout, stderr, isTTY: stderr.isTTY });
  progress.stage('checking', 1);
  try {
    const report = await runCheck({ device: on, seed, backend, ...(only !== undefined && { only }) }, ({ total }) => {
      progress.advance(1 / total);
    });
    progress.end();
    if (options.json) printJson(report);
    else stdout.write(`${formatCheck(report, { colours: stdout.isTTY, all: options.all === true })}\n`);
    return report.ok ? EXIT.ok : EXIT.failed;
  } finally {
    progress.end(false);
  }
}
