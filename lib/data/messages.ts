/** What the loader and its worker say to each other. */
import { VsaError, VsaRangeError, VsaTypeError } from '../errors.js';
import type { ErrorDetails } from '../errors.js';
import type { PatchGrid } from '../media/patches.js';
import type { SourceDescription } from './source.js';

export interface WorkerData {
  description: SourceDescription;
  grid: PatchGrid;
}

/** To the worker. Requests are answered one after the other, in their order. */
export type Request = { id: number; clips: readonly number[] } | 'close';

/** From the worker; `tokens` are handed over, not copied. */
export type Answer = { id: number; tokens: Float32Array } | { id: number; error: PlainError };

const CLASSES = { VsaError, VsaTypeError, VsaRangeError };

/** An error without its class: threads copy fields only, and of errors not even those. */
export interface PlainError {
  name: string;
  message: string;
  stack?: string;
  /** The class, for one of this package's, and its fields. */
  ours?: { class: keyof typeof CLASSES; details: Pick<ErrorDetails, 'code' | 'argument' | 'got' | 'wanted'> };
  /** The system's, as ENOENT. */
  code?: string;
  cause?: PlainError;
}

export function toPlainError(thrown: unknown): PlainError {
  if (typeof thrown !== 'object' || thrown === null) return { name: 'Error', message: String(thrown) };
  const { name = 'Error', message = '', stack, code, cause } = thrown as Partial<Error> & { code?: unknown };
  return {
    ...{ name, message },
    ...(stack !== undefined && { stack }),
    ...(typeof code === 'string' && { code }),
    ...(cause !== undefined && { cause: toPlainError(cause) }),
    ...oursOf(thrown),
  };
}

function oursOf(error: object): Pick<PlainError, 'ours'> {
  const found = Object.entries(CLASSES).find(([, one]) => error instanceof one);
  if (found === undefined) return {};
  const { code, argument, got, wanted } = error as VsaError;
  const set = Object.entries({ argument, got, wanted }).filter(([, value]) => value !== undefined);
  return { ours: { class: found[0] as keyof typeof CLASSES, details: { code, ...Object.fromEntries(set) } } };
}

/** The error again, of the same class, with the stack of where it was thrown. */
export function fromPlainError({ name, message, stack, ours, code, cause }: PlainError): Error {
  const options = cause === undefined ? {} : { cause: fromPlainError(cause) };
  const error =
    ours === undefined
      ? Object.assign(new Error(message, options), { name }, code === undefined ? {} : { code })
      : new CLASSES[ours.class]({ ...ours.details, ...options, message });
  if (stack !== undefined) error.stack = stack;
  return error;
}
