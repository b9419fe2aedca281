/** What `vsa demo` prints: a result as a plain object, and a table of it. */
import Table from 'cli-table3';

import { headKind } from './projection.js';
import type { OutputError, Timing } from './measure.js';
import type { ReportInput } from './report/data.js';
import { bytes, duration, flops, mean, percent, times } from '../report/html.js';

/** What a demo came to. `--json` prints it. */
export interface DemoResult {
  /** Path of the report, as given. */
  report: string;
  /** Bytes of the report. */
  reportBytes: number;
  source: { kind: 'video' | 'synthetic' | 'tokens'; name: string; frames: number; width: number; height: number };
  grid: {
    tokens: readonly number[];
    length: number;
    tiles: number;
    tileCounts: readonly number[];
    paddedSlots: number;
  };
  topK: number;
  sparsity: number;
  headDim: number;
  dtype: string;
  seed: number;
  device: { name: string; processor: string };
  /** Share of dense attention's mass, mean over heads and query tokens. */
  mass: { selected: number; random: number; best: number };
  heads: {
    kind: string;
    mass: { selected: number; random: number; best: number };
    error: { selected: OutputError; random: OutputError };
  }[];
  times: Record<'dense' | 'vsa' | 'selection' | 'random' | 'vsaWithBackward', Timing>;
  /** Dense time over VSA's time, forward. */
  speedUp: number;
  flops: { dense: number; vsa: number; ratio: number };
  memory: { numTensors: number; numBytes: number; peakProcessBytes: number };
  /** Of the whole demo. */
  seconds: number;
}

export function makeResult(
  { clip, grid, topK, settings, device, measurement }: ReportInput,
  { reportBytes, seconds }: { reportBytes: number; seconds: number },
): DemoResult {
  const { vsa, random, best, times: time, flops: work, memory } = measurement;
  const masses = (of: (values: readonly number[]) => number) => ({
    selected: of(vsa.heldByHead),
    random: of(random.heldByHead),
    best: of(best.heldByHead),
  });
  return {
    report: settings.out,
    reportBytes,
    source: { kind: clip.kind, name: clip.sourceName, frames: clip.frames, width: clip.width, height: clip.height },
    grid: {
      tokens: grid.tokens,
      length: grid.length,
      tiles: grid.tileCount,
      tileCounts: grid.tileCounts,
      paddedSlots: grid.slots - grid.length,
    },
    topK,
    sparsity: settings.sparsity,
    headDim: settings.headDim,
    dtype: settings.dtype,
    seed: settings.seed,
    device: { name: device.toString(), processor: device.name },
    mass: masses(mean),
    heads: vsa.errors.map((error, head) => ({
      kind: headKind(head).name,
      mass: masses((values) => values[head]!),
      error: { selected: error, random: random.errors[head]! },
    })),
    times: time,
    speedUp: time.dense.ms / time.vsa.ms,
    flops: { ...work, ratio: work.dense / work.vsa },
    memory: { ...memory, peakProcessBytes: process.resourceUsage().maxRSS * 1024 },
    seconds,
  };
}

/** The result for a terminal. */
export function summaryText(result: DemoResult): string {
  const { grid, heads, mass, source, times: time } = result;
  const byHead = new Table({
    head: ['head', 'selected', 'best possible', 'random', 'error to dense'],
    colAligns: ['left', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  const row = (name: string, held: typeof mass, error: string) =>
    byHead.push([name, percent(held.selected), percent(held.best), percent(held.random), error]);
  heads.forEach((head, at) => row(`${at} ${head.kind}`, head.mass, head.error.selected.relative.toPrecision(3)));
  row('mean', mass, '');
  const facts = new Table({ style: { head: [], border: [] } });
  facts.push(
    ['clip', `${source.name}, ${source.frames} frames, ${source.width}x${source.height}`],
    ['tokens', `${grid.tokens.join('x')} = ${grid.length}, ${grid.tiles} tiles, ${grid.paddedSlots} empty slots`],
    ['kept', `${result.topK} of ${grid.tiles} tiles (sparsity ${result.sparsity})`],
    ['dense', `${duration(time.dense.ms)}, ${flops(result.flops.dense)}`],
    ['VSA', `${duration(time.vsa.ms)}, ${flops(result.flops.vsa)}; ${duration(time.vsaWithBackward.ms)} with backward`],
    ['speed-up', `${times(result.speedUp)} (operations: ${times(result.flops.ratio)} fewer)`],
    ['memory', `${bytes(result.memory.numBytes)} in tensors, ${bytes(result.memory.peakProcessBytes)} process peak`],
    ['device', `${result.device.name}: ${result.device.processor}`],
  );
  return [
    facts.toString(),
    '',
    'Share of dense attention held by the kept tiles:',
    byHead.toString(),
    '',
    `Report: ${result.report} (${bytes(result.reportBytes)}, ${result.seconds.toFixed(1)} s in all)`,
    '',
  ].join('\n');
}
