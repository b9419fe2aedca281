/** The options of `vsa bench`. */

import { type Command, Option } from 'commander';
import { presetsHelp } from '../bench/presets.js';
import type { BenchOptions } from './bench.js';
import { command, deviceOption } from './command.js';

export function addBench(program: Command): void {
  command(
    program,
    'bench [op]',
    'times operations on random inputs, with a correctness verdict on every row',
    [
      new Option('--preset <names>', 'shapes by name, see below, or all'),
      new Option('--direction <names>', 'forward, backward, both in one call (default: forward,backward)'),
      deviceOption(),
      new Option(
        '--backend <names>',
        "'cpu', 'cuda' or 'sm90' forces one; rows that it does not serve fail (default: auto)",
      ),
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
      new Option('--lists <kinds>', 'of the fine stage: random, local, tight, hub, dense, file'),
      new Option('--lists-file <file.npy>', 'captured lists [.., N, K] (-1: no more), or a mask [.., N, N]'),
      new Option('--order <names>', 'how tokens lie: grid, tiled (default: grid)'),
      new Option('--coarse <modes>', 'of vsa: skip, add, gate (default: gate)'),
      new Option('--data <kinds>', 'of vsa: randn, or smooth, where neighbours select alike (default: randn)'),
      new Option('--fine-gate <modes>', 'of vsa: on: a gate for the fine stage too; off (default: off)'),
      new Option('--cache <modes>', 'the L2 before every call: warm, cold (default: warm)'),
      new Option('--graph <modes>', 'on: replayed as a CUDA graph; off: called (default: off,on on a GPU)'),
      new Option('--seed <n>', 'of inputs and lists (default: 1)'),
      new Option('--samples <n>', 'of every row (default: what a second takes, 30 to 400; fewer of slow calls)'),
      new Option('--out <file>', 'append every row to this file as a line of JSON'),
      new Option('--html <file>', 'also write a report with bars and the roofline'),
      new Option('--compare <file>', 'rows of an earlier run: ratios, marked where beyond the noise'),
      new Option('--from <files...>', 'shows the rows of files as --out wrote them; measures nothing'),
    ],
    '  vsa bench --device cpu\n' +
      '  vsa bench fine --preset fine-40k --direction forward\n' +
      '  vsa bench vsa --grid 21x30x52 --heads 12 --sparsity 0.8,0.9,0.95 --html bench.html\n' +
      '  vsa bench vsa --grid 21x30x52 --heads 12 --data smooth\n' +
      '  vsa bench fine,dense --length 4096..32768x2 --dtype bfloat16,float16 --out rows.jsonl\n' +
      '  vsa bench --preset all --compare bench/results/base.jsonl\n' +
      '  vsa bench --from rows.jsonl --compare base.jsonl --html bench.html\n\n' +
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
