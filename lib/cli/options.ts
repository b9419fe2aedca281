/** Values of command-line options, from text. */

import { InvalidArgumentError } from 'commander';

/** A whole number of at least 0. */
export function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('It takes a whole number.');
  return Number(text);
}

/** A finite number. */
export function decimalNumber(text: string): number {
  const value = /^-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : NaN;
  if (!Number.isFinite(value)) throw new InvalidArgumentError('It takes a number.');
  return value;
}

/** Three whole numbers: frames, height, width. */
export function triple(text: string): [number, number, number] {
  const match = /^(\d{1,5})x(\d{1,5})x(\d{1,5})$/.exec(text);
  if (match === null) throw new InvalidArgumentError("It takes three whole numbers, as '8x64x64'.");
  return [Number(match[1]), Number(match[2]), Number(match[3])];
}
