/**
 * In which order clips come: epoch after epoch, each a permutation of all clips made of (seed, epoch) alone. Batches are
 * cut from that endless row, so that no clip is left out or comes twice in an epoch, whatever the size of a batch.
 */
import { permutation, Random } from './random.js';

/** A place in the row: the next clip is number `index` of epoch `epoch`. Both from 0. */
export interface LoaderPosition {
  readonly epoch: number;
  readonly index: number;
}

/** Sets these random numbers apart from those of generators. */
const STREAM = 2;

export class ClipOrder {
  readonly #count: number;
  readonly #seed: number;
  readonly #shuffle: boolean;
  #epoch = -1;
  #order: Uint32Array | undefined;

  /** `count` clips, Infinity for one epoch without end: it comes in order, since its clips are random as they are. */
  constructor(count: number, seed: number, shuffle: boolean) {
    this.#count = count;
    this.#seed = seed;
    this.#shuffle = shuffle && count !== Infinity;
  }

  /** The numbers of the next `size` clips, and the position after them. */
  take(from: LoaderPosition, size: number): { clips: number[]; next: LoaderPosition } {
    let { epoch, index } = from;
    const clips: number[] = [];
    while (clips.length < size) {
      clips.push(this.#clip(epoch, index));
      if (++index === this.#count) [epoch, index] = [epoch + 1, 0];
    }
    return { clips, next: { epoch, index } };
  }

  #clip(epoch: number, index: number): number {
    if (!this.#shuffle) return index;
    if (this.#order === undefined || this.#epoch !== epoch) {
      this.#order = permutation(this.#count, new Random(STREAM, this.#seed, epoch));
      this.#epoch = epoch;
    }
    return this.#order[index]!;
  }
}
