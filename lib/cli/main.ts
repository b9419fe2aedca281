#!/usr/bin/env node
/** `vsa`: what can be done from a shell. */

import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { presetsHelp } from '../bench/presets.js';
import type { DemoOptions } from '../demo/options.js';
import { version } from '../version.js';
import type { BenchOptions } from './bench.js';
import type { CheckCommandOptions } from './check.js';
import { EXIT, reportError } from './report.js';

const EXIT_CODES = `
Exit codes: 0 done; 1 something failed (a check that does not hold, a file, a device); 2 wrong usage.`;
const JSON_OBJECT = 'print one JSON object on stdout';

function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('It takes a whole number.');
  return Number(text);
}

/**
 * Adds a command whose action's errors become sentences and exit codes. Actions load what they need themselves.
 * Arguments after the name, as in 'bench [op]', come to the action as options of that name.
 */
function command(
  program: Command,
  name: string,
  summary: string,
  options: readonly Option[],
  examples: string,
  action: (options: never) => Promise<number>,
  json = JSON_OBJECT,
): void {
  const one = program.command(name).summary(summary).description(summary).allowExcessArguments(false);
  for (const option of [...options, new Option('--json', json).default(false)]) one.addOption(option);
  one.addHelpText('after', `\nExamples:\n${examples}\n${EXIT_CODES}`);
  one.action(async () => {
    const given = one.opts<{ json: boolean }>();
    const args = Object.fromEntries(one.registeredArguments.map((argument, i) => [argument.name(), one.args[i]]));
    try {
      process.exitCode = await action({ ...given, ...args } as never);
    } catch (error) {
      process.exitCode = reportError(error, given.json);
    }
  });
}

const deviceOption = new Option('--device <name>', "'cpu', 'cuda' or 'cuda:N' (default: the best there is)");

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
      deviceOption,
      new Option('--seed <n>', 'seed of the inputs').argParser(wholeNumber).default(1),
      new Option('--only <operation...>', 'only these operations'),
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
      deviceOption,
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
  return program;
}

function addBench(program: Command): void {
  command(
    program,
    'bench [op]',
    'times operations on random inputs, with a correctness verdict on every row',
    [
      new Option('--preset <names>', 'shapes by name, see below, or all'),
      new Option('--direction <names>', 'forward, backward, both in one call (default: forward,backward)'),
      deviceOption,
      new Option('--backend <names>', "'cpu', 'cuda' or 'sm90' forces one (default: auto)"),
      new Option('--grid <TxYxX>', 'token grids; partial tiles are fine'),
      new Option('--length <n>', 'instead of a grid: a plain sequence'),
      new Option('--tile <TxYxX>', 'tile shapes of 64 tokens (default: 4x4x4)'),
      new Option('--prefix <n>', 'tokens before the video (default: 0)'),
      new Option('--batch <n>', 'B (default: 1)'),
      new Option('--heads <n>', 'H'),
      new Option('--kv-heads <n>', 'Hkv, a divisor of H (default: H)'),
      new Option('--head-dim <n>', '64, 96 or 128'),
      new Option('--dtype <names>', 'bfloat16, float16, float32 (default: bfloat16)'),
      new Option('--top-k <n>', 'K, key tiles kept for every query tile'),
      new Option('--sparsity <x>', 'instead of K: share of key tiles left out, 0 to 1'),
      new Option('--lists <kinds>', 'of the fine stage: random, local, tight, dense, file'),
      new Option('--lists-file <file.npy>', 'captured lists [.., N, K] (-1: no more), or a mask [.., N, N]'),
      new Option('--order <names>', 'how tokens lie: grid, tiled (default: grid)'),
      new Option('--coarse <modes>', 'of vsa: skip, add, gate (default: gate)'),
      new Option('--fine-gate', 'of vsa: a gate for the fine stage too'),
      new Option('--cache <modes>', 'the L2 before every call: warm, cold (default: warm)'),
      new Option('--graph <modes>', 'on: replayed as a CUDA graph; off: called (default: off,on on a GPU)'),
      new Option('--seed <n>', 'of inputs and lists (default: 1)'),
      new Option('--samples <n>', 'of every row (default: what a second takes, at least 30)'),
      new Option('--out <file>', 'append every row to this file as a line of JSON'),
      new Option('--html <file>', 'also write a report with bars and the roofline'),
      new Option('--compare <file>', 'rows of an earlier run: ratios, marked where beyond the noise'),
    ],
    '  vsa bench --device cpu\n' +
      '  vsa bench fine --preset fine-40k --direction forward\n' +
      '  vsa bench vsa --grid 21x30x52 --heads 12 --sparsity 0.8,0.9,0.95 --html bench.html\n' +
      '  vsa bench fine,dense --length 4096..32768x2 --dtype bfloat16,float16 --out rows.jsonl\n' +
      '  vsa bench --preset all --compare bench/results/base.jsonl\n\n' +
      'op: pool, select, lists, coarse, fine, dense, vsa, or all (default: those of the preset). Lists (a,b,c) and\n' +
      'ranges (8..64:8 in steps, 8..64x2 doubling) multiply. Of lists, forward builds bit rows, backward the\n' +
      'transpose.\n\n' +
      `Presets:\n${presetsHelp()}\n\nExit code 130 after Ctrl-C: what was finished is printed and written.`,
    async (options: BenchOptions) => {
      const { runBenchCommand } = await import('./bench.js');
      return runBenchCommand(options);
    },
    'print a line of JSON for every row on stdout',
  );
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
