/** How commands speak: results on stdout, all else on stderr, and a code at the end. */

import { VsaError, VsaRangeError, VsaTypeError } from '../errors.js';

/** Exit codes, as the help says them. */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** Prints a failure and says the exit code for it: our own errors in a sentence, others with their stack. */
export function reportError(error: unknown, json: boolean): number {
  const ours = error instanceof VsaError || error instanceof VsaTypeError || error instanceof VsaRangeError;
  const message = error instanceof Error ? error.message : String(error);
  if (json) printJson({ error: { code: ours ? error.code : 'ERR_INTERNAL', message } });
  const code = ours ? ` [${error.code}]` : '';
  const stack = !ours && error instanceof Error ? `\n${String(error.stack)}` : '';
  process.stderr.write(`vsa: ${message}${code}${stack}\n`);
  // Arguments that no call could take are usage; the rest happened while running.
  return ours && !(error instanceof VsaError) ? EXIT.usage : EXIT.failed;
}
