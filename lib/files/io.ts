/** What the file formats share: opening, exact positional reads, and the two kinds of file error. */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { VsaError, VsaTypeError, show } from '../errors.js';

/** Bytes per system call: long enough to be fast, far below the 2^31 - 1 that one call can move. */
const CALL_BYTES = 1 << 24;

/** A corrupt, truncated or hostile file. */
export function formatError(path: string, got: string, wanted: string, cause?: unknown): VsaError {
  return new VsaError({ code: 'ERR_FILE_FORMAT', argument: path, got, wanted, cause });
}

/** A file that the system does not let us read or write. `cause` is what the system said. */
export function systemError(path: string, wanted: string, cause: unknown): VsaError {
  const got = cause instanceof Error || hasMessage(cause) ? cause.message : String(cause);
  return new VsaError({ code: 'ERR_FILE', argument: path, got, wanted, cause });
}

// Errors made by Node itself are not `instanceof Error` in another realm (worker VMs, test runners).
function hasMessage(value: unknown): value is { message: string } {
  return typeof value === 'object' && value !== null && 'message' in value && typeof value.message === 'string';
}

/**
 * Text from a file as an error's sentence may show it: short, quoted, control characters escaped, so that a hostile
 * name cannot write to somebody's terminal.
 */
export function quote(text: string): string {
  const escaped = JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
  return escaped.replace(/[\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g, (char) => {
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

/** @throws VsaTypeError ERR_ARGUMENT if `path` is no string. */
export function checkPath(path: unknown): asserts path is string {
  if (typeof path === 'string') return;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'path', got: show(path), wanted: 'a string' });
}

/** @throws VsaTypeError ERR_ARGUMENT if `value` is no object. */
export function checkObject(value: unknown, argument: string, wanted: string): asserts value is object {
  if (typeof value === 'object' && value !== null) return;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted });
}

/** Whether `for await` takes it. */
export function isIterable(value: unknown): value is AsyncIterable<unknown> | Iterable<unknown> {
  return typeof value === 'object' && value !== null && (Symbol.asyncIterator in value || Symbol.iterator in value);
}

/**
 * Opens a regular file for reading.
 * @returns its handle and its size in bytes
 * @throws VsaError ERR_FILE if there is none, or it may not be read, or it is a folder, pipe or device.
 */
export async function openForReading(path: string): Promise<{ handle: FileHandle; size: number }> {
  checkPath(path);
  const wanted = 'a readable regular file';
  let handle: FileHandle | undefined;
  try {
    // O_NONBLOCK: opening a named pipe that nobody writes to would hold a thread of Node's pool for ever.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stats = await handle.stat();
    // A folder opens; only reading it makes the system say what is wrong with it.
    if (stats.isDirectory()) await handle.read(new Uint8Array(1), 0, 1, 0);
    if (stats.isFile()) return { handle, size: stats.size };
  } catch (cause) {
    await handle?.close();
    throw systemError(path, wanted, cause);
  }
  await handle.close();
  throw new VsaError({ code: 'ERR_FILE', argument: path, got: 'a pipe, socket or device', wanted });
}

/**
 * Fills `target` with the file's bytes from `position` on.
 * @throws VsaError ERR_FILE if the system fails; ERR_FILE_FORMAT if the file ends before (it shrank while open).
 */
export async function readExactly(
  handle: FileHandle,
  path: string,
  target: Uint8Array,
  position: number,
): Promise<void> {
  let done = 0;
  while (done < target.byteLength) {
    const length = Math.min(CALL_BYTES, target.byteLength - done);
    let bytesRead: number;
    try {
      ({ bytesRead } = await handle.read(target, done, length, position + done));
    } catch (cause) {
      throw systemError(path, 'a readable regular file', cause);
    }
    if (bytesRead === 0) {
      throw formatError(
        path,
        `the end of the file at byte ${position + done}`,
        `${position + target.byteLength} bytes`,
      );
    }
    done += bytesRead;
  }
}

/** Appends all of `bytes` at the handle's position. Rejects with the system's error. */
export async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(CALL_BYTES, bytes.byteLength - done));
    done += bytesWritten;
  }
}
