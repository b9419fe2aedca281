/** The options of `vsa train`, `vsa sample` and `vsa report`. */

import { type Command, Option } from 'commander';
import { command, deviceOption } from './command.js';
import { decimalNumber, triple, wholeNumber } from './options.js';
import type { ReportCommandOptions, SampleCommandOptions, TrainCommandOptions } from './train.js';

const whole = (flags: string, text: string) => new Option(flags, text).argParser(wholeNumber);
const decimal = (flags: string, text: string) => new Option(flags, text).argParser(decimalNumber);
const size = (flags: string, text: string) => new Option(flags, text).argParser(triple);

export function addTrain(program: Command): void {
  command(
    program,
    'train',
    'trains a video diffusion transformer; Ctrl-C saves and ends, --resume goes on with the same bits',
    [
      new Option('--out <folder>', 'of the run: settings, log, checkpoint, samples, report').default('run'),
      new Option('--resume', 'go on with the run in --out, with its own settings'),
      new Option('--preset <name>', 'settings to start from').choices(['tiny', 'dit-120m']),
      new Option('--data <what>', "'shapes': the built-in generator; else a folder of videos"),
      size('--video <FxHxW>', 'of a clip: frames, height, width in pixels'),
      size('--patch <FxHxW>', 'pixels of a token'),
      whole('--width <n>', 'of the model: heads of 64, 96 or 128'),
      whole('--heads <n>', 'attention heads'),
      whole('--layers <n>', 'blocks'),
      whole('--ffn <n>', 'width of the feed-forward network (default: 4 widths)'),
      new Option('--attention <kind>', 'of the model').choices(['full', 'vsa']),
      decimal('--sparsity <x>', 'of vsa: share of key tiles left out, 0 to 1'),
      new Option('--no-fine-gate', 'of vsa: the coarse gate alone'),
      new Option('--dtype <name>', 'of activations').choices(['float32', 'bfloat16', 'float16']),
      new Option('--checkpointing', 'compute blocks again in the backward instead of keeping them'),
      whole('--batch <n>', 'clips a step'),
      whole('--steps <n>', 'steps'),
      decimal('--learning-rate <x>', 'at its peak'),
      whole('--warmup <n>', 'steps to the peak'),
      new Option('--schedule <name>', 'after the peak').choices(['constant', 'cosine']),
      decimal('--weight-decay <x>', 'of matrices'),
      decimal('--clip <x>', 'largest norm of the gradient; 0: not clipped'),
      decimal('--ema <x>', 'decay of the moving average of the weights; 0: none'),
      whole('--seed <n>', 'of weights, data, noise and times'),
      whole('--checkpoint-every <n>', 'steps from one checkpoint to the next'),
      new Option('--adapt <file>', 'a dense checkpoint to make sparse: gates from zero, K from all tiles'),
      whole('--adapt-interval <n>', 'steps between two increases of the sparsity (default: 50)'),
      decimal('--adapt-rate <x>', 'sparsity added by each (default: 0.03)'),
      deviceOption(),
    ],
    '  vsa train --steps 200\n' +
      '  vsa train --data clips/ --video 16x128x128 --out runs/clips\n' +
      '  vsa train --out runs/clips --resume\n' +
      '  vsa train --adapt runs/dense/checkpoint.safetensors --no-fine-gate --learning-rate 1e-5 --out runs/sparse\n\n' +
      'Exit code 130 after Ctrl-C: the run is saved. A second Ctrl-C ends it at once.',
    async (options: TrainCommandOptions) => {
      const { runTrainCommand } = await import('./train.js');
      return runTrainCommand(options);
    },
  );
}

export function addSample(program: Command): void {
  command(
    program,
    'sample',
    'draws a clip from a checkpoint and writes it as GIF or MP4',
    [
      new Option('--checkpoint <file>', 'that vsa train wrote').default('run/checkpoint.safetensors'),
      new Option('--out <file>', 'the clip, .gif or .mp4').default('sample.gif'),
      whole('--seed <n>', 'of the noise').default(1),
      whole('--steps <n>', 'Euler steps').default(50),
      decimal('--shift <x>', 'of the times: above 1, more steps where the clip is mostly noise').default(1),
      whole('--scale <n>', 'a pixel becomes n x n of them').default(2),
      decimal('--fps <x>', 'frames a second').default(16),
      new Option('--no-ema', 'the weights themselves, not their moving average'),
      deviceOption(),
    ],
    '  vsa sample --checkpoint run/checkpoint.safetensors --out sample.mp4 --seed 7',
    async (options: SampleCommandOptions) => {
      const { runSampleCommand } = await import('./train.js');
      return runSampleCommand(options);
    },
  );
}

export function addReport(program: Command): void {
  command(
    program,
    'report',
    'one page about training runs: curves, samples, what heads select',
    [
      new Option('--runs <folders...>', 'of vsa train').default(['run']),
      new Option('--out <file>', 'the page').default('report.html'),
      deviceOption(),
    ],
    '  vsa report --runs runs/full runs/vsa --out report.html',
    async (options: ReportCommandOptions) => {
      const { runReportCommand } = await import('./train.js');
      return runReportCommand(options);
    },
  );
}
