/**
 * Time of a call on its device, by the device's own clock.
 *
 * A sample is mark, call, mark, put on the queue without waiting. The queue never runs dry on the way: work is put in
 * front that takes longer than the host needs to queue what follows, so no sample holds a gap in which the device waits
 * for the host; one that may hold such a gap is thrown away. Only after a chunk of samples the host waits, and reads
 * the marks.
 */

import { native, type NativePart } from '../binding.js';
import type { Device } from '../device/device.js';
import type { Cache } from './cases.js';
import { medianStages } from './stages.js';
import { median } from './statistics.js';
import { chunkOf, Stopwatch } from './stopwatch.js';

export interface TimingOptions {
  readonly cache: Cache;
  /** Of exactly so many. Default: what a second takes, 30 to 400, but no more than 8 seconds take. */
  readonly samples?: number | undefined;
  /** How often the call does what is to be timed. Default 1. */
  readonly repeats?: number;
  /** Also time the parts of calls. Default false. */
  readonly stages?: boolean;
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
  /** Milliseconds of a call by stage; of none, if they were not asked for. */
  readonly stages: Readonly<Record<string, number>>;
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
/** Sensors take milliseconds to read, and change slowly. ms */
const SENSOR_INTERVAL = 100;

/** How many samples of a call that takes so long. */
export function sampleCount(ms: number): number {
  const wanted = Math.min(MOST, Math.max(LEAST, Math.ceil(SECOND / ms)));
  return wanted * ms <= PATIENCE ? wanted : Math.max(LEAST_OF_SLOW, Math.floor(PATIENCE / ms));
}

/** Calls that are traced, at most. */
const MOST_TRACES = 31;

/**
 * Times a call. What it makes is disposed.
 *
 * For its stages calls are traced between chunks of samples, each behind a chunk of its own: so they find the cache and
 * the clock that samples find, for what clock a GPU's power limit leaves depends on how long it has been busy. Not behind
 * samples: while a traced call waits in the queue, those before it take up to 3 us longer.
 */
export async function time(device: Device, call: () => unknown, options: TimingOptions): Promise<Timing> {
  const { signal, repeats = 1 } = options;
  const stopwatch = new Stopwatch(device, call, options.cache);
  try {
    await stopwatch.prepare(signal);
    const wanted = options.samples ?? sampleCount(stopwatch.gpuMs / repeats);
    const chunkMs = stopwatch.gpuMs * chunkOf(stopwatch.gpuMs);
    const wantedTraces = options.stages === true ? Math.max(1, Math.min(MOST_TRACES, Math.floor(SECOND / chunkMs))) : 0;
    const eventMs = wantedTraces > 0 ? stopwatch.eventMs() : 0;
    const samples: number[] = [];
    const traces: (readonly NativePart[])[] = [];
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
      // Not more at once: 31 behind ten samples found another clock, and a fine stage 5 % longer.
      if (traces.length < wantedTraces && traces.length * wanted < wantedTraces * samples.length) {
        traces.push(stopwatch.trace());
      }
      options.onProgress?.(samples.length / wanted);
    }
    const reading = (of: keyof Sensors): number | null => {
      const values = readings.map((one) => one[of]).filter((value) => value !== null);
      return values.length === 0 ? null : median(values);
    };
    return {
      samples: samples.map((ms) => ms / repeats),
      hostUs: median(host) * 1000,
      stages: medianStages(traces, eventMs),
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
