/** The row: everything that was measured about one call, flat. */

import type { Backend } from '../attention/backends.js';
import { native } from '../binding.js';
import { cpuThreads, cudaStatus, type Device } from '../device/device.js';
import { readFileSync } from 'node:fs';
import { VsaError } from '../errors.js';
import { version } from '../version.js';
import { boundOfSteps } from './bounds.js';
import { backendOf, type BenchCase, type Cache, type Direction } from './cases.js';
import type { ListsSummary } from './lists.js';
import type { Machine } from '../device/machine.js';
import { median, quantile } from './statistics.js';
import type { Timing } from './timing.js';
import { workOf } from './work.js';

/** Null: not measured, or of no meaning here. Times in milliseconds, but `host_us`. */
export interface BenchRow {
  op: string;
  direction: Direction;
  /** What served the call; of others, 'cudnn', 'flash2', ... */
  backend: string;
  B: number;
  H: number;
  Hkv: number;
  /** '21x30x52' */
  grid: string;
  /** Valid tokens of a batch entry, and slots of its tiles. */
  tokens: number;
  slots: number;
  D: number;
  dtype: string;
  /** Number of tiles, and their shape. */
  tiles: number;
  tile: string;
  K: number | null;
  sparsity: number | null;
  lists: string | null;
  data: string;
  /** Null: inputs of another program's making. */
  seed: number | null;
  /** Of neighbouring lists. */
  overlap: number | null;
  order: string | null;
  /** Tokens before the video. */
  prefix: number;
  coarse: string | null;
  fineGate: boolean | null;
  cache: Cache;
  /** Replayed as a graph. */
  graph: boolean;
  deterministic: boolean | null;
  /** The backend was asked for by name. */
  forced: boolean;
  ms: number | null;
  ms_p10: number | null;
  ms_p90: number | null;
  samples: readonly number[];
  /** Of the JavaScript call. */
  host_us: number | null;
  stages: Readonly<Record<string, number>>;
  /**
   * The most memory of the device that the call had in use, beyond what was before it. On the CPU without what its
   * threads keep for intermediate rows (csrc/cpu/scratch.h), which is no memory of tensors and stays with them.
   */
  peak_bytes: number | null;
  /** Useful: of valid tokens. */
  gflop: number | null;
  tflops: number | null;
  /** The same with 64x64 for every pair of tiles. */
  tflops_slots: number | null;
  /** Share of the dense bfloat16 peak. */
  mfu: number | null;
  /** Compulsory bytes over time, GB/s. */
  gbs: number | null;
  bound: string | null;
  bound_ms: number | null;
  bound_share: number | null;
  /** Sampled results are what float64 says. Null: nobody has looked, as with other programs' rows. */
  ok: boolean | null;
  error: string | null;
  device: string;
  driver: string | null;
  cuda: string | null;
  sm_mhz: number | null;
  watts: number | null;
  celsius: number | null;
  package: string | null;
  commit: string | null;
  date: string;
}

/** What is the same for all rows of a run. */
export interface Surroundings {
  readonly device: string;
  readonly driver: string | null;
  readonly cuda: string | null;
  readonly package: string;
  readonly commit: string;
}

/** 13000 is 13.0. */
const cudaVersion = (n: number): string => `${String(Math.floor(n / 1000))}.${String(Math.floor((n % 1000) / 10))}`;

/** The driver's own version where the kernel tells it, else the CUDA version it is for. */
function driverVersion(cuda: number): string {
  try {
    const found = /\b\d{3}\.\d+(\.\d+)?\b/.exec(readFileSync('/proc/driver/nvidia/version', 'utf8'));
    if (found !== null) return found[0];
  } catch {
    // In a container it may not be there.
  }
  return `CUDA ${cudaVersion(cuda)}`;
}

export function surroundingsOf(device: Device): Surroundings {
  const build = native().build();
  const common = { package: version, commit: build.commit };
  if (device.type === 'cpu') {
    const threads = cpuThreads();
    const name = `${device.name}, ${threads} ${threads === 1 ? 'thread' : 'threads'}, ${build.instructionSet}`;
    return { device: name, driver: null, cuda: null, ...common };
  }
  const { driverVersion: driver, runtimeVersion } = cudaStatus();
  return { device: device.name, driver: driverVersion(driver), cuda: cudaVersion(runtimeVersion), ...common };
}

/** How a case was called. */
export interface Variant {
  readonly direction: Direction;
  readonly cache: Cache;
  readonly graph: boolean;
}

/** What serves a case; where what it forces does not, the name of that. */
function servedBy(one: BenchCase, device: Device): string {
  try {
    return backendOf(one, device);
  } catch (error) {
    if (one.backend !== 'auto' && error instanceof VsaError && error.code === 'ERR_BACKEND') return one.backend;
    throw error;
  }
}

/** What a row is about, before anything is known about its time. */
export function emptyRow(one: BenchCase, variant: Variant, device: Device, around: Surroundings): BenchRow {
  const { op, backend, B, H, Hkv, grid, D, dtype, K, sparsity, lists, data, seed, order, coarse, fineGate } = one;
  return {
    ...{ op, direction: variant.direction, backend: servedBy(one, device), B, H, Hkv },
    ...{ grid: grid.tokens.join('x'), tokens: grid.length, slots: grid.slots, D, dtype },
    ...{ tiles: grid.totalTileCount, tile: grid.tile.join('x'), K, sparsity, lists, data, seed },
    ...{ overlap: null, order, prefix: grid.prefix, coarse, fineGate, cache: variant.cache, graph: variant.graph },
    ...{ deterministic: true, forced: backend !== 'auto' },
    ...{ ms: null, ms_p10: null, ms_p90: null, samples: [], host_us: null, stages: {}, peak_bytes: null },
    ...{ gflop: null, tflops: null, tflops_slots: null, mfu: null, gbs: null },
    ...{ bound: null, bound_ms: null, bound_share: null, ok: false, error: null },
    ...{ device: around.device, driver: around.driver, cuda: around.cuda },
    ...{ sm_mhz: null, watts: null, celsius: null },
    ...{ package: around.package, commit: around.commit, date: new Date().toISOString() },
  };
}

export interface Measured {
  readonly one: BenchCase;
  /** What served it. */
  readonly backend: Backend;
  readonly variant: Variant;
  readonly summary: ListsSummary | undefined;
  readonly timing: Timing;
  readonly peakBytes: number | null;
  readonly machine: Machine | undefined;
  /** What is wrong with the results. */
  readonly problems: readonly string[];
}

const digits = (value: number, count: number): number => Number(value.toFixed(count));

/** Lists from a file have the length they have, on average. */
function captured({ B, H, grid }: BenchCase, { pairs }: ListsSummary): Pick<BenchRow, 'K' | 'sparsity'> {
  const N = grid.totalTileCount;
  const K = pairs / (B * H * N);
  return { K: digits(K, 2), sparsity: digits(1 - K / N, 4) };
}

/** Fills in what was measured. */
export function filledRow(row: BenchRow, measured: Measured): BenchRow {
  const { one, backend, variant, summary, timing, peakBytes, machine, problems } = measured;
  const ms = median(timing.samples);
  const work = workOf({ one, backend }, variant.direction, summary);
  const bound = machine === undefined ? undefined : boundOfSteps(machine, work.steps, variant.cache);
  const tflops = work.flops === null ? null : work.flops / ms / 1e9;
  const { smMhz, watts, celsius } = timing.sensors;
  const overlap = summary?.overlap ?? null;
  return {
    ...row,
    ...(one.lists === 'file' && summary !== undefined && captured(one, summary)),
    overlap: overlap === null ? null : digits(overlap, 4),
    ms: digits(ms, 6),
    ms_p10: digits(quantile(timing.samples, 0.1), 6),
    ms_p90: digits(quantile(timing.samples, 0.9), 6),
    samples: timing.samples.map((sample) => digits(sample, 6)),
    host_us: digits(timing.hostUs, 2),
    stages: Object.fromEntries(Object.entries(timing.stages).map(([name, value]) => [name, digits(value, 6)])),
    peak_bytes: peakBytes,
    gflop: work.flops === null ? null : work.flops / 1e9,
    tflops: tflops === null ? null : digits(tflops, 4),
    tflops_slots: work.slotFlops === null ? null : digits(work.slotFlops / ms / 1e9, 4),
    mfu: tflops === null || machine === undefined ? null : digits(tflops / machine.bf16, 4),
    gbs: Number((work.bytes / ms / 1e6).toPrecision(6)), // little, where others keep the device busy
    ...(bound !== undefined &&
      bound.ms > 0 && {
        bound: bound.name,
        bound_ms: digits(bound.ms, 6),
        bound_share: digits(bound.ms / ms, 4),
      }),
    ok: problems.length === 0,
    error: problems.length === 0 ? null : problems.join('; '),
    ...{ sm_mhz: smMhz, watts, celsius },
    date: new Date().toISOString(),
  };
}
