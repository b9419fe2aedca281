/** What the file tests share: scratch folders, files put together by hand, and the shape of a typed error. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VsaError, VsaRangeError, VsaTypeError, type ErrorCode } from '../../lib/errors.js';

let folder = '';

/** Gives every test of a file a folder of its own. */
export function useScratchFolder(): void {
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'vsa-files-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });
}

/** A path in the test's folder. */
export function scratch(name = 'file'): string {
  return join(folder, name);
}

/** The names in the test's folder, sorted. */
export function scratchNames(): string[] {
  return readdirSync(folder).sort();
}

export function put(bytes: Uint8Array | string, name = 'file'): string {
  const path = scratch(name);
  writeFileSync(path, bytes);
  return path;
}

/** A safetensors file from a header's text and the buffer's bytes, without any of the code under test. */
export function safetensorsBytes(header: string | Uint8Array, data: Uint8Array = new Uint8Array(0)): Buffer {
  const text = Buffer.from(header as string);
  const length = Buffer.alloc(8);
  length.writeUInt32LE(text.byteLength, 0);
  return Buffer.concat([length, text, data]);
}

/** A numpy file from a header's text and the data, without any of the code under test. */
export function npyBytes(header: string, data: Uint8Array = new Uint8Array(0), version: 1 | 2 | 3 = 1): Buffer {
  const text = Buffer.from(header, version === 3 ? 'utf8' : 'latin1');
  const prefix = Buffer.alloc(version === 1 ? 10 : 12);
  prefix.write('\x93NUMPY', 'latin1');
  prefix[6] = version;
  if (version === 1) prefix.writeUInt16LE(text.byteLength, 8);
  else prefix.writeUInt32LE(text.byteLength, 8);
  return Buffer.concat([prefix, text, data]);
}

export type VsaFailure = VsaError | VsaTypeError | VsaRangeError;

function checkFailure(error: unknown, code: ErrorCode, parts: readonly (string | RegExp)[]): VsaFailure {
  if (!(error instanceof VsaError || error instanceof VsaTypeError || error instanceof VsaRangeError)) {
    throw new Error(`an error of this package was expected, not ${String(error)}`, { cause: error });
  }
  expect({ code: error.code, message: error.message }).toMatchObject({ code });
  for (const part of parts) expect(error.message).toMatch(part);
  return error;
}

/** The typed error a promise rejects with; its message must hold every part. */
export async function failure(
  promise: Promise<unknown>,
  code: ErrorCode,
  ...parts: (string | RegExp)[]
): Promise<VsaFailure> {
  const outcome = await promise.then(
    (value: unknown) => ({ value }),
    (error: unknown) => ({ error }),
  );
  if ('value' in outcome) throw new Error(`${code} was expected, but the call succeeded`);
  return checkFailure(outcome.error, code, parts);
}

/** The typed error a call throws. */
export function thrown(call: () => unknown, code: ErrorCode, ...parts: (string | RegExp)[]): VsaFailure {
  let error: unknown;
  try {
    call();
  } catch (caught) {
    error = caught;
  }
  return checkFailure(error, code, parts);
}
