/** `vsa demo --attention`: a clip, its tokens, q, k and v, sparse and dense attention, and a report about them. */
import { TileGrid } from '../attention/grid.js';
import { topK } from '../attention/schedules.js';
import { device as deviceOf } from '../device/device.js';
import type { DeviceString } from '../device/device.js';
import { writeFileAtomic } from '../files/atomic.js';
import { Tensor } from '../tensor/tensor.js';
import { loadClip } from './clip.js';
import { measure, measureStages, streamSeed } from './measure.js';
import { checkWritable } from './checks.js';
import { parseDemoOptions } from './options.js';
import type { DemoOptions, DemoSettings } from './options.js';
import { createProgress } from './progress.js';
import type { DemoIo, Progress } from './progress.js';
import { project } from './projection.js';
import { renderReport } from './report/page.js';
import type { ReportInput } from './report/data.js';
import { makeResult, summaryText } from './summary.js';
import type { DemoResult } from './summary.js';
import { writeTokens } from './tokens-file.js';

export type { DemoOptions } from './options.js';
export type { DemoIo } from './progress.js';
export type { DemoResult } from './summary.js';

/**
 * Runs the demo: writes the report to `options.out`, progress to `io.stderr`, and a summary (or, with `json`, one JSON
 * object) to `io.stdout`. Files appear complete or not at all; every tensor is disposed, also on failure.
 * @throws VsaTypeError or VsaRangeError for options; VsaError ERR_FILE, ERR_FILE_FORMAT, ERR_VIDEO, ERR_DEVICE,
 *   ERR_OUT_OF_MEMORY.
 */
export async function runDemo(options: DemoOptions, io: DemoIo): Promise<DemoResult> {
  const started = performance.now();
  const settings = parseDemoOptions(options);
  const device = deviceOf(settings.device as DeviceString | undefined);
  await checkWritable('out', settings.out);
  if (settings.exportTokens !== undefined) await checkWritable('exportTokens', settings.exportTokens);

  const progress = createProgress(io);
  let completed = false;
  try {
    const input = await gather(settings, device, progress);
    progress.stage('report', SHARES.report);
    const html = Buffer.from(renderReport(input), 'utf8');
    await writeFileAtomic(settings.out, html);
    completed = true;
    const seconds = (performance.now() - started) / 1000;
    const result = makeResult(input, { reportBytes: html.length, seconds });
    progress.end(true);
    io.stdout.write(settings.json ? `${JSON.stringify(result)}\n` : summaryText(result));
    return result;
  } finally {
    if (!completed) progress.end(false);
  }
}

/** Shares of the whole, for the progress bar; the rest is measuring. */
const SHARES = { clip: 0.06, projection: 0.06, report: 0.04 };

async function gather(settings: DemoSettings, device: ReportInput['device'], progress: Progress): Promise<ReportInput> {
  progress.stage('clip', SHARES.clip);
  const clip = await loadClip(settings, progress);
  if (settings.exportTokens !== undefined) await writeTokens(settings.exportTokens, clip);
  const grid = new TileGrid({ tokens: clip.shape });
  const kept = topK(grid, { sparsity: settings.sparsity });
  const { heads, headDim, seed, dtype, sparsity } = settings;

  progress.stage('projection', SHARES.projection);
  const projections = await project({
    ...{ tokens: clip.tokens, shape: clip.shape, heads, headDim },
    normal: (count, stream) => normalNumbers(count, streamSeed(seed, stream)),
    onHead: () => progress.advance(1 / heads),
  });

  const stages = measureStages(sparsity);
  const work = Object.values(stages).reduce((sum, part) => sum + part, 0);
  const measuring = 1 - SHARES.clip - SHARES.projection - SHARES.report;
  const measurement = await measure(
    { projections, grid, heads, headDim, dtype, device, topK: kept, seed, progress },
    (stage) => (stages[stage] / work) * measuring,
  );
  return { clip, grid, topK: kept, settings, device, measurement };
}

/** From the package's counter-based generator, always on the CPU: every machine gets the same. */
async function normalNumbers(count: number, seed: bigint): Promise<Float32Array> {
  const tensor = Tensor.randn([count], { seed, device: 'cpu' });
  try {
    return await tensor.toFloat32();
  } finally {
    tensor.dispose();
  }
}
