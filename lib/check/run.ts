/** Runs the cases on a device. */

import { performance } from 'node:perf_hooks';
import { chooseBackend } from '../attention/backends.js';
import { type Device, device as deviceOf, type DeviceString, VsaRangeError, VsaTypeError } from '../index.js';
import { checkChoice } from '../validate.js';
import { CHECK_CASES, type CheckCase, CHECKED_OPS } from './cases.js';
import { CheckReport, type CheckRow, failedRow } from './report.js';
import { CaseContext, type CheckBackend } from './values.js';

export interface CheckOptions {
  /** Default: the best there is. */
  readonly device?: Device | DeviceString;
  /** Of all random inputs. A whole number from 0 to 2^32 - 1, default 1. */
  readonly seed?: number;
  /** Operations to check, of `CHECKED_OPS`. Default: all of them. */
  readonly only?: readonly string[];
  /** Of fine attention. Default 'auto'. */
  readonly backend?: CheckBackend;
}

/** After every case. */
export interface CheckProgress {
  readonly op: string;
  readonly case: string;
  /** Cases so far, and in all. */
  readonly done: number;
  readonly total: number;
  readonly rows: readonly CheckRow[];
}

/**
 * Checks the numerics of every operation and every gradient on a device against the float64 oracle (lib/oracle), over
 * a fixed set of cases, through the public functions alone. An operation that throws is a failed row.
 *
 * @throws VsaTypeError ERR_ARGUMENT for an unknown operation or backend, ERR_DEVICE; VsaRangeError ERR_ARGUMENT for the
 *   seed; VsaError ERR_BACKEND for a backend that the device does not have.
 */
export async function runCheck(
  options: CheckOptions = {},
  onProgress?: (progress: CheckProgress) => void,
): Promise<CheckReport> {
  const device = deviceOf(options.device);
  const seed = options.seed ?? 1;
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) {
    const wanted = 'a whole number from 0 to 2^32 - 1';
    throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'seed', got: String(seed), wanted });
  }
  for (const op of options.only ?? []) {
    if (CHECKED_OPS.includes(op)) continue;
    const wanted = `of ${CHECKED_OPS.join(', ')}`;
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'only', got: `'${op}'`, wanted });
  }
  const backend = checkChoice('backend', options.backend ?? 'auto', ['auto', 'cpu', 'cuda']);
  chooseBackend(device, backend);
  const cases = CHECK_CASES.filter((c) => options.only?.includes(c.op) ?? true);
  const rows: CheckRow[] = [];
  const start = performance.now();
  for (const [i, c] of cases.entries()) {
    const found = await runCase(c, device, seed, backend);
    rows.push(...found);
    onProgress?.({ op: c.op, case: c.name, done: i + 1, total: cases.length, rows: found });
  }
  return new CheckReport(device.toString(), device.name, seed, (performance.now() - start) / 1000, rows);
}

async function runCase(c: CheckCase, device: Device, seed: number, backend: CheckBackend): Promise<CheckRow[]> {
  // By name, not by number: the same inputs whichever other cases run.
  const caseSeed = (BigInt(seed) << 32n) | (BigInt(hash(`${c.op}: ${c.name}`)) & 0xffff0000n);
  const context = new CaseContext(device, caseSeed, backend);
  try {
    return await c.run(context);
  } catch (error) {
    return [failedRow(c.op, c.name, 'all', error instanceof Error ? error.message : String(error))];
  } finally {
    context.dispose();
  }
}

/** 32 bits of a text (FNV-1a). */
function hash(text: string): number {
  let bits = 0x811c9dc5;
  for (const byte of Buffer.from(text)) bits = Math.imul(bits ^ byte, 0x01000193);
  return bits >>> 0;
}
