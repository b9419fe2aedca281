/** Checks of options as a command line gives them: text, or values of the right type. */
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';

import { VsaError, VsaRangeError, VsaTypeError, show } from '../errors.js';

/**
 * Finds out before the work starts whether a file could be written in the end.
 * @throws VsaError ERR_FILE if the folder is missing or closed to us, or the name is a folder's.
 */
export async function checkWritable(argument: string, path: string): Promise<void> {
  const fail = (got: string, cause: unknown): never => {
    throw new VsaError({ code: 'ERR_FILE', argument, got, wanted: 'a file in a folder that can be written to', cause });
  };
  const folder = dirname(resolve(path));
  try {
    await access(folder, constants.W_OK | constants.X_OK);
  } catch (cause) {
    fail(`${show(path)}, whose folder does not exist or cannot be written to`, cause);
  }
  const existing = await stat(path).catch(() => undefined);
  if (existing !== undefined && !existing.isFile()) fail(`${show(path)}, which is no regular file`, undefined);
}

export function refuseBoth(one: string, a: unknown, other: string, b: unknown, why = 'they exclude each other'): void {
  if (a === undefined || b === undefined) return;
  throw new VsaTypeError({
    code: 'ERR_ARGUMENT',
    argument: other,
    got: `both '${one}' and '${other}'`,
    wanted: `one of them: ${why}`,
  });
}

export function text(argument: string, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'string' && value !== '' && !value.includes('\0')) return value;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a text that is not empty' });
}

export function flag(argument: string, value: unknown): boolean {
  if (value === undefined) return false;
  if (typeof value === 'boolean') return value;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'true or false' });
}

/** A number, also one written as text; NaN for anything else. */
function numeric(value: unknown): number {
  if (typeof value === 'number') return value;
  return typeof value === 'string' && /^-?\d+(\.\d+)?(e-?\d+)?$/i.test(value.trim()) ? Number(value) : NaN;
}

export function wholeNumber(argument: string, value: unknown, least: number, most: number): number {
  const number = numeric(value);
  if (Number.isInteger(number) && number >= least && number <= most) return number;
  const wanted = `a whole number from ${least} to ${most}`;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted });
}

export function decimal(argument: string, value: unknown, least: number, most: number): number {
  const number = numeric(value);
  if (number >= least && number <= most) return number;
  const wanted = `a number from ${least} to ${most}`;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted });
}

export function oneOf<T extends string | number>(
  argument: string,
  value: string | number,
  choices: readonly T[],
  code: 'ERR_DTYPE' | 'ERR_HEAD_DIM',
  given: unknown,
): T {
  const choice = choices.find((candidate) => candidate === value);
  if (choice !== undefined) return choice;
  throw new VsaTypeError({ code, argument, got: show(given), wanted: choices.join(' or ') });
}
