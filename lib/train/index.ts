/** What of training runs is public. */

export type { LogRow } from './log.js';
export { loadSampler, sampleClip, type Sampler, type SampleOptions } from './sample.js';
export { parseTrainOptions, type PresetName, type TrainOptions, type TrainSettings } from './settings.js';
export { createTrainProgress, type TrainIo, type TrainProgress } from './progress.js';
export { train, type TrainRequest, type TrainResult } from './run.js';
export { type StepResult, Trainer } from './trainer.js';
export { type ReportOptions, writeReport } from './report/write.js';
