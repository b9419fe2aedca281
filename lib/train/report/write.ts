/** Writes the report about training runs. */

import { join } from 'node:path';
import type { Device } from '../../device/device.js';
import { VsaTypeError } from '../../errors.js';
import { writeFileAtomic } from '../../files/atomic.js';
import { FILES } from '../run.js';
import { readRun, type RunReport } from './data.js';
import { renderTrainReport } from './page.js';

export interface ReportOptions {
  /** The page. Default: report.html in the first run's folder. */
  out?: string;
  device: Device;
}

/**
 * One page about runs, side by side: it loads each checkpoint, draws a clip and looks at the layers.
 *
 * @param folders Of `vsa train`.
 * @throws VsaError ERR_FILE, ERR_FILE_FORMAT; OutOfMemoryError.
 */
export async function writeReport(
  folders: readonly string[],
  { out, device }: ReportOptions,
): Promise<{ out: string }> {
  const [first] = folders;
  if (first === undefined) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'runs', got: 'none', wanted: 'at least one folder' });
  }
  const path = out ?? join(first, FILES.report);
  const runs: RunReport[] = [];
  for (const folder of folders) runs.push(await readRun(folder, device));
  await writeFileAtomic(path, renderTrainReport(runs));
  return { out: path };
}
