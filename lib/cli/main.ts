#!/usr/bin/env node
/** `vsa`: what can be done from a shell. */

import { Command, CommanderError, Option } from 'commander';
import type { DemoOptions } from '../demo/options.js';
import { version } from '../version.js';
import { addBench } from './bench-command.js';
import type { CheckCommandOptions } from './check.js';
import { command, deviceOption, EXIT_CODES } from './command.js';
import { wholeNumber } from './options.js';
import { EXIT } from './report.js';
import { addReport, addSample, addTrain } from './train-command.js';

function build(): Command {
  const program = new Command('vsa')
    .description('Video Sparse Attention for Node: look at what is here, check its numbers, see it work.')
    .version(version)
    .showHelpAfterError("(see 'vsa --help')")
    .exitOverride()
    .addHelpText(
      'after',
      `\nExamples:\n  vsa info\n  vsa check --device cpu\n  vsa demo --video clip.mp4\n${EXIT_CODES}`,
    );

  command(
    program,
    'info',
    'devices, versions, and which backend serves what, or why not',
    [],
    '  vsa info\n  vsa info --json | jq .cuda',
    async (options: { json: boolean }) => {
      const { runInfo } = await import('./info.js');
      runInfo(options);
      return EXIT.ok;
    },
  );

  command(
    program,
    'check',
    'numerics of every operation and gradient against a float64 oracle',
    [
      deviceOption(),
      new Option('--seed <n>', 'seed of the inputs').argParser(wholeNumber).default(1),
      new Option('--only <operation...>', 'only these operations'),
      new Option('--backend <name>', "of fine attention; 'cuda': the portable kernels where Hopper's own would serve")
        .choices(['auto', 'cpu', 'cuda'])
        .default('auto'),
      new Option('--all', 'every row, instead of the worst of each tensor and all that failed'),
    ],
    '  vsa check --device cpu\n  vsa check --only coarseAttention tileSelection --json',
    async (options: CheckCommandOptions) => {
      const { runCheckCommand } = await import('./check.js');
      return runCheckCommand(options);
    },
  );

  command(
    program,
    'demo',
    'runs VSA and dense attention on a video and writes a report to look at',
    [
      new Option('--video <file>', 'a video that ffmpeg can read (default: a built-in synthetic clip)'),
      new Option('--tokens <file>', 'patch tokens that --export-tokens wrote, where there is no ffmpeg'),
      deviceOption(),
      new Option('--grid <TxYxX>', 'token grid; partial tiles are fine'),
      new Option('--full', 'the grid of an 81-frame 832x480 clip, 21x30x52 (minutes on a CPU)'),
      new Option('--sparsity <x>', 'share of key tiles left out, 0 to 1'),
      new Option('--heads <n>', 'attention heads'),
      new Option('--head-dim <n>', '64, 96 or 128'),
      new Option('--dtype <name>', "'float32', 'bfloat16' or 'float16'"),
      new Option('--seed <n>', 'seed of the projections'),
      new Option('--out <file>', 'the report (default: vsa-demo.html)'),
      new Option('--export-tokens <file>', 'also write the patch tokens as safetensors, uint8'),
    ],
    '  vsa demo\n' +
      '  vsa demo --video clip.mp4 --sparsity 0.95\n' +
      '  vsa demo --video clip.mp4 --full --export-tokens clip.safetensors\n' +
      '  vsa demo --tokens clip.safetensors --device cuda',
    async (options: DemoOptions) => {
      const { runDemo } = await import('../demo/run.js');
      const { stdout, stderr } = process;
      await runDemo(options, { stdout, stderr, isTTY: stderr.isTTY });
      return EXIT.ok;
    },
  );

  addBench(program);
  addTrain(program);
  addSample(program);
  addReport(program);
  return program;
}

async function main(): Promise<void> {
  // A reader that has seen enough (`vsa check | head`) is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(EXIT.ok);
    throw error;
  });
  try {
    await build().parseAsync(process.argv);
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Commander has printed it. Asking for help or the version is no error.
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  }
}

void main();
