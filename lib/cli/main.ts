#!/usr/bin/env node
/** `vsa`: what can be done from a shell. */

import { Command, CommanderError, Option } from 'commander';
import { version } from '../version.js';
import { addBench } from './bench-command.js';
import type { CheckCommandOptions } from './check.js';
import { command, deviceOption, EXIT_CODES } from './command.js';
import { addDemo } from './demo-command.js';
import { wholeNumber } from './options.js';
import { EXIT } from './report.js';
import { addReport, addSample, addTrain } from './train-command.js';

function build(): Command {
  const program = new Command('vsa')
    .description('Video Sparse Attention for Node: look at what is here, check its numbers, see it work.')
    .version(version)
    .showHelpAfterError("(see 'vsa --help')")
    .exitOverride()
    .addHelpText('after', `\nExamples:\n  vsa info\n  vsa check --device cpu\n  vsa demo\n${EXIT_CODES}`);

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

  addDemo(program);
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
