/** Progress of a training run: a bar on a terminal, plain lines in a log. */

import { SingleBar } from 'cli-progress';
import type { VideoDiT } from '../models/video-dit.js';
import type { LogRow } from './log.js';
import type { TrainSettings } from './settings.js';

export interface TrainIo {
  readonly stderr: NodeJS.WritableStream;
  /** Whether `stderr` is a terminal that a bar can be drawn on. */
  readonly isTTY: boolean;
}

export interface TrainProgress {
  begin(model: VideoDiT, settings: TrainSettings, start: number): void;
  step(row: LogRow): void;
  /** Leaves the terminal clean. */
  end(): void;
}

/** Milliseconds between two lines in a log. */
const LINE_INTERVAL = 10_000;
/** Share of the newest loss in the one that is shown: single losses jump with the drawn times. */
const SMOOTHING = 0.05;

function count(value: number): string {
  const units = ['', 'k', 'M', 'G', 'T'];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${value.toPrecision(3)}${units[unit]!}`;
}

/** Loss, speed and memory in a few words. */
export function stepText(row: LogRow, loss: number): string {
  const speed = row.mfu === null ? `${(row.tflops * 1000).toFixed(1)} GFLOP/s` : `MFU ${(row.mfu * 100).toFixed(1)} %`;
  const kept = row.topK === null ? '' : `  K ${String(row.topK)}`;
  return `loss ${loss.toFixed(4)}  ${count(row.tokensPerSecond)} tokens/s  ${speed}${kept}  ${count(row.memory)}B`;
}

function describe(model: VideoDiT, { attention, dtype, steps }: TrainSettings, start: number): string {
  const { grid, config } = model;
  const kept =
    attention === 'full' ? 'full attention' : `VSA, K ${String(model.topK)} of ${String(grid.tileCount)} tiles`;
  const from = start === 0 ? '' : `, from step ${String(start)}`;
  return (
    `${count(model.parameterCount)} parameters, ${String(config.layers)} layers, ${grid.toString()} = ` +
    `${String(grid.length)} tokens, ${kept}, ${dtype}, ${String(steps)} steps${from}\n`
  );
}

/** The progress of a command. */
export function createTrainProgress({ stderr, isTTY }: TrainIo): TrainProgress {
  let bar: SingleBar | undefined;
  let smooth: number | undefined;
  let lastLine = performance.now();
  let steps = 0;
  return {
    begin(model, settings, start) {
      steps = settings.steps;
      stderr.write(describe(model, settings, start));
      if (!isTTY) return;
      bar = new SingleBar({
        stream: stderr,
        format: ' {bar} {value}/{total}  {text}  {eta_formatted}',
        barCompleteChar: '█',
        barIncompleteChar: '░',
        barsize: 20,
        stopOnComplete: false,
        gracefulExit: false, // a signal saves first
        linewrap: true,
      });
      bar.start(settings.steps, start, { text: '' });
    },
    step(row) {
      smooth = smooth === undefined ? row.loss : smooth + SMOOTHING * (row.loss - smooth);
      const text = stepText(row, smooth);
      bar?.update(row.step, { text });
      const now = performance.now();
      if (isTTY || (now - lastLine < LINE_INTERVAL && row.step !== steps)) return;
      lastLine = now;
      stderr.write(`step ${String(row.step)} of ${String(steps)}: ${text}\n`);
    },
    end() {
      bar?.stop();
    },
  };
}
