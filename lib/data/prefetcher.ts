/** The loader's thread, seen from the main one. */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { VsaError, VsaTypeError } from '../errors.js';
import { fromPlainError, toPlainError } from './messages.js';
import type { Answer, Request, WorkerData } from './messages.js';
import { closedError } from './source.js';

/** The thread's program is compiled JavaScript, also where this file is run as TypeScript (Jest): built in dist. */
const PROGRAM = join(__filename.endsWith('.ts') ? join(__dirname, '..', '..', 'dist', 'data') : __dirname, 'worker.js');

/** Milliseconds that the thread has to end by itself before it is made to. */
const GRACE_MS = 1000;

interface Pending {
  resolve: (tokens: Float32Array) => void;
  reject: (error: Error) => void;
}

/**
 * Has batches made by a worker. The process may end while the worker lives: only `waiting(true)` holds it.
 */
export class Prefetcher {
  readonly #worker: Worker;
  readonly #exited: Promise<void>;
  readonly #pending = new Map<number, Pending>();
  #requests = 0;
  /** Why nothing can be asked any more. */
  #over: Error | undefined;

  /** @throws VsaTypeError ERR_ARGUMENT for a description that cannot be copied to a worker. */
  constructor(workerData: WorkerData) {
    this.#worker = startWorker(workerData);
    this.#worker.unref();
    const worker = this.#worker;
    let uncaught: unknown;
    worker.on('message', (answer: Answer) => this.#settle(answer));
    worker.on('error', (error) => (uncaught = error));
    worker.on('messageerror', (error) => (uncaught = error));
    this.#exited = new Promise((resolve) => {
      worker.on('exit', (code) => {
        this.#end(crashed(code, uncaught));
        resolve();
      });
    });
  }

  /** Whether somebody waits for a batch: keeps the process alive. */
  waiting(somebody: boolean): void {
    if (somebody) this.#worker.ref();
    else this.#worker.unref();
  }

  /** Asks for a batch of these clips: [B, L, C]. */
  request(clips: readonly number[]): Promise<Float32Array> {
    return new Promise((resolve, reject) => {
      if (this.#over !== undefined) {
        reject(this.#over);
        return;
      }
      const id = this.#requests++;
      this.#pending.set(id, { resolve, reject });
      this.#worker.postMessage({ id, clips } satisfies Request);
    });
  }

  /** Ends the thread; what was asked for fails with ERR_DISPOSED. */
  async close(): Promise<void> {
    this.#end(closedError('ClipLoader'));
    this.#worker.ref(); // its end is waited for
    this.#worker.postMessage('close' satisfies Request);
    const timer = setTimeout(() => void this.#worker.terminate(), GRACE_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  #settle(answer: Answer): void {
    const pending = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if ('tokens' in answer) pending?.resolve(answer.tokens);
    else pending?.reject(fromPlainError(answer.error));
  }

  #end(reason: Error): void {
    this.#over ??= reason;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(this.#over);
  }
}

function startWorker(workerData: WorkerData): Worker {
  try {
    // The options of this process may not be for a file, as --input-type is.
    return new Worker(PROGRAM, { workerData, execArgv: [], name: 'clips' });
  } catch (cause) {
    if ((cause as Error).name !== 'DataCloneError') throw cause;
    const got = `a description that cannot be copied: ${toPlainError(cause).message}`;
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'source', got, wanted: 'plain values', cause });
  }
}

function crashed(code: number, cause: unknown): VsaError {
  const why = cause === undefined ? '' : `: ${toPlainError(cause).message}`;
  const got = `a worker that ended with code ${code}${why}`;
  return new VsaError({ code: 'ERR_WORKER', argument: 'source', got, wanted: 'one that makes its clips', cause });
}
