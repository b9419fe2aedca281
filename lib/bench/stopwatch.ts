/** Puts calls and marks on a device's queue, and work in front of them that keeps it busy meanwhile. */

import { native, type NativeMark, type NativePart } from '../binding.js';
import { together } from '../attention/together.js';
import type { Device } from '../device/device.js';
import { tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import type { Cache } from './cases.js';
import { median, quantile } from './statistics.js';

/**
 * ms. `most` where power may limit the clock: the limiter answers a heavy load after about 0.7 s by a dip of 0.3 s, in
 * which a call takes a tenth longer, and only then settles (H100, H200).
 */
const WARM_UP = { cuda: { least: 400, most: 1500 }, cpu: { least: 20, most: 20 } } as const;
/** Calls that take so long fill a GPU; the clock tells too late that power limits it. ms */
const HEAVY = 0.2;
/** Samples queued at once: a GPU's queue holds about a thousand launches, and beyond that calls would block. */
const CHUNK = 16;
const CHUNK_MS = 250;
/** Samples of a call that takes so long. */
export const chunkOf = (gpuMs: number): number => Math.min(CHUNK, Math.max(1, Math.floor(CHUNK_MS / gpuMs)));
/** Floats of the copies that fill the queue of a device that has no other filler: some milliseconds. */
const COPIED = 2 ** 21;
const MOST_FILLS = 400;
/** ms */
const LONG = 50;
/** Of the head start. */
const MOST_MARGIN = 40;
/** Calls that are traced take the host longer: ms, and times as long. */
const TRACING = { ms: 0.2, times: 4 };
/** Of an operation, to see what an event takes the device. */
const PARTS = 12;

interface Sample {
  /** Of the call alone. */
  readonly hostMs: number;
  /** When all of it was queued, on the host's clock. */
  readonly queuedAt: number;
  readonly from: NativeMark;
  readonly to: NativeMark;
}

interface Chunk {
  /** Put on an idle queue, and when. */
  readonly start: NativeMark;
  readonly startedAt: number;
  readonly samples: readonly Sample[];
}

/** The highest clock seen on each device: what it runs at when nothing slows it down. MHz */
const highestClock = new Map<number, number>();

/** Times a call on a device. */
export class Stopwatch {
  /** Estimates, ms: of a call on the device, of one on the host, of the filler. */
  gpuMs = 1;
  hostMs = 1;
  #fillMs = 1;
  /** How much longer the head start is than it should have to be. */
  #margin = 1.5;
  /** The filler of a device whose cache cannot be emptied: copies of so many bytes. */
  readonly #copies: readonly Tensor[];

  constructor(
    private readonly device: Device,
    private readonly call: () => unknown,
    private readonly cache: Cache,
  ) {
    const cannotFlush = !native().flushCache(device.number);
    this.#copies = cannotFlush ? [1, 2].map(() => Tensor.zeros([COPIED], { device })) : [];
  }

  dispose(): void {
    for (const one of this.#copies) one.dispose();
  }

  /** Warms up, and finds out how long a call takes. */
  async prepare(signal: AbortSignal | undefined): Promise<void> {
    this.#slowedDown();
    const first = this.#sample();
    await this.device.synchronize();
    this.gpuMs = Math.max(1e-4, native().elapsed(first.from, first.to));
    const started = performance.now();
    const { least, most } = WARM_UP[this.device.type];
    let until: number = least;
    do {
      signal?.throwIfAborted();
      const count = Math.max(1, Math.min(CHUNK, Math.floor(CHUNK_MS / 2 / this.gpuMs)));
      const samples = Array.from({ length: count }, () => this.#sample());
      const slowed = until === least && this.#slowedDown();
      await this.device.synchronize();
      this.gpuMs = Math.max(1e-4, median(samples.map(({ from, to }) => native().elapsed(from, to))));
      if (slowed || this.gpuMs >= HEAVY) until = most;
      this.hostMs = median(samples.map((sample) => sample.hostMs));
    } while (performance.now() - started < until);
    await this.#timeFill();
  }

  async shortest(count: number): Promise<number> {
    const { samples } = this.enqueue(count);
    await this.device.synchronize();
    return Math.max(1e-3, Math.min(...samples.map(({ from, to }) => native().elapsed(from, to))));
  }

  /** Whether the device's clock is below what it was seen to reach: power limits it. */
  #slowedDown(): boolean {
    const { smMhz } = native().sensors(this.device.number);
    if (smMhz === null) return false;
    const highest = Math.max(smMhz, highestClock.get(this.device.number) ?? 0);
    highestClock.set(this.device.number, highest);
    return smMhz < 0.97 * highest;
  }

  async #timeFill(): Promise<void> {
    const { number } = this.device;
    const count = 4;
    for (let i = 0; i < count; i++) this.#fill();
    const from = native().mark(number);
    for (let i = 0; i < count; i++) this.#fill();
    const to = native().mark(number);
    await this.device.synchronize();
    this.#fillMs = Math.max(1e-3, native().elapsed(from, to) / count);
  }

  /** Queues a head start and then samples back to back. The queue is idle. `moreMs`: what the host then does besides. */
  enqueue(count: number, moreMs = 0): Chunk {
    const startedAt = performance.now();
    const start = native().mark(this.device.number);
    this.#headStart(count, moreMs);
    const samples = Array.from({ length: count }, () => {
      this.#emptyCache();
      return this.#sample();
    });
    return { start, startedAt, samples };
  }

  /** For calls that are to find the cache cold. */
  #emptyCache(): void {
    if (this.cache === 'cold') native().flushCache(this.device.number);
  }

  /** The parts of a call that finds what the last sample of a chunk finds. Waits for it. */
  trace(): readonly NativePart[] {
    const { number } = this.device;
    const hostMs = TRACING.ms + TRACING.times * this.hostMs;
    const before = this.cache === 'warm' && this.device.type !== 'cpu' ? chunkOf(this.gpuMs) - 1 : 0;
    if (before > 0) this.enqueue(before, hostMs);
    else this.#ahead(hostMs);
    this.#emptyCache();
    native().beginTrace(number);
    let parts: readonly NativePart[];
    try {
      tidy(() => void this.call());
    } finally {
      parts = native().endTrace(number);
    }
    return parts;
  }

  /** What the event behind a traced part takes the device, ms: parts that are traced take longer than others. */
  eventMs(): number {
    const { device } = this;
    const parts = (): void => {
      together(device, 'videoSparseAttention', () => {
        for (let i = 0; i < PARTS; i++) Tensor.zeros([1], { device }).dispose();
      });
    };
    const took: number[] = [];
    for (let round = 0; round < 7; round++) {
      this.#ahead(1);
      const from = native().mark(device.number);
      parts();
      const to = native().mark(device.number);
      native().beginTrace(device.number);
      parts();
      const sum = native()
        .endTrace(device.number)
        .reduce((ms, one) => ms + one.ms, 0);
      took.push(Math.max(0, sum - native().elapsed(from, to)) / PARTS);
    }
    return median(took);
  }

  /**
   * Work that keeps the device busy while the host queues `count` calls; the last of it is the call itself, so that a
   * warm cache holds what it leaves there.
   */
  #headStart(count: number, moreMs: number): void {
    const perCall = this.gpuMs + (this.cache === 'cold' && this.#copies.length === 0 ? this.#fillMs : 0);
    // Marks and empty launches take the host some microseconds as well.
    const lag = Math.max(0.1, (this.hostMs + 0.03) * (count + 1) + moreMs - perCall * count);
    this.#ahead(this.#margin * lag);
  }

  /** Queues filler of so many milliseconds, and a call if it is not long. */
  #ahead(ms: number): void {
    const fills = Math.min(MOST_FILLS, Math.ceil(ms / this.#fillMs));
    for (let i = 0; i < fills; i++) this.#fill();
    // What a cache holds at its beginning is nothing to a long call.
    if (this.gpuMs < LONG) tidy(() => void this.call());
  }

  /**
   * Milliseconds of a chunk that is over, but of samples only that were wholly queued when the device came to them:
   * the others may hold a gap. If there are such, the next head start is longer; if nothing helps, all count.
   */
  take({ start, startedAt, samples }: Chunk): number[] {
    this.hostMs = Math.max(
      0.9 * this.hostMs,
      quantile(
        samples.map(({ hostMs }) => hostMs),
        0.8,
      ),
    );
    // The device cannot have passed the start before the host put it there.
    const whole = samples.filter(
      ({ from, queuedAt }) => queuedAt - startedAt <= native().elapsed(start, from) || this.#margin >= MOST_MARGIN,
    );
    if (whole.length < samples.length) this.#margin = Math.min(MOST_MARGIN, 1.5 * this.#margin);
    return whole.map(({ from, to }) => native().elapsed(from, to));
  }

  /** Work to wait behind. */
  #fill(): void {
    const [to, source] = this.#copies;
    if (to === undefined || source === undefined) native().flushCache(this.device.number);
    else to.copyFrom(source);
  }

  #sample(): Sample {
    const { number } = this.device;
    // What the call makes is given back after the second mark.
    return tidy(() => {
      const from = native().mark(number);
      const start = performance.now();
      this.call();
      const hostMs = performance.now() - start;
      const to = native().mark(number);
      return { hostMs, from, to, queuedAt: performance.now() };
    });
  }
}
