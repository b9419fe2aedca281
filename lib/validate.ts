/** Checks of plain arguments, shared by every public function. */

import { show, VsaRangeError, VsaTypeError } from './errors.js';

/** Most elements or bytes: what a number counts exactly. */
export const MAX_COUNT = Number.MAX_SAFE_INTEGER;

/** An options object that has no key but these: a misspelt option is an error, not a silence. */
export function checkOptions(argument: string, options: unknown, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(options), wanted: 'an object' });
  }
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument,
      got: `the unknown option '${key}'`,
      wanted: `only ${known.join(', ')}`,
    });
  }
}

/** A whole number in a range. */
export function checkInteger(argument: string, value: unknown, least: number, most = MAX_COUNT): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= most) return value;
  const range = most === MAX_COUNT ? `of at least ${String(least)}` : `from ${String(least)} to ${String(most)}`;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: `a whole number ${range}` });
}

/** A finite number. */
export function checkNumber(argument: string, value: unknown): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a finite number' });
}

export function checkBoolean(argument: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'true or false' });
}

/** One of a few strings. */
export function checkChoice<T extends string>(argument: string, value: unknown, choices: readonly T[]): T {
  if (typeof value === 'string' && (choices as readonly string[]).includes(value)) return value as T;
  throw new VsaTypeError({
    code: 'ERR_ARGUMENT',
    argument,
    got: show(value),
    wanted: choices.map((choice) => `'${choice}'`).join(' or '),
  });
}

/** A tensor's shape: dims of at least 0, whose product and bytes can be counted. Returns a frozen copy. */
export function checkShape(argument: string, shape: unknown): readonly number[] {
  const fail = (wanted: string): never => {
    throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: show(shape), wanted });
  };
  if (!Array.isArray(shape)) return fail('an array of whole numbers');
  const dims = shape as unknown[];
  if (dims.length > 8) fail('at most 8 dims');
  let bytes = 8;
  for (const dim of dims) {
    if (typeof dim !== 'number' || !Number.isSafeInteger(dim) || dim < 0) fail('whole numbers of at least 0');
    bytes *= Math.max(dim as number, 1);
  }
  if (bytes > MAX_COUNT) fail('fewer than 2^50 elements');
  return Object.freeze([...(dims as number[])]);
}

export function product(shape: readonly number[]): number {
  return shape.reduce((count, dim) => count * dim, 1);
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}
