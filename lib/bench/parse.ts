/** Values of the command line: single ones, lists, ranges. */

import { show, type ErrorCode, VsaRangeError, VsaTypeError } from '../errors.js';

/** `a,b,c` */
export function words(argument: string, value: string): string[] {
  const parts = value.split(',').map((part) => part.trim());
  if (parts.every((part) => part !== '')) return parts;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a list like a,b,c' });
}

/** Words out of a few. */
export function choices<T extends string>(
  argument: string,
  value: string,
  known: readonly T[],
  code: ErrorCode = 'ERR_ARGUMENT',
): T[] {
  return words(argument, value).map((word) => {
    const choice = known.find((one) => one === word);
    if (choice !== undefined) return choice;
    throw new VsaTypeError({ code, argument, got: show(word), wanted: known.join(', ') });
  });
}

const NUMBER = '\\d{1,12}(?:\\.\\d+)?';
const RANGE = new RegExp(`^(${NUMBER})\\.\\.(${NUMBER})(?:([:x])(${NUMBER}))?$`);
/** Most values that one range may stand for. */
const MAX_VALUES = 1000;

/** Numbers, lists of them and ranges: `4`, `4,8`, `8..64:8` (in steps of 8), `8..64x2` (doubling). */
export function numbers(
  argument: string,
  value: string | number,
  { least, most, whole }: { least: number; most: number; whole: boolean },
): number[] {
  const kind = whole ? 'whole numbers' : 'numbers';
  const fail = (got: string): never => {
    const wanted = `${kind} from ${least} to ${most}, as '8', '8,16', '8..64:8' or '8..64x2'`;
    throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(got), wanted });
  };
  const found = words(argument, String(value)).flatMap((word) => {
    const range = RANGE.exec(word);
    if (range === null) return new RegExp(`^${NUMBER}$`).test(word) ? [Number(word)] : fail(word);
    const [from, to, step] = [Number(range[1]), Number(range[2]), Number(range[4] ?? 1)];
    const grows = range[3] === 'x' ? step > 1 && from > 0 : step > 0;
    if (!grows || to < from) return fail(word);
    const values: number[] = [];
    // The last one is met however steps like 0.1 add up.
    const end = to + 1e-9 * Math.max(1, to);
    for (let n = 0, next = from; next <= end; next = range[3] === 'x' ? next * step : from + ++n * step) {
      values.push(Number(next.toPrecision(12)));
      if (values.length > MAX_VALUES) return fail(word);
    }
    return values;
  });
  for (const one of found) if (one < least || one > most || (whole && !Number.isInteger(one))) fail(String(one));
  return found;
}

/** Every combination of one value of each list, the last list running fastest. */
export function combinations<T extends Record<string, unknown>>(lists: { [K in keyof T]: readonly T[K][] }): T[] {
  let made: Partial<T>[] = [{}];
  for (const [name, values] of Object.entries(lists) as [keyof T, readonly T[keyof T][]][]) {
    made = made.flatMap((one) => values.map((value) => ({ ...one, [name]: value })));
  }
  return made as T[];
}
