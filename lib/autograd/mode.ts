/** Whether calls are recorded. */

import { show, VsaTypeError } from '../errors.js';

let recording = true;

/** Whether differentiable functions are being recorded. */
export function gradEnabled(): boolean {
  return recording;
}

function runWith<T>(on: boolean, fn: () => T): T {
  if (typeof fn !== 'function') {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'fn', got: show(fn), wanted: 'a function' });
  }
  const before = recording;
  recording = on;
  try {
    const result = fn();
    if (typeof (result as { then?: unknown } | null | undefined)?.then === 'function') {
      (result as unknown as Promise<unknown>).then(undefined, () => undefined); // nobody will see its outcome
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: 'fn',
        got: 'a function that returns a promise',
        wanted: 'a synchronous one: what runs after an await would be outside',
      });
    }
    return result;
  } finally {
    recording = before;
  }
}

/**
 * Runs a synchronous function without recording: what is made inside has no history, and nothing is kept for a
 * backward.
 *
 * @throws VsaTypeError ERR_ARGUMENT if `fn` is no function, or returns a promise.
 */
export function noGrad<T>(fn: () => T): T {
  return runWith(false, fn);
}

/** Runs a synchronous function with recording on, also inside of `noGrad`. */
export function enableGrad<T>(fn: () => T): T {
  return runWith(true, fn);
}
