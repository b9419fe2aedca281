/** The options of `vsa demo`. */

import { type Command, Option } from 'commander';
import type { AnyDemoOptions } from '../demo/kind.js';
import { command, deviceOption } from './command.js';

export function addDemo(program: Command): void {
  command(
    program,
    'demo',
    'trains a small video diffusion transformer on moving shapes, and writes a page of what it learned',
    [
      deviceOption(),
      new Option('--steps <n>', 'steps to train (default: what fits into the minutes)'),
      new Option('--minutes <x>', 'of training (default: 2.1 on a CPU, 3 on a GPU)'),
      new Option('--seed <n>', 'of all that is random (default: 1)'),
      new Option('--out <file>', 'the page (default: vsa-demo.html)'),
      new Option(
        '--attention',
        'instead of training: VSA and dense attention on a clip; each option below asks for it',
      ),
      new Option('--video <file>', 'a video that ffmpeg can read (default: a built-in synthetic clip)'),
      new Option('--tokens <file>', 'patch tokens that --export-tokens wrote, where there is no ffmpeg'),
      new Option('--grid <TxYxX>', 'token grid; partial tiles are fine'),
      new Option('--full', 'the grid of an 81-frame 832x480 clip, 21x30x52 (minutes on a CPU)'),
      new Option('--sparsity <x>', 'share of key tiles left out, 0 to 1'),
      new Option('--heads <n>', 'attention heads'),
      new Option('--head-dim <n>', '64, 96 or 128'),
      new Option('--dtype <name>', "'float32', 'bfloat16' or 'float16'"),
      new Option('--export-tokens <file>', 'also write the patch tokens as safetensors, uint8'),
    ],
    '  vsa demo\n' +
      '  vsa demo --minutes 20 --device cuda\n' +
      '  vsa demo --attention\n' +
      '  vsa demo --video clip.mp4 --sparsity 0.95\n' +
      '  vsa demo --video clip.mp4 --full --export-tokens clip.safetensors\n' +
      '  vsa demo --tokens clip.safetensors --device cuda\n\n' +
      'A GPU without cuBLASLt cannot train: without --device the CPU does. Exit code 130 after Ctrl-C: no page is written.',
    async (options: AnyDemoOptions) => {
      const { runDemoCommand } = await import('./demo.js');
      return runDemoCommand(options);
    },
  );
}
