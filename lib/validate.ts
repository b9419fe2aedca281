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

/**
 * A tensor's shape: dims of at least 0, whose product and bytes can be counted. Returns a frozen copy.
 *
 * @param size Elements that the shape must have. One dim may then be -1: what is left.
 */
export function checkShape(argument: string, shape: unknown, size?: number): readonly number[] {
  const fail = (wanted: string): never => {
    throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got: show(shape), wanted });
  };
  if (!Array.isArray(shape)) return fail('an array of whole numbers');
  if (shape.length > 8) return fail('at most 8 dims');
  const dims: number[] = [];
  let bytes = 8;
  let open = -1;
  for (const dim of shape as unknown[]) {
    if (dim === -1 && size !== undefined && open === -1) {
      open = dims.push(1) - 1;
    } else if (typeof dim === 'number' && Number.isSafeInteger(dim) && dim >= 0) {
      dims.push(dim + 0); // -0 is 0
      bytes *= Math.max(dim, 1);
    } else {
      return fail(`whole numbers of at least 0${size === undefined ? '' : ', or one -1'}`);
    }
  }
  if (bytes > MAX_COUNT) return fail('fewer than 2^50 elements');
  if (size !== undefined) {
    // 0 / 0 is no dim: any would do.
    if (open !== -1) dims[open] = size / product(dims);
    if (dims.some((dim) => !Number.isInteger(dim)) || product(dims) !== size) return fail(`${String(size)} elements`);
  }
  return Object.freeze(dims);
}

export function product(shape: readonly number[]): number {
  let count = 1;
  for (let i = 0; i < shape.length; i++) count *= shape[i]!;
  return count;
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
