/**
 * Files that are either written in full or not at all: the bytes go to a temporary name in the same folder, reach the
 * disk (fsync), and only then take the file's name. Whatever fails before leaves the previous file as it was.
 */
import { randomUUID } from 'node:crypto';
import { unlinkSync, type Stats } from 'node:fs';
import { open, realpath, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { types } from 'node:util';
import { VsaError, VsaTypeError, show } from '../errors.js';
import { checkPath, isIterable, systemError, writeFully } from './io.js';

/** What a file can be written from. Text is written as UTF-8. */
export type FileContent = string | Uint8Array | AsyncIterable<string | Uint8Array> | Iterable<string | Uint8Array>;

const WANTED = 'a place where a regular file can be written';

/** Temporary files of writes under way. */
const pending = new Set<string>();
const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

function removePending(): void {
  for (const file of pending) {
    try {
      unlinkSync(file);
    } catch {
      // The process is ending: nobody is left to tell, and the file may not have been made yet.
    }
  }
}

function onSignal(signal: NodeJS.Signals): void {
  // With another listener the program decides what the signal means, and may carry on with the write.
  if (process.listenerCount(signal) > 1) return;
  removePending();
  unwatch();
  process.kill(process.pid, signal);
}

/** An uncaught exception, process.exit() or Ctrl-C in the middle of a write must not leave a temporary file behind. */
function watch(): void {
  process.on('exit', removePending);
  for (const signal of SIGNALS) process.on(signal, onSignal);
}

function unwatch(): void {
  process.removeListener('exit', removePending);
  for (const signal of SIGNALS) process.removeListener(signal, onSignal);
}

function register(file: string): void {
  if (pending.size === 0) watch();
  pending.add(file);
}

function unregister(file: string): void {
  if (pending.delete(file) && pending.size === 0) unwatch();
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** The name to rename to: through symbolic links, and only where a regular file or nothing is. */
async function targetOf(path: string): Promise<{ target: string; mode: number | undefined }> {
  let existing: Stats | undefined;
  try {
    existing = await statIfThere(path);
    if (existing?.isFile()) return { target: await realpath(path), mode: existing.mode & 0o7777 };
  } catch (cause) {
    throw systemError(path, WANTED, cause);
  }
  if (existing === undefined) return { target: path, mode: undefined };
  // A rename would put a file in the place of a device such as /dev/null.
  const got = existing.isDirectory() ? 'a folder' : 'a pipe, socket or device';
  throw new VsaError({ code: 'ERR_FILE', argument: path, got, wanted: 'a regular file, or a name not yet taken' });
}

/** The rename itself must outlive a power cut, too. */
async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, 'r');
    await handle.sync();
  } catch {
    // Some systems cannot open or sync a folder; the file is complete under its name all the same.
  } finally {
    await handle?.close();
  }
}

function toBytes(chunk: unknown): Uint8Array {
  if (typeof chunk === 'string') return Buffer.from(chunk, 'utf8');
  if (types.isUint8Array(chunk)) return chunk;
  throw new VsaTypeError({
    code: 'ERR_ARGUMENT',
    argument: 'data',
    got: `a chunk that is ${show(chunk)}`,
    wanted: 'strings or Uint8Arrays',
  });
}

function toChunks(data: FileContent): AsyncIterable<string | Uint8Array> | Iterable<string | Uint8Array> {
  if (typeof data === 'string' || types.isUint8Array(data)) return [data];
  if (isIterable(data)) return data;
  throw new VsaTypeError({
    code: 'ERR_ARGUMENT',
    argument: 'data',
    got: show(data),
    wanted: 'a string, a Uint8Array or an iterable of them',
  });
}

/**
 * Writes a file so that its name never shows half of it: under a temporary name in the same folder, synced to disk,
 * then renamed. An existing file keeps its permissions; a symbolic link keeps pointing to what it points to. If
 * writing or `data` fails, or the process ends on the way, the previous file is untouched and the temporary one is
 * removed (a process that is killed outright can only leave `.vsa-*.tmp` behind).
 * @param data the content, or an iterable that makes it piece by piece
 * @throws VsaError ERR_FILE if the system refuses (cause: its error); VsaTypeError ERR_ARGUMENT for content of another
 *   kind; whatever `data` throws.
 */
export async function writeFileAtomic(path: string, data: FileContent): Promise<void> {
  checkPath(path);
  const chunks = toChunks(data);
  const { target, mode } = await targetOf(path);
  const temporary = join(dirname(target), `.vsa-${randomUUID()}.tmp`);

  /** Turns the system's errors, and only those, into ours. */
  const guard = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (cause) {
      throw systemError(path, WANTED, cause);
    }
  };

  register(temporary);
  let handle: FileHandle | undefined;
  try {
    handle = await guard(open(temporary, 'wx', 0o666));
    if (mode !== undefined) await guard(handle.chmod(mode));
    for await (const chunk of chunks) await guard(writeFully(handle, toBytes(chunk)));
    await guard(handle.sync());
    await guard(handle.close());
    handle = undefined;
    await guard(rename(temporary, target));
  } catch (error) {
    await handle?.close().catch(() => undefined);
    await unlink(temporary).catch(() => undefined);
    throw error;
  } finally {
    unregister(temporary);
  }
  await syncFolder(dirname(target));
}
