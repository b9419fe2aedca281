/** Shapes by name: those of the field, and those that the project's results are quoted for. */

import type { Op } from './cases.js';
import type { ListsKind } from './lists.js';

export interface Preset {
  readonly name: string;
  /** Token grid. */
  readonly grid: string;
  /** Heads, for keys too. */
  readonly H: number;
  readonly D: number;
  /** Key tiles that a query tile keeps; 'all' for dense lists. */
  readonly K: number | 'all';
  /** Of the fine stage and the lists. */
  readonly lists: readonly ListsKind[];
  /** Measured if no operation is named. */
  readonly ops: readonly Op[];
  /** For the help. */
  readonly about: string;
}

const ALL: readonly Op[] = ['pool', 'select', 'lists', 'coarse', 'fine', 'vsa'];

const SHAPES: readonly Preset[] = [
  preset('small', '8x16x16', 4, 64, 8, 'quick on a CPU', [...ALL, 'dense']),
  preset('paper-16k', '16x32x32', 12, 64, 32, "the paper's scaling study, 87.5 % sparse"),
  preset('wan-1.3b-61f', '16x28x52', 12, 128, 32, "Wan 1.3B, 61 frames 448x832, the paper's K"),
  preset('wan-1.3b-77f', '20x28x52', 12, 128, 46, 'Wan 1.3B, 77 frames 448x832, 90 % sparse'),
  preset('wan-1.3b-480p', '21x30x52', 12, 128, 63, 'Wan 1.3B, 81 frames 832x480, 90 % sparse'),
  preset('wan-14b-77f', '20x48x80', 40, 128, 120, 'Wan 14B, 77 frames 768x1280, 90 % sparse'),
  preset('wan-14b-720p', '21x45x80', 40, 128, 144, 'Wan 14B, 81 frames 1280x720, 90 % sparse'),
  preset('fine-16k', '16x32x32', 12, 128, 32, 'fine stage, short lists', ['fine']),
  {
    ...preset('fine-40k', '24x32x52', 12, 128, 62, 'fine stage on every kind of lists', ['fine']),
    lists: ['random', 'local', 'tight'],
  },
  preset('fine-16k-d64', '16x32x32', 64, 64, 32, 'fine stage, small heads', ['fine']),
  {
    ...preset('dense-32k', '32x32x32', 12, 128, 'all', 'all tiles: against dense kernels', ['fine', 'dense']),
    lists: ['dense'],
  },
  {
    ...preset('dense-16k-d64', '16x32x32', 12, 64, 'all', 'all tiles, small heads', ['fine', 'dense']),
    lists: ['dense'],
  },
];

function preset(
  name: string,
  grid: string,
  H: number,
  D: number,
  K: number | 'all',
  about: string,
  ops: readonly Op[] = ALL,
): Preset {
  return { name, grid, H, D, K, about, ops, lists: ['local'] };
}

export const PRESETS: ReadonlyMap<string, Preset> = new Map(SHAPES.map((one) => [one.name, one]));

/** What runs if neither a preset nor a shape is named. */
export const DEFAULT_PRESET = { cuda: 'wan-1.3b-480p', cpu: 'small' } as const;

/** A table for the help. */
export function presetsHelp(): string {
  return SHAPES.map(({ name, grid, H, D, K, ops, about }) => {
    const shape = `${grid.padEnd(8)}  H=${String(H).padEnd(2)} D=${String(D).padEnd(3)} K=${String(K).padEnd(3)}`;
    return `  ${name.padEnd(14)}${shape}  ${about} (${ops.join(', ')})`;
  }).join('\n');
}
