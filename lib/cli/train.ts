/** `vsa train`, `vsa sample` and `vsa report`. */

import { type DeviceString, device as deviceOf } from '../device/device.js';
import { VsaTypeError } from '../errors.js';
import { writeClip } from '../media/index.js';
import { createTrainProgress } from '../train/progress.js';
import { writeReport } from '../train/report/write.js';
import { train } from '../train/run.js';
import { loadSampler, sampleClip } from '../train/sample.js';
import { parseTrainOptions, type TrainOptions } from '../train/settings.js';
import { EXIT, printJson } from './report.js';

export interface TrainCommandOptions extends TrainOptions {
  out: string;
  resume?: boolean;
  device?: string;
  json: boolean;
}

/** As shells count: 128 and the signal's number. */
const INTERRUPTED = 130;

/** The settings among the options of a command; a resumed run takes none. */
function settingsOf({ out: _out, device: _device, json: _json, resume, fineGate, ...given }: TrainCommandOptions) {
  const options = { ...given, ...(fineGate === false && { fineGate }) };
  if (resume !== true) return parseTrainOptions(options);
  const [name] = Object.keys(options);
  if (name === undefined) return undefined;
  const got = `'${name}' beside resume`;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: name, got, wanted: 'the settings that the run began with' });
}

export async function runTrainCommand(options: TrainCommandOptions): Promise<number> {
  const settings = settingsOf(options);
  const device = deviceOf(options.device as DeviceString | undefined);
  const { stdout, stderr } = process;
  const controller = new AbortController();
  // The second one ends the process as it ends any other.
  const stop = () => {
    controller.abort();
    stderr.write('\nsaving after this step; once more ends at once\n');
  };
  const signals = ['SIGINT', 'SIGTERM'] as const;
  for (const signal of signals) process.once(signal, stop);
  try {
    const progress = createTrainProgress({ stderr, isTTY: stderr.isTTY });
    const result = await train({ out: options.out, settings, device, progress, signal: controller.signal });
    if (!result.interrupted) await writeReport([options.out], { device });
    if (options.json) printJson(result);
    else stdout.write(summary(options.out, result));
    return result.interrupted ? INTERRUPTED : EXIT.ok;
  } finally {
    for (const signal of signals) process.removeListener(signal, stop);
  }
}

function summary(
  out: string,
  { step, loss, interrupted }: { step: number; loss: number | null; interrupted: boolean },
) {
  const last = loss === null ? '' : `, loss ${loss.toFixed(4)}`;
  const next = interrupted
    ? `go on: vsa train --out ${out} --resume`
    : `look: ${out}/report.html; draw: vsa sample --checkpoint ${out}/checkpoint.safetensors`;
  return `${String(step)} steps${last}\n${next}\n`;
}

export interface SampleCommandOptions {
  checkpoint: string;
  out: string;
  seed: number;
  steps: number;
  shift: number;
  scale: number;
  fps: number;
  ema: boolean;
  device?: string;
  json: boolean;
}

export async function runSampleCommand(options: SampleCommandOptions): Promise<number> {
  const { checkpoint, out, seed, steps, shift, scale, fps, ema } = options;
  const device = deviceOf(options.device as DeviceString | undefined);
  const sampler = await loadSampler(checkpoint, device, ema);
  try {
    const frames = await sampleClip(sampler.model, sampler.settings, { seed, steps, shift });
    await writeClip(out, { frames, shape: sampler.settings.video, scale, fps });
    const result = { out, shape: sampler.settings.video, trainedSteps: sampler.step, seed, steps };
    if (options.json) printJson(result);
    else process.stdout.write(`${out}: ${sampler.settings.video.join('x')}, after ${String(sampler.step)} steps\n`);
    return EXIT.ok;
  } finally {
    sampler[Symbol.dispose]();
  }
}

export interface ReportCommandOptions {
  runs: string[];
  out: string;
  device?: string;
  json: boolean;
}

export async function runReportCommand({ runs, out, device, json }: ReportCommandOptions): Promise<number> {
  const result = await writeReport(runs, { out, device: deviceOf(device as DeviceString | undefined) });
  if (json) printJson(result);
  else process.stdout.write(`${result.out}\n`);
  return EXIT.ok;
}
