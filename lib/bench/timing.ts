/**
 * Time of a call on its device, by the device's own clock.
 *
 * A sample is mark, call, mark, put on the queue without waiting. The queue never runs dry on the way: work is put in
 * front that takes longer than the host needs to queue what follows, so no sample holds a gap in which the device waits
 * for the host; one that may hold such a gap is thrown away. Only after a chunk of samples the host waits, and reads
 * the marks.
 */

import { native, type NativeMark } from '../binding.js';
import type { Device } from '../device/device.js';
import { OPERATIONS, together } from '../attention/together.js';
import { tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import type { Cache } from './cases.js';

export interface TimingOptions {
  readonly cache: Cache;
  /** Of exactly so many. Default: what a second takes, 30 to 400, but no more than 8 seconds take. */
  readonly samples?: number | undefined;
  /** How often the call does what is to be timed. Default 1. */
  readonly repeats?: number;
  readonly signal?: AbortSignal | undefined;
  /** The share of the samples that is done. */
  readonly onProgress?: (part: number) => void;
}

export interface Sensors {
  readonly smMhz: number | null;
  readonly watts: number | null;
  readonly celsius: number | null;
}

export interface Timing {
  /** Milliseconds on the device, in the order they were taken; of one repeat. */
  readonly samples: readonly number[];
  /** Microseconds of the JavaScript call, median. */
  readonly hostUs: number;
  /** Medians of readings while the device was busy. */
  readonly sensors: Sensors;
}

/** Of the samples, ms. */
const SECOND = 1000;
const LEAST = 30;
/** More tell nothing new. */
const MOST = 400;
/** A row that takes longer than this gets fewer than 30, but not fewer than 5. ms. */
const PATIENCE = 8000;
const LEAST_OF_SLOW = 5;
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
const chunkOf = (gpuMs: number): number => Math.min(CHUNK, Math.max(1, Math.floor(CHUNK_MS / gpuMs)));
/** Sensors take milliseconds to read, and change slowly. ms */
const SENSOR_INTERVAL = 100;
/** Floats of the copies that fill the queue of a device that has no other filler: some milliseconds. */
const COPIED = 2 ** 21;
const MOST_FILLS = 400;
/** ms */
const LONG = 50;
/** Of the head start. */
const MOST_MARGIN = 40;

/** Values in ascending order. */
export function sorted(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

/** Linear between the two nearest. NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const ascending = sorted(values);
  const at = share * (ascending.length - 1);
  const [low, high] = [ascending[Math.floor(at)] ?? NaN, ascending[Math.ceil(at)] ?? NaN];
  return low + (high - low) * (at - Math.floor(at));
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** How many samples of a call that takes so long. */
export function sampleCount(ms: number): number {
  const wanted = Math.min(MOST, Math.max(LEAST, Math.ceil(SECOND / ms)));
  return wanted * ms <= PATIENCE ? wanted : Math.max(LEAST_OF_SLOW, Math.floor(PATIENCE / ms));
}

/** Times a call. What it makes is disposed. */
export async function time(device: Device, call: () => unknown, options: TimingOptions): Promise<Timing> {
  const { signal, repeats = 1 } = options;
  const stopwatch = new Stopwatch(device, call, options.cache);
  try {
    await stopwatch.prepare(signal);
    const wanted = options.samples ?? sampleCount(stopwatch.gpuMs / repeats);
    const samples: number[] = [];
    const host: number[] = [];
    const readings: Sensors[] = [];
    let lastReading = -Infinity;
    while (samples.length < wanted) {
      signal?.throwIfAborted();
      const left = wanted - samples.length;
      const count = Math.min(left, chunkOf(stopwatch.gpuMs));
      const chunk = stopwatch.enqueue(count);
      if (performance.now() - lastReading > SENSOR_INTERVAL) {
        readings.push(native().sensors(device.number));
        lastReading = performance.now();
      }
      await device.synchronize();
      host.push(...chunk.samples.map((sample) => sample.hostMs));
      samples.push(...stopwatch.take(chunk));
      options.onProgress?.(samples.length / wanted);
    }
    const reading = (of: keyof Sensors): number | null => {
      const values = readings.map((one) => one[of]).filter((value) => value !== null);
      return values.length === 0 ? null : median(values);
    };
    return {
      samples: samples.map((ms) => ms / repeats),
      hostUs: median(host) * 1000,
      sensors: { smMhz: reading('smMhz'), watts: reading('watts'), celsius: reading('celsius') },
    };
  } finally {
    stopwatch.dispose();
  }
}

/** Roughly: the shortest of some calls, ms. */
export async function timeOnce(device: Device, call: () => unknown): Promise<number> {
  const stopwatch = new Stopwatch(device, call, 'warm');
  try {
    return await stopwatch.shortest(2);
  } finally {
    stopwatch.dispose();
  }
}

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

class Stopwatch {
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
    await this.timeFill();
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

  async timeFill(): Promise<void> {
    const { number } = this.device;
    const count = 4;
    for (let i = 0; i < count; i++) this.#fill();
    const from = native().mark(number);
    for (let i = 0; i < count; i++) this.#fill();
    const to = native().mark(number);
    await this.device.synchronize();
    this.#fillMs = Math.max(1e-3, native().elapsed(from, to) / count);
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
      this.ahead(1);
      const from = native().mark(device.number);
      parts();
      const to = native().mark(device.number);
      native().beginTrace(device.number);
      parts();
      const traced = native().endTrace(device.number);
      const sum = traced.reduce((ms, one) => ms + one.ms, 0);
      took.push(Math.max(0, sum - native().elapsed(from, to)) / PARTS);
    }
    return median(took);
  }

  /** Queues a head start and then samples back to back. The queue is idle. `moreMs`: what the host then does besides. */
  enqueue(count: number, moreMs = 0): Chunk {
    const startedAt = performance.now();
    const start = native().mark(this.device.number);
    this.headStart(count, moreMs);
    const samples = Array.from({ length: count }, () => {
      this.emptyCache();
      return this.#sample();
    });
    return { start, startedAt, samples };
  }

  /** For calls that are to find the cache cold. */
  emptyCache(): void {
    if (this.cache === 'cold') native().flushCache(this.device.number);
  }

  /**
   * Work that keeps the device busy while the host queues `count` calls; the last of it is the call itself, so that a
   * warm cache holds what it leaves there.
   */
  headStart(count: number, moreMs: number): void {
    const perCall = this.gpuMs + (this.cache === 'cold' && this.#copies.length === 0 ? this.#fillMs : 0);
    // Marks and empty launches take the host some microseconds as well.
    const lag = Math.max(0.1, (this.hostMs + 0.03) * (count + 1) + moreMs - perCall * count);
    this.ahead(this.#margin * lag);
  }

  /** Queues filler of so many milliseconds, and a call if it is not long. */
  ahead(ms: number): void {
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

/** More calls tell nothing new of their stages. */
const MOST_TRACES = 31;
/** Of an operation, to see what an event takes the device. */
const PARTS = 12;

/** Operations of the addon by the stage they belong to. */
const STAGES: Readonly<Record<string, string>> = {
  ...{ poolingForward: 'pool', poolingTogether: 'pool', poolingBackward: 'pool', selection: 'select' },
  ...{ transposeLists: 'transpose', listsToBits: 'bits' },
  ...{ coarseForward: 'coarse', coarseBackward: 'coarse', fineForward: 'fine', fineBackward: 'fine' },
  ...{ combinationForward: 'combine', combinationBackward: 'combine' },
};

/**
 * Milliseconds of a call by stage, medians over some calls. Each stage reaches from the end of the one before it to its
 * own end, less what the event between them takes: the first from where the trace begins, which is after the cache was
 * emptied. So they add up to the whole, but for what kernels of two stages do at the same time, which an event between
 * them forbids. The call finds the cache as the samples of `timing` found it. If it is warm, a traced call is the last
 * of a chunk like theirs, right after them, so that it finds their clock as well: what clock a GPU's power limit leaves
 * depends on how long it is busy at a time.
 */
export async function timeStages(
  device: Device,
  call: () => unknown,
  { timing, cache }: { readonly timing: Timing; readonly cache: Cache },
): Promise<Record<string, number>> {
  const ms = median(timing.samples);
  const traces: Record<string, number>[] = [];
  const stopwatch = new Stopwatch(device, call, cache);
  try {
    stopwatch.gpuMs = ms;
    stopwatch.hostMs = timing.hostUs / 1000;
    await stopwatch.timeFill();
    const event = stopwatch.eventMs();
    // The host needs longer for calls that are traced.
    const hostMs = 0.2 + 4 * stopwatch.hostMs;
    const before = cache === 'warm' && device.type !== 'cpu' ? chunkOf(ms) - 1 : 0;
    // With what comes before them as many as a second takes, but some of slow ones too.
    const few = Math.max(1, Math.min(9, Math.floor(SECOND / 2 / ms)));
    const calls = before === 0 ? few : Math.max(few, Math.min(MOST_TRACES, Math.floor(SECOND / (ms * (before + 1)))));
    for (let i = 0; i < calls; i++) {
      if (before > 0) stopwatch.enqueue(before, hostMs);
      else stopwatch.ahead(hostMs);
      stopwatch.emptyCache();
      native().beginTrace(device.number);
      let operations: { name: string; ms: number }[];
      try {
        tidy(() => void call());
      } finally {
        operations = native().endTrace(device.number);
      }
      const trace: Record<string, number> = {};
      let stage = '';
      for (const [n, one] of operations.entries()) {
        // The number that the queue counts the whole operation by belongs to the last of its parts.
        if (!(one.name in OPERATIONS)) stage = STAGES[one.name] ?? one.name;
        // The whole ends with an event as well.
        const within = n + 1 < operations.length ? event : 0;
        trace[stage] = (trace[stage] ?? 0) + Math.max(0, one.ms - within);
      }
      traces.push(trace);
    }
  } finally {
    stopwatch.dispose();
  }
  const names = Object.keys(traces[0]!);
  return Object.fromEntries(names.map((name) => [name, median(traces.map((trace) => trace[name] ?? 0))]));
}
