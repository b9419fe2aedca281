/** Batches of clips as tokens, made ahead on a thread of their own. */
import { patchGrid } from '../media/patches.js';
import type { PatchGrid } from '../media/patches.js';
import type { Patch } from '../media/shape.js';
import { show, VsaTypeError } from '../errors.js';
import { checkBoolean, checkInteger, checkOptions } from '../validate.js';
import { makeBatch } from './batch.js';
import { ClipOrder } from './order.js';
import type { LoaderPosition } from './order.js';
import { Prefetcher } from './prefetcher.js';
import { checkClipSource, closedError } from './source.js';
import type { ClipSource } from './source.js';

export interface ClipLoaderOptions {
  source: ClipSource;
  /** B: clips of a batch. */
  batchSize: number;
  /** [pt, py, px]. Default [1, 8, 8]. */
  patch?: Patch;
  /** Of the order of clips, a whole number from 0 to 2^53 - 1. Default 0. */
  seed?: number;
  /** Whether clips come in another order in each epoch. A source without end comes as it is. Default true. */
  shuffle?: boolean;
  /** Most batches made ahead by a worker thread, up to 64; 0: none, and no thread. Default 2. */
  prefetch?: number;
  /** Where to go on: `next` of the last batch that was used. Default the start. */
  position?: LoaderPosition;
}

export interface ClipBatch {
  /** float32 [B, L, C] in [-1, 1], in grid order. The caller's. */
  readonly tokens: Float32Array;
  /** [B, L, C] */
  readonly shape: readonly [B: number, L: number, C: number];
  /** Numbers of the clips, in order. */
  readonly clips: readonly number[];
  /** Where the batch starts. */
  readonly position: LoaderPosition;
  /** Where the one after it starts: save it, and a loader with this `position` goes on with exactly the same batches. */
  readonly next: LoaderPosition;
}

const OPTIONS = ['source', 'batchSize', 'patch', 'seed', 'shuffle', 'prefetch', 'position'];
const MAX_PREFETCH = 64;

/** A batch that is being made. */
interface Ahead extends Omit<ClipBatch, 'tokens'> {
  tokens: Promise<Float32Array>;
}

/**
 * Batches without end, epoch after epoch: the same for the same options, with and without a worker. A batch may reach
 * into the next epoch, so that an epoch leaves out no clip.
 *
 * The worker starts with the first `next()`. It makes at most `prefetch` batches that nobody has asked for, and keeps
 * the process alive only while somebody waits for one. It makes the source anew from `source.describe()`; the source
 * that was given is then not asked for clips.
 */
export class ClipLoader {
  readonly batchSize: number;
  /** Of a clip: its tokens [T, Y, X], L, C. */
  readonly grid: PatchGrid;
  readonly #source: ClipSource;
  readonly #order: ClipOrder;
  readonly #prefetch: number;
  readonly #ahead: Ahead[] = [];
  #made: LoaderPosition; // after the last batch that was asked for
  #position: LoaderPosition;
  #prefetcher: Prefetcher | undefined;
  #waiting = 0;
  #closed = false;

  /**
   * @throws VsaTypeError ERR_ARGUMENT, VsaRangeError ERR_ARGUMENT or ERR_SHAPE (clips that are no multiple of the patch)
   */
  constructor(options: ClipLoaderOptions) {
    checkOptions('options', options, OPTIONS);
    const source = checkClipSource('source', options.source);
    const seed = checkInteger('seed', options.seed ?? 0, 0);
    const shuffle = checkBoolean('shuffle', options.shuffle ?? true);
    this.batchSize = checkInteger('batchSize', options.batchSize, 1, 2 ** 20);
    this.grid = patchGrid({ shape: source.shape, ...(options.patch && { patch: options.patch }) });
    this.#source = source;
    this.#order = new ClipOrder(source.count, seed, shuffle);
    this.#prefetch = checkInteger('prefetch', options.prefetch ?? 2, 0, MAX_PREFETCH);
    this.#position = this.#made = checkPosition(options.position, source.count);
    if (this.#prefetch > 0) checkDescription(source);
  }

  /** Where the next batch starts that `next()` gives, however many are made ahead. */
  get position(): LoaderPosition {
    return this.#position;
  }

  /**
   * The next batch. May be called again before it is there.
   * @throws what the source throws for a clip of this batch (the following call gives the batch after it); VsaError
   *   ERR_WORKER if the worker has ended (then for every further call), ERR_DISPOSED after `close()`.
   */
  async next(): Promise<ClipBatch> {
    if (this.#closed) throw closedError('ClipLoader');
    const { tokens, ...batch } = this.#ahead.shift() ?? this.#make();
    this.#position = batch.next;
    while (this.#ahead.length < this.#prefetch) this.#ahead.push(this.#make());
    this.#waiting++;
    this.#prefetcher?.waiting(true);
    try {
      const made = await tokens;
      if (this.#closed) throw closedError('ClipLoader');
      return { tokens: made, ...batch };
    } finally {
      this.#waiting--;
      if (this.#waiting === 0 && !this.#closed) this.#prefetcher?.waiting(false);
    }
  }

  /** `for await` gives the batches from `position` on; leaving the loop closes nothing. */
  async *[Symbol.asyncIterator](): AsyncGenerator<ClipBatch, never> {
    for (;;) yield await this.next();
  }

  #make(): Ahead {
    const worker = this.#prefetch > 0 ? this.#worker() : undefined;
    const position = this.#made;
    const { clips, next } = this.#order.take(position, this.batchSize);
    this.#made = next;
    const tokens = worker?.request(clips) ?? makeBatch(this.#source, clips, this.grid);
    tokens.catch(() => undefined); // told to who asks for this batch
    const { length, channels } = this.grid;
    return { tokens, shape: [this.batchSize, length, channels], clips, position, next };
  }

  #worker(): Prefetcher {
    this.#prefetcher ??= new Prefetcher({ description: this.#source.describe(), grid: this.grid });
    return this.#prefetcher;
  }

  /**
   * Ends the worker and waits for its end; batches that somebody waits for fail with ERR_DISPOSED. The source that was
   * given stays open. More calls do nothing.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#ahead.length = 0;
    await this.#prefetcher?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function checkPosition(value: LoaderPosition | undefined, count: number): LoaderPosition {
  if (value === undefined) return { epoch: 0, index: 0 };
  checkOptions('position', value, ['epoch', 'index']);
  const epoch = checkInteger('position.epoch', value.epoch, 0, count === Infinity ? 0 : Number.MAX_SAFE_INTEGER);
  const most = count === Infinity ? Number.MAX_SAFE_INTEGER : count - 1;
  return { epoch, index: checkInteger('position.index', value.index, 0, most) };
}

function checkDescription(source: ClipSource): void {
  const kind: unknown = typeof source.describe === 'function' ? source.describe().kind : 'local';
  if (kind === 'movingShapes' || kind === 'videoFolder' || kind === 'module') return;
  const got = `a source that describes itself as ${show(kind)}`;
  const wanted = 'one that a worker can make, or prefetch: 0';
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'source', got, wanted });
}
