/** Loads the native addon, which nothing else does, and types its failures. What it offers is in native.ts. */

import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import { type ErrorCode, OutOfMemoryError, VsaError } from './errors.js';
import { type Handle, INTERFACE, type Native } from './native.js';

export type * from './native.js';

/** node-gyp-build has no types; this is the part used here. */
type Load = (root: string) => unknown;

function load(): Native {
  const root = join(__dirname, '..');
  let addon: unknown;
  try {
    // eslint-disable-next-line @typescript-eslint/no-require-imports -- an addon is loaded, not imported
    addon = (require('node-gyp-build') as Load)(root);
  } catch (cause) {
    const text = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    const missing = /No native build was found|Cannot find module/.test(text ?? '');
    const where = `${process.platform}-${process.arch}, Node ${process.versions.node}`;
    throw new VsaError(
      missing
        ? {
            code: 'ERR_ADDON_MISSING',
            message:
              `the native addon: got none for ${where}, wanted one in build/Release or prebuilds ` +
              `of ${root}: run "npm rebuild video-sparse-attention" (it needs g++ and CMake)`,
            cause,
          }
        : {
            code: 'ERR_ADDON_INCOMPATIBLE',
            message:
              `the native addon: got one that does not load (${String(text)}), wanted one built for ${where}: ` +
              `run "npm rebuild video-sparse-attention"`,
            cause,
          },
    );
  }
  const got = (addon as { interface?: unknown }).interface;
  if (got !== INTERFACE) {
    throw new VsaError({
      code: 'ERR_ADDON_INCOMPATIBLE',
      message:
        `the native addon: got interface ${String(got)}, wanted ${String(INTERFACE)}: it was built from other sources ` +
        `than this JavaScript; run "npm rebuild video-sparse-attention" (a stale build/ shadows a prebuild)`,
    });
  }
  return typed(addon as Exports);
}

/** What the addon itself exports: the same, but that reads fill a buffer they are given. */
interface Exports extends Omit<Native, 'read' | 'readSync'> {
  read(handle: Handle, offset: number, buffer: ArrayBuffer): Promise<ArrayBuffer>;
  readSync(handle: Handle, offset: number, buffer: ArrayBuffer): ArrayBuffer;
}

/** Smaller reads are not worth asking the system whether it has the memory. Bytes. */
const LARGE_READ = 2 ** 26;

/** A buffer on the host. Made here and not in the addon, where one that cannot be had would end the process. */
function hostBuffer(bytes: number): ArrayBuffer {
  let cause: unknown;
  // Linux grants memory that it does not have and kills the process later: refuse first.
  if (bytes < LARGE_READ || bytes <= freemem()) {
    try {
      return new ArrayBuffer(bytes);
    } catch (error) {
      cause = error;
    }
  }
  const [freeBytes, totalBytes] = [freemem(), totalmem()];
  const got = cause === undefined ? `${String(freeBytes)} bytes free of ${String(totalBytes)}` : 'no buffer';
  throw new OutOfMemoryError({
    code: 'ERR_OUT_OF_MEMORY',
    message: `out of memory on the host: got ${got}, wanted ${String(bytes)} bytes for a copy of the values`,
    wantedBytes: bytes,
    freeBytes,
    totalBytes,
    cause,
  });
}

interface NativeError extends Error {
  code?: ErrorCode;
  wantedBytes?: number;
  freeBytes?: number;
  totalBytes?: number;
}

/** The error of a C++ failure in this realm's classes. */
function typedError(thrown: unknown): unknown {
  const error = thrown as Partial<NativeError> | null | undefined;
  if (typeof error?.code !== 'string' || error.message === undefined || error instanceof VsaError) return thrown;
  const { code, message, wantedBytes, freeBytes, totalBytes } = error;
  if (wantedBytes !== undefined && freeBytes !== undefined && totalBytes !== undefined) {
    return new OutOfMemoryError({ code, message, wantedBytes, freeBytes, totalBytes });
  }
  return new VsaError({ code, message });
}

/** An operation of the addon: it takes the fields of an object by position, and says in which order. */
interface Operation {
  (...values: unknown[]): void;
  fields?: readonly string[];
}

type Take = (p: Record<string, unknown>) => unknown;

/** Calls an operation with the fields of an object; `a.b` is a field of a field that may be absent. */
function takingFields(operation: Operation, fields: readonly string[]): Take {
  const expressions = fields.map((field) => `p.${field.replace('.', '?.')}`);
  try {
    // Of a function of its own the engine knows what its objects look like; the loop below takes up to a microsecond.
    // eslint-disable-next-line @typescript-eslint/no-implied-eval -- of names that the addon was compiled with
    const make = new Function('operation', `return (p) => operation(${expressions.join(', ')})`) as (
      o: Operation,
    ) => Take;
    return make(operation);
  } catch {
    return readingFields(operation, fields); // where strings may not be compiled
  }
}

function readingFields(operation: Operation, fields: readonly string[]): Take {
  const outer = fields.map((field) => field.split('.')[0]!);
  const inner = fields.map((field) => field.split('.')[1]);
  return (p) => {
    const values = new Array<unknown>(fields.length);
    for (let i = 0; i < values.length; i++) {
      const value = p[outer[i]!];
      const name = inner[i];
      values[i] = name === undefined ? value : (value as Record<string, unknown> | undefined)?.[name];
    }
    operation(...values);
  };
}

/** The operation for an object of its fields, its failures typed. */
function fromObject(operation: Operation, fields: readonly string[]): (p: Record<string, unknown>) => void {
  const call = takingFields(operation, fields);
  return (p) => {
    try {
      call(p);
    } catch (error) {
      throw typedError(error);
    }
  };
}

/** Functions of the addon that return promises. */
const PROMISING: ReadonlySet<string> = new Set(['read', 'synchronize'] satisfies (keyof Exports)[]);

/** The addon with every function's failures typed, those of promises too. */
function typed(addon: Exports): Native {
  const wrapped: Record<string, unknown> = {};
  for (const [name, member] of Object.entries(addon) as [string, unknown][]) {
    if (typeof member !== 'function') {
      wrapped[name] = member;
      continue;
    }
    const { fields } = member as Operation;
    if (fields !== undefined) {
      wrapped[name] = fromObject(member as Operation, fields);
      continue;
    }
    const call = member as (...args: unknown[]) => unknown;
    // As many arguments as any of them takes: an array of them would cost more than the call.
    const typedCall = (a: unknown, b: unknown, c: unknown, d: unknown, e: unknown): unknown => {
      try {
        return call(a, b, c, d, e);
      } catch (error) {
        throw typedError(error);
      }
    };
    wrapped[name] = PROMISING.has(name)
      ? (a: unknown, b: unknown, c: unknown): unknown =>
          (typedCall(a, b, c, undefined, undefined) as Promise<unknown>).catch((error: unknown) => {
            throw typedError(error);
          })
      : typedCall;
  }
  const exported = wrapped as unknown as Exports;
  return {
    ...exported,
    read: (handle, offset, bytes) => exported.read(handle, offset, hostBuffer(bytes)),
    readSync: (handle, offset, bytes) => exported.readSync(handle, offset, hostBuffer(bytes)),
  };
}

let loaded: Native | undefined;

/** The addon, loaded at first use so that a missing one is an error of the call that needs it. */
export function native(): Native {
  loaded ??= load();
  return loaded;
}
