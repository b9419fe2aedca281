/** `vsa demo`: a small video diffusion transformer learns to take noise off moving shapes, and a page shows it. */
import type { Device } from '../../device/device.js';
import { writeFileAtomic } from '../../files/atomic.js';
import type { VideoDiT } from '../../models/video-dit.js';
import { createTrainProgress } from '../../train/progress.js';
import { sampleClip, samplerModel } from '../../train/sample.js';
import { Trainer } from '../../train/trainer.js';
import { checkWritable } from '../checks.js';
import { createProgress } from '../progress.js';
import type { DemoIo, Progress } from '../progress.js';
import { type Frames, HeldOut } from './held-out.js';
import { learn, stepsWithin } from './learn.js';
import { placeToTrain } from './place.js';
import type { TrainingReport, View } from './report/data.js';
import { renderTrainingReport } from './report/page.js';
import { type Job, JOBS, parseTrainingDemoOptions, type TrainingDemoOptions, trainSettings } from './settings.js';
import { makeResult, summaryText, type TrainingDemoResult } from './summary.js';

/** Times that clips are shown at: 0 is the clip, 1 is noise. The layers are looked at in the first. */
const TIMES = [0.5, 0.75] as const;
/** Added to a run's seed for the noise that clips are drawn from. */
const SAMPLE_SEED = 2 ** 34;

/**
 * Trains for some minutes: writes the report to `options.out`, progress to `io.stderr`, and a summary (or, with `json`,
 * one JSON object) to `io.stdout`. The report appears complete or not at all; every tensor is disposed, also on failure.
 *
 * @param run.signal Ends it: nothing is written then.
 * @param run.jobs What is trained on which kind of device.
 * @returns undefined where the signal came first.
 * @throws VsaTypeError or VsaRangeError for options; VsaError ERR_FILE, ERR_DEVICE, ERR_BACKEND, ERR_LOSS;
 *   OutOfMemoryError.
 */
export async function runTrainingDemo(
  options: TrainingDemoOptions,
  io: DemoIo,
  { signal, jobs = JOBS }: { signal?: AbortSignal; jobs?: typeof JOBS } = {},
): Promise<TrainingDemoResult | undefined> {
  const started = performance.now();
  const settings = parseTrainingDemoOptions(options);
  const { device, why } = await placeToTrain(settings.device);
  if (why !== undefined) io.stderr.write(`${why}; training on the CPU\n`);
  await checkWritable('out', settings.out);

  const job = jobs[device.type];
  const minutes = settings.minutes ?? job.minutes;
  const steps = settings.steps ?? (await stepsWithin(minutes, job, settings.seed, device, signal));
  const report = await trainAndLook({ job, steps, seed: settings.seed, device, io, signal });
  if (report === undefined) return undefined;
  const html = Buffer.from(renderTrainingReport(report), 'utf8');
  await writeFileAtomic(settings.out, html);
  const seconds = (performance.now() - started) / 1000;
  const result = makeResult(report, { report: settings.out, reportBytes: html.length, seconds });
  io.stdout.write(settings.json ? `${JSON.stringify(result)}\n` : summaryText(result));
  return result;
}

interface Work {
  job: Job;
  steps: number;
  seed: number;
  device: Device;
  io: DemoIo;
  signal: AbortSignal | undefined;
}

async function trainAndLook({ job, steps, seed, device, io, signal }: Work): Promise<TrainingReport | undefined> {
  const settings = trainSettings(job, steps, seed);
  const heldOut = await HeldOut.load(job, settings);
  using trainer = new Trainer(settings, device);
  const before = await looks(heldOut, trainer.model);
  const progress = createTrainProgress(io);
  progress.begin(trainer.model, settings, 0);
  const rows = await learn(job, trainer, progress, signal).finally(() => progress.end());
  if (signal?.aborted === true) return undefined;

  using model = samplerModel(settings, device);
  await trainer.withTensors(({ ema, model: last }) => Promise.resolve(model.load(ema.size > 0 ? ema : last)));
  const drawing = createProgress(io);
  try {
    drawing.stage('pictures', 1);
    const samples = await draw(model, { job, seed, settings, progress: drawing, signal });
    if (samples === undefined) return undefined;
    const after = await looks(heldOut, model);
    const views = TIMES.map((time, at): View => {
      const { noisy, denoised } = before[at]!;
      return { time, noisy, before: denoised, after: after[at]!.denoised };
    });
    const layers = await heldOut.study(model, TIMES[0]);
    drawing.end();
    const { config, grid, parameterCount } = model;
    return { settings, device, config, grid, parameterCount, rows, clips: heldOut.clips, views, samples, layers };
  } finally {
    drawing.end(false);
  }
}

async function looks(heldOut: HeldOut, model: VideoDiT): Promise<Awaited<ReturnType<HeldOut['look']>>[]> {
  const found = [];
  for (const time of TIMES) found.push(await heldOut.look(model, time));
  return found;
}

interface Drawing extends Pick<Work, 'job' | 'seed' | 'signal'> {
  settings: Parameters<typeof sampleClip>[1];
  progress: Progress;
}

/** Clips drawn from noise; undefined where the signal came first. */
async function draw(
  model: VideoDiT,
  { job, seed, settings, progress, signal }: Drawing,
): Promise<Frames[] | undefined> {
  const samples: Frames[] = [];
  for (let at = 0; at < job.samples; at++) {
    if (signal?.aborted === true) return undefined;
    const options = { seed: SAMPLE_SEED * (1 + at) + seed, steps: job.samplingSteps, shift: 1 };
    samples.push(await sampleClip(model, settings, options));
    progress.advance(1 / job.samples);
    await new Promise((resume) => setImmediate(resume)); // lets a signal in
  }
  return samples;
}
