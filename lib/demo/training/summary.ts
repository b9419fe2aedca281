/** What training in `vsa demo` came to, as a plain object and as a table. */
import Table from 'cli-table3';

import { bytes, duration, flops as operations, percent, times } from '../../report/html.js';
import { short } from '../../train/report/charts.js';
import { numbersOf, type TrainingReport } from './report/data.js';

/** `--json` prints it. */
export interface TrainingDemoResult {
  /** Path of the report, as given. */
  report: string;
  /** Bytes of the report. */
  reportBytes: number;
  device: { name: string; processor: string };
  seed: number;
  steps: number;
  model: { parameters: number; layers: number; heads: number; width: number; dtype: string };
  /** Frames, height, width in pixels of a clip and of a token; tokens of a clip. */
  clips: {
    video: readonly number[];
    patch: readonly number[];
    tokens: readonly number[];
    length: number;
    batch: number;
  };
  /** Tiles that every query tile keeps, of how many, and the share of dense attention that they hold. */
  selection: { topK: number; tiles: number; sparsity: number; held: number };
  /** Of the first step, and the mean of the last tenth. */
  loss: { first: number; last: number };
  /** Mean squared errors to held-out clips: of those with noise, and after one step of the model. */
  denoising: { time: number; noisy: number; before: number; after: number }[];
  time: { seconds: number; msPerStep: number; tokensPerSecond: number; tflops: number; mfu: number | null };
  /** Of one forward of one clip. */
  flops: { attention: { vsa: number; dense: number }; model: { vsa: number; dense: number } };
  /** Of the whole demo. */
  seconds: number;
}

export function makeResult(
  report: TrainingReport,
  whole: Pick<TrainingDemoResult, 'report' | 'reportBytes' | 'seconds'>,
): TrainingDemoResult {
  const { settings, device, config, grid, parameterCount, rows, views } = report;
  const { video, patch, seed, batch, sparsity, dtype } = settings;
  const { loss, time, held, attentionFlops, modelFlops } = numbersOf(report);
  return {
    report: whole.report,
    reportBytes: whole.reportBytes,
    device: { name: device.toString(), processor: device.name },
    seed,
    steps: rows.length,
    model: { parameters: parameterCount, layers: config.layers, heads: config.heads, width: config.width, dtype },
    clips: { video, patch, tokens: grid.tokens, length: grid.length, batch },
    selection: { topK: config.topK!, tiles: grid.tileCount, sparsity, held },
    loss,
    denoising: views.map(({ time: at, noisy, before, after }) => ({
      ...{ time: at, noisy: noisy.error, before: before.error, after: after.error },
    })),
    time,
    flops: { attention: attentionFlops, model: modelFlops },
    seconds: whole.seconds,
  };
}

/** The result for a terminal. */
export function summaryText(result: TrainingDemoResult): string {
  const { clips, model, selection, loss, time, flops, device } = result;
  const facts = new Table({ style: { head: [], border: [] } });
  const speed = time.mfu === null ? `${operations(time.tflops * 1e12)}/s` : `MFU ${percent(time.mfu)}`;
  facts.push(
    ['model', `${short(model.parameters)} parameters, ${model.layers} layers, ${model.width} wide, ${model.dtype}`],
    ['clips', `${clips.video.join('x')} pixels, ${clips.tokens.join('x')} = ${clips.length} tokens`],
    ['kept', `${selection.topK} of ${selection.tiles} tiles, ${percent(selection.held)} of dense attention`],
    ['attention', `${times(flops.attention.dense / flops.attention.vsa)} fewer operations than dense`],
    ['steps', `${result.steps} in ${duration(time.seconds * 1000)}, ${short(time.tokensPerSecond)} tokens/s, ${speed}`],
    ['loss', `${loss.first.toFixed(3)} at first, ${loss.last.toFixed(3)} at the end`],
    ...result.denoising.map(({ time: at, noisy, after }) => [
      `noise ${percent(at, 0)}`,
      `squared error ${noisy.toFixed(3)}, after one step of the model ${after.toFixed(4)}`,
    ]),
    ['device', `${device.name}: ${device.processor}`],
  );
  return `${facts.toString()}\n\nReport: ${result.report} (${bytes(result.reportBytes)}, ${result.seconds.toFixed(1)} s in all)\n`;
}
