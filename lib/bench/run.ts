/** Runs cases one after another and hands out their rows as they come. */

import type { Device } from '../device/device.js';
import { VsaError, VsaRangeError } from '../errors.js';
import { tidy } from '../tensor/scope.js';
import { backendOf, type BenchCase, caseName, type Direction, directionsOf } from './cases.js';
import { type HostLists, makeLists, readLists } from './lists.js';
import { type Machine, machineOf } from '../device/machine.js';
import { attentionWorkload } from './ops/attention.js';
import { coarseWorkload } from './ops/coarse.js';
import { listsWorkload, poolWorkload, selectWorkload } from './ops/tiles.js';
import { vsaWorkload } from './ops/vsa.js';
import type { BenchSettings } from './options.js';
import { type BenchRow, emptyRow, filledRow, surroundingsOf, type Surroundings, type Variant } from './row.js';
import { time, timeOnce, type Timing } from './timing.js';
import { Findings } from './verdict/findings.js';
import { disposeAll, type Setup, type Workload } from './workload.js';

export interface BenchEvents {
  /** A row begins; there are `total` in all. */
  begin(name: string, total: number): void;
  /** Part of it that is done. */
  progress(part: number): void;
  row(row: BenchRow): void;
}

/**
 * Measures every case in every variant. A row that fails says so, and the next one is run; only a device that is lost
 * ends the run.
 *
 * @param signal Ends the run between two samples, by an exception: its reason.
 */
export async function runBench(
  settings: Pick<BenchSettings, 'device' | 'cases' | 'directions' | 'caches' | 'graphs' | 'samples'>,
  events: BenchEvents,
  signal?: AbortSignal,
): Promise<void> {
  const { device, cases } = settings;
  const around = surroundingsOf(device);
  const machine = machineOf(device);
  const planned = cases.map((one) => variantsOf(one, settings));
  const total = planned.reduce((sum, variants) => sum + variants.length, 0);
  const lists = new ListsMaker();
  for (const [i, one] of cases.entries()) {
    const variants = planned[i]!;
    const run = { one, device, around, machine, events, signal, samples: settings.samples };
    events.begin(rowName(one, variants[0]!), total);
    let workload: Workload | undefined;
    try {
      backendOf(one, device); // before inputs are made for what would be refused
      workload = await makeWorkload({ one, device, lists: await lists.of(one) });
    } catch (error) {
      throwIfOver(error, signal);
      for (const [n, variant] of variants.entries()) {
        if (n > 0) events.begin(rowName(one, variant), total);
        events.row({ ...emptyRow(one, variant, device, around), error: messageOf(error) });
      }
      continue;
    }
    try {
      await runVariants(run, workload, variants, total);
    } finally {
      workload.dispose();
    }
  }
}

function variantsOf(
  one: BenchCase,
  { directions, caches, graphs }: Pick<BenchSettings, 'directions' | 'caches' | 'graphs'>,
): Variant[] {
  const having = directions.filter((direction) => directionsOf(one.op).includes(direction));
  return having.flatMap((direction) => caches.flatMap((cache) => graphs.map((graph) => ({ direction, cache, graph }))));
}

function rowName(one: BenchCase, { direction, cache, graph }: Variant): string {
  return [caseName(one), direction, cache === 'cold' ? 'cold' : '', graph ? 'graph' : ''].filter(Boolean).join(' ');
}

/** Neighbouring cases often have the same lists, and long ones take seconds to make. */
class ListsMaker {
  #last: { key: string; lists: HostLists | undefined } | undefined;

  async of(one: BenchCase): Promise<HostLists | undefined> {
    const { lists: kind, grid, B, H, K, seed } = one;
    if (kind === null || kind === 'dense' || kind === 'selected') return undefined;
    const key = [kind, grid.toString(), B, H, K, seed, one.listsFile].join(' ');
    if (this.#last?.key === key) return this.#last.lists;
    const N = grid.totalTileCount;
    if (B * H * N * (K! + grid.prefixTileCount) >= 2 ** 31) {
      const got = `${B * H * N} lists of ${K!} tiles`;
      const wanted = 'fewer than 2^31 entries: a smaller K, or fewer heads';
      throw new VsaRangeError({ code: 'ERR_LISTS', argument: 'lists', got, wanted });
    }
    const lists =
      kind === 'file'
        ? await readLists(one.listsFile!, { batch: B, heads: H, queryTiles: N, keyTiles: N })
        : makeLists(kind, { B, H, grid, K: K!, seed });
    this.#last = { key, lists };
    return lists;
  }
}

function makeWorkload(setup: Setup): Workload | Promise<Workload> {
  switch (setup.one.op) {
    case 'pool':
      return poolWorkload(setup);
    case 'select':
      return selectWorkload(setup);
    case 'lists':
      return listsWorkload(setup);
    case 'coarse':
      return coarseWorkload(setup);
    case 'fine':
    case 'dense':
      return attentionWorkload(setup);
    case 'vsa':
      return vsaWorkload(setup);
  }
}

interface Run {
  readonly one: BenchCase;
  readonly device: Device;
  readonly around: Surroundings;
  readonly machine: Machine | undefined;
  readonly events: BenchEvents;
  readonly signal: AbortSignal | undefined;
  readonly samples: number | undefined;
}

async function runVariants(run: Run, workload: Workload, variants: readonly Variant[], total: number): Promise<void> {
  const { one, device, around, events, signal } = run;
  for (const [n, variant] of variants.entries()) {
    if (n > 0) events.begin(rowName(one, variant), total);
    const row = emptyRow(one, variant, device, around);
    try {
      events.row(await measure(run, workload, variant, row));
    } catch (error) {
      throwIfOver(error, signal);
      events.row({ ...row, error: messageOf(error) });
    }
  }
}

async function measure(run: Run, workload: Workload, variant: Variant, row: BenchRow): Promise<BenchRow> {
  const { one, device, events, signal, machine, samples } = run;
  const { direction } = variant;
  // A backward alone has the same forward before it every time.
  const before = direction === 'backward' ? tidy(() => workload.forward()) : undefined;
  const call = callOf(workload, direction, before);
  const findings = new Findings(device);
  const onProgress = (part: number) => events.progress(0.8 * part);
  const options = { cache: variant.cache, samples, signal, onProgress };
  try {
    let timing: Timing;
    let peakBytes: number | null = null;
    if (variant.graph) {
      const repeats = variant.cache === 'cold' ? 1 : await repeatsOf(device, call);
      // The results of the last one are judged.
      const graph = device.graph(() => {
        for (let i = 1; i < repeats; i++) tidy(() => void call());
        return call();
      });
      try {
        timing = await time(device, () => graph.replay(), { ...options, repeats });
        await judge(workload, before, graph.output, findings);
      } finally {
        disposeResult(graph.output);
        graph.dispose();
      }
    } else {
      timing = await time(device, call, { ...options, stages: true });
      await device.synchronize(); // of what was disposed, nothing is in use any more
      const { usedBytes } = device.memory();
      device.resetPeakMemory();
      const result = tidy(call);
      try {
        peakBytes = device.memory().peakBytes - usedBytes;
        await judge(workload, before, result, findings);
      } finally {
        disposeResult(result);
      }
    }
    signal?.throwIfAborted();
    const { problems } = findings;
    const measured = { timing, peakBytes, machine, problems };
    return filledRow(row, { one, backend: backendOf(one, device), variant, summary: workload.summary, ...measured });
  } finally {
    if (before !== undefined) disposeAll(before);
  }
}

/** A replay has a price of its own on the device, some microseconds: a graph holds short calls more than once. ms */
const LEAST_REPLAY = 0.1;

async function repeatsOf(device: Device, call: () => unknown): Promise<number> {
  const ms = await timeOnce(device, call);
  return Math.max(1, Math.ceil(LEAST_REPLAY / ms));
}

interface Result {
  readonly forward?: object;
  readonly backward?: object;
}

function callOf(workload: Workload, direction: Direction, before: object | undefined): () => Result {
  if (direction === 'forward') return () => ({ forward: workload.forward() });
  if (direction === 'backward') return () => ({ backward: workload.backward!(before!) });
  return () => {
    const forward = workload.forward();
    return { forward, backward: workload.backward!(forward) };
  };
}

async function judge(
  workload: Workload,
  before: object | undefined,
  { forward, backward }: Result,
  findings: Findings,
): Promise<void> {
  if (backward === undefined) await workload.judgeForward(forward!, findings);
  else await workload.judgeBackward!(forward ?? before!, backward, findings);
}

function disposeResult({ forward, backward }: Result): void {
  if (forward !== undefined) disposeAll(forward);
  if (backward !== undefined) disposeAll(backward);
}

/** After Ctrl-C, or with the device gone, there is nothing to go on with. */
function throwIfOver(error: unknown, signal: AbortSignal | undefined): void {
  signal?.throwIfAborted();
  if (error instanceof VsaError && error.code === 'ERR_DEVICE_LOST') throw error;
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as { code?: string };
  return code === undefined ? `${error.name}: ${error.message}` : `${code}: ${error.message}`;
}
