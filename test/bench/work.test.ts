/** What calls compute and move, and how long they take at least. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Backend } from '../../lib/attention/backends.js';
import { TileGrid } from '../../lib/attention/grid.js';
import {
  attentionLoad,
  boundOfSteps,
  type Copies,
  fullCopies,
  type Load,
  type PairWork,
} from '../../lib/bench/bounds.js';
import type { BenchCase, Direction, Op } from '../../lib/bench/cases.js';
import { type HostLists, type ListsKind, type ListsSummary, makeLists, summarize } from '../../lib/bench/lists.js';
import { machineOf } from '../../lib/device/machine.js';
import { workOf } from '../../lib/bench/work.js';
import { expandMask } from '../../lib/oracle/index.js';
import type { BenchRow } from '../../lib/bench/row.js';
import { ROOT } from '../binding/node.js';

const MADE = ['random', 'local', 'tight', 'hub'] as const;
type Made = (typeof MADE)[number];

const H100 = machineOf({ type: 'cuda', name: 'NVIDIA H100 80GB HBM3' })!;

function caseOf(op: Op, grid: TileGrid, more: Partial<BenchCase> = {}): BenchCase {
  return {
    ...{ op, backend: 'auto', B: 1, H: 2, Hkv: 2, grid, D: 64, dtype: 'bfloat16', K: 3, sparsity: null },
    ...{
      lists: 'local',
      listsFile: undefined,
      data: 'randn',
      order: 'grid',
      coarse: 'gate',
      fineGate: false,
      seed: 1,
      ...more,
    },
  };
}

const work = (one: BenchCase, direction: Direction, summary: ListsSummary | undefined, backend: Backend = 'cuda') =>
  workOf({ one, backend }, direction, summary);

describe('FLOP', () => {
  const grid = new TileGrid({ tokens: '5x6x9', prefix: 70 });
  const lists = makeLists('local', { B: 1, H: 2, grid, K: 3, seed: 1 });
  const rows = Array.from({ length: lists.offsets.length - 1 }, (_, row) => [
    ...lists.indices.subarray(lists.offsets[row], lists.offsets[row + 1]),
  ]);
  const summary = summarize(lists, grid, 2);
  // Token by token.
  const pairs = expandMask(rows, { batch: 1, heads: 2, grid }).reduce((sum, bit) => sum + bit, 0);

  test('are those of selected pairs of valid tokens, 2.5 times as many backward', () => {
    const one = caseOf('fine', grid);
    expect(work(one, 'forward', summary).flops).toBe(4 * 64 * pairs);
    expect(work(one, 'backward', summary).flops).toBe(2.5 * 4 * 64 * pairs);
    expect(work(one, 'both', summary).flops).toBe(3.5 * 4 * 64 * pairs);
    expect(work(caseOf('vsa', grid), 'forward', summary).flops).toBe(4 * 64 * pairs);
  });

  test('of slots count 64x64 for every pair of tiles', () => {
    const { slotFlops } = work(caseOf('fine', grid), 'forward', summary);
    expect(slotFlops).toBe(4 * 64 * 4096 * lists.indices.length);
  });

  test('of full lists are those of dense attention', () => {
    const full = summarize(undefined, grid, 2);
    const N = grid.totalTileCount;
    const unions = { two: 2 * Math.ceil(N / 2) * N, three: 2 * Math.ceil(N / 3) * N };
    expect(full).toEqual({ pairs: 2 * N ** 2, tokenPairs: 2 * grid.length ** 2, overlap: 1, unions });
    expect(work(caseOf('dense', grid, { lists: 'dense' }), 'forward', full).flops).toBe(4 * 64 * 2 * grid.length ** 2);
    const all = Array.from({ length: 2 * grid.totalTileCount }, () =>
      Array.from({ length: grid.totalTileCount }, (_, j) => j),
    );
    const offsets = Int32Array.from({ length: all.length + 1 }, (_, row) => row * grid.totalTileCount);
    const spelledOut = summarize({ offsets, indices: Int32Array.from(all.flat()) }, grid, 2);
    expect(spelledOut).toEqual(full);
  });

  test('there are none to speak of where only bytes move', () => {
    for (const op of ['pool', 'lists', 'select'] as const) {
      const { flops, bytes } = work(caseOf(op, grid), 'forward', summary);
      expect({ op, flops, moves: bytes > 0 }).toEqual({ op, flops: null, moves: true });
    }
    // bfloat16 tokens in, float32 means out.
    expect(work(caseOf('pool', grid), 'forward', undefined).bytes).toBe(
      2 * 64 * (2 * grid.length + 4 * grid.totalTileCount),
    );
  });
});

describe('bounds', () => {
  const pairs = 624 * 62 * 12;
  const pairWork = (D: number, size: 2 | 4 = 2, copies: Copies = { keys: pairs, queries: pairs }): PairWork => ({
    ...{ pairs, tokenPairs: pairs * 4096, D, size, copies },
  });
  /** TFLOP/s at the bound. */
  const capOf = (load: Load, direction: 'forward' | 'backward', D: number) => {
    const { name, ms } = boundOfSteps(H100, [load], 'warm');
    return { name, tflops: ((direction === 'forward' ? 4 : 10) * D * pairs * 4096) / ms / 1e9 };
  };
  /** As hopper.md and csrc/cuda/sm90/NOTES.md have it, but at the most that the L2 was seen to give, not 7.5 TB/s. */
  const capAt = (tflops: number) => expect.closeTo((tflops * 8.1) / 7.5, -1) as number;

  test('one query tile a workgroup: 480 TFLOP/s of L2 at 7.5 TB/s and D = 128, as hopper.md has it', () => {
    const cap = capOf(attentionLoad('forward', pairWork(128), 1e8), 'forward', 128);
    expect(cap).toEqual({ name: 'L2', tflops: capAt(480) });
  });

  test('full lists are bound by the tensor cores', () => {
    for (const direction of ['forward', 'backward'] as const) {
      const cap = capOf(attentionLoad(direction, pairWork(128, 2, fullCopies(pairs)), 1e8), direction, 128);
      expect(cap).toEqual({ name: 'tensor cores', tflops: expect.closeTo(989.4, 1) as number });
    }
  });

  test('a backward in two passes: five products count, Q, dO, K and V move', () => {
    const cap = capOf(attentionLoad('backward', pairWork(128), 1e8), 'backward', 128);
    expect(cap).toEqual({ name: 'L2', tflops: capAt(600) });
  });

  test('shared memory holds copies and one operand of every product', () => {
    const { l2, shared } = attentionLoad('forward', pairWork(128, 2, { keys: 0.75 * pairs, queries: 0 }), 0);
    const KB = 1024 * pairs;
    // Of pairs of query tiles with Q in registers, on local lists: 56 KB in csrc/cuda/sm90/NOTES.md.
    expect([l2! / KB, shared! / KB]).toEqual([24, 56]);
    const backward = attentionLoad('backward', pairWork(128, 2, { keys: 0.75 * pairs, queries: pairs }), 0);
    expect([backward.l2! / KB, backward.shared! / KB]).toEqual([32 + 24, 64 + 32 + 48 + 24]);
  });

  test('float32 runs on multiply-adds', () => {
    const cap = capOf(attentionLoad('forward', pairWork(128, 4), 1e8), 'forward', 128);
    expect(cap).toEqual({ name: 'FFMA', tflops: expect.closeTo(66.9, 1) as number });
  });

  test('memory: HBM where the cache is cold or too small, L2 where it holds everything', () => {
    expect(boundOfSteps(H100, [{ bytes: 3.35e9 }], 'warm')).toEqual({ name: 'HBM', ms: 1 });
    expect(boundOfSteps(H100, [{ bytes: 8.1e6 }], 'warm')).toEqual({ name: 'L2', ms: 1e-3 });
    expect(boundOfSteps(H100, [{ bytes: 8.1e6 }], 'cold').name).toBe('HBM');
  });

  test('steps add up, and the unit that takes most of it gives the name', () => {
    const steps = [{ bytes: 3.35e9 }, { ffma: 66.9e9 * 5, bytes: 0 }];
    expect(boundOfSteps(H100, steps, 'warm')).toEqual({ name: 'FFMA', ms: expect.closeTo(6, 9) as number });
    const more = [...steps, { tensor: 989.4e9 * 3, bytes: 0 }, { tensor: 989.4e9 * 3, bytes: 0 }];
    expect(boundOfSteps(H100, more, 'warm')).toEqual({ name: 'tensor cores', ms: expect.closeTo(12, 9) as number });
  });

  test('every step of the operator has a part in its bound', () => {
    const grid = new TileGrid({ tokens: '8x16x16' });
    const summary = summarize(makeLists('local', { B: 1, H: 2, grid, K: 3, seed: 1 }), grid, 2);
    const msOf = (op: Op, coarse: 'skip' | 'gate') =>
      boundOfSteps(H100, work(caseOf(op, grid, { coarse }), 'forward', summary).steps, 'cold').ms;
    expect(msOf('vsa', 'skip')).toBeGreaterThan(msOf('fine', 'skip'));
    expect(msOf('vsa', 'gate')).toBeGreaterThan(msOf('vsa', 'skip'));
  });
});

describe('what kernels copy', () => {
  const grid = new TileGrid({ tokens: '24x32x52' });
  /** Of one head's lists, which say as much about others: made once each. */
  const made = new Map<string, ListsSummary>();
  const summaryOf = (kind: Made, heads: number, of = grid, K = 62): ListsSummary => {
    const key = `${of.toString()} ${kind} ${K}`;
    const summary = made.get(key) ?? summarize(makeLists(kind, { B: 1, H: 1, grid: of, K, seed: 1 }), of, 1);
    made.set(key, summary);
    const { pairs, tokenPairs, overlap, unions } = summary;
    const all = { two: heads * unions.two, three: heads * unions.three };
    return { pairs: heads * pairs, tokenPairs: heads * tokenPairs, overlap, unions: all };
  };
  const one = caseOf('fine', grid, { H: 12, Hkv: 12, D: 128, K: 62 });
  const l2Of = (direction: Direction, summary: ListsSummary, backend: Backend, lists: ListsKind = 'local') =>
    work({ ...one, lists }, direction, summary, backend).steps[0]!.l2! / (summary.pairs * 2 * 64 * 128 * 2);

  test('unions of two and three neighbours, head by head, the last group being smaller', () => {
    const small = new TileGrid({ tokens: '4x4x20' }); // 5 tiles
    const rows = [[0, 1], [1, 2], [0, 4], [3], [], [0], [0], [0], [0], [0, 1, 2]]; // prettier-ignore
    const offsets = [0];
    for (const row of rows) offsets.push(offsets.at(-1)! + row.length);
    const lists: HostLists = { offsets: Int32Array.from(offsets), indices: Int32Array.from(rows.flat()) };
    // 0 1 2, 0 3 4, none; 0, 0, 0 1 2. Then 0 1 2 4, 3; 0, 0 1 2.
    expect(summarize(lists, small, 2).unions).toEqual({ two: 3 + 3 + 0 + 1 + 1 + 3, three: 4 + 1 + 1 + 3 });
  });

  test.each([
    ['random', 0.95, 0.9],
    ['local', 0.75, 0.61],
    ['tight', 0.6, 0.44],
  ] as const)('%s lists: tiles copied for each one wanted, as measured for hopper.md', (kind, two, three) => {
    const summary = summaryOf(kind, 12);
    expect(summary.unions.two / summary.pairs).toBeCloseTo(two, 1);
    expect(summary.unions.three / summary.pairs).toBeCloseTo(three, 1);
    expect(l2Of('forward', summary, 'cuda')).toBe(1);
    expect(l2Of('forward', summary, 'sm90')).toBeCloseTo(three, 1);
    expect(l2Of('backward', summary, 'cuda')).toBe(2);
    expect(l2Of('backward', summary, 'sm90')).toBeCloseTo(1 + three, 1);
  });

  test('full lists are shared by four, whoever serves them; lists that happen to hold all tiles by three', () => {
    const full = summarize(undefined, grid, 12);
    for (const backend of ['cuda', 'sm90'] as const) expect(l2Of('forward', full, backend, 'dense')).toBe(0.25);
    expect(l2Of('forward', full, 'sm90', 'file')).toBeCloseTo(1 / 3);
    expect(l2Of('forward', full, 'cuda', 'file')).toBe(1);
  });

  test('nothing at all', () => {
    const none = summarize({ offsets: new Int32Array(12 * 624 + 1), indices: new Int32Array(0) }, grid, 12);
    const { steps } = work(one, 'both', none, 'sm90');
    expect(boundOfSteps(H100, steps, 'cold').ms).toBeGreaterThan(0);
  });

  test('no row of record beats its bound', () => {
    const folder = join(ROOT, 'bench', 'results');
    const files = readdirSync(folder).filter((name) => /^h100.*\.jsonl$/.test(name));
    const rows = files.flatMap((name) => readFileSync(join(folder, name), 'utf8').trimEnd().split('\n'));
    let count = 0;
    for (const row of rows.map((line) => JSON.parse(line) as BenchRow)) {
      const kind = MADE.find((one) => one === row.lists);
      if (row.op !== 'fine' || kind === undefined || row.tiles > 624) continue;
      const { B, H, Hkv, D, K } = row;
      const of = new TileGrid({ tokens: row.grid });
      const summary = summaryOf(kind, B * H, of, K!);
      expect(Math.abs(summary.overlap! - row.overlap!)).toBeLessThan(0.02);
      const like = caseOf('fine', of, { B, H, Hkv, D, K, lists: kind });
      const { steps } = work(like, row.direction, summary, row.backend as Backend);
      const { name, ms } = boundOfSteps(H100, steps, row.cache);
      const share = ms / Math.min(...row.samples);
      const what = [row.commit, row.backend, row.direction, row.grid, kind, name].join(' ');
      expect({ what, share, beaten: share >= 1 }).toEqual({ what, share, beaten: false });
      count++;
    }
    expect(count).toBeGreaterThan(50);
  });
});

describe('coarse attention', () => {
  const grid = new TileGrid({ tokens: '21x30x52' }); // 624 tiles
  const [N, H, D] = [624, 12, 128];
  const product = 2 * H * N * N * D;
  const more = { H, Hkv: H, D, K: 63 };
  const unitsOf = (steps: readonly Load[]) =>
    steps.map(({ ffma = 0, tensor = 0 }) => [ffma / product, tensor / product]);
  const coarse = (direction: Direction) => work(caseOf('coarse', grid, more), direction, undefined);

  test('alone: scores on multiply-adds, other products six times on tensor cores', () => {
    expect(unitsOf(coarse('forward').steps)).toEqual([[1, 0], [0, 6]]); // prettier-ignore
    expect(unitsOf(coarse('backward').steps)).toEqual([[1, 0], [0, 12], [0, 12]]); // prettier-ignore
    expect(coarse('forward').flops).toBe(2 * product);
    expect(coarse('backward').flops).toBe(5 * product);
    expect(boundOfSteps(H100, coarse('forward').steps, 'warm').name).toBe('FFMA');
    expect(boundOfSteps(H100, coarse('backward').steps, 'warm').name).toBe('tensor cores');
  });

  test('every input is read once, every output written once', () => {
    const [q, lse] = [H * N * D * 4, H * N * 4];
    expect(coarse('forward').bytes).toBe(4 * q + lse); // q, k, v, output
    expect(coarse('backward').bytes).toBe(8 * q + lse); // those, its gradient, three gradients
  });

  test('of the operator: the scores are those of the selection, as long as it keeps them', () => {
    const stepsOf = (heads: number, direction: Direction) => {
      const summary = summarize(undefined, grid, heads);
      const one = caseOf('vsa', grid, { ...more, H: heads, Hkv: heads, lists: 'selected' });
      return work(one, direction, summary).steps.map(({ ffma = 0, tensor = 0 }) =>
        [ffma, tensor].map((flop) => flop / (2 * heads * N * N * D)),
      );
    };
    // Pooling, selection, P V, fine attention.
    expect(stepsOf(12, 'forward').slice(0, 3)).toEqual([[0, 0], [1, 0], [0, 6]]); // prettier-ignore
    expect(stepsOf(12, 'forward')).toHaveLength(4);
    // Combination, dP and dQ, dV and dK, transpose, fine attention.
    expect(stepsOf(12, 'backward').slice(0, 4)).toEqual([[0, 0], [0, 12], [0, 12], [0, 0]]); // prettier-ignore
    // 128 MiB are kept for the backward: 86 heads of 624 x 624 scores; 512 MiB for the forward: 344.
    expect(stepsOf(87, 'forward')).toHaveLength(4);
    expect(stepsOf(86, 'backward')).toHaveLength(5);
    expect(stepsOf(87, 'backward').slice(0, 3)).toEqual([[0, 0], [1, 0], [0, 12]]); // prettier-ignore
    expect(stepsOf(345, 'forward').slice(0, 4)).toEqual([[0, 0], [1, 0], [1, 0], [0, 6]]); // prettier-ignore
  });
});

describe('machines', () => {
  test.each([
    ['NVIDIA H100 80GB HBM3', 989.4],
    ['NVIDIA H100 PCIe', 756],
    ['NVIDIA H200', 989.4],
    ['NVIDIA A100-SXM4-80GB', 312],
    ['NVIDIA A100-SXM4-40GB', 312],
    ['NVIDIA GeForce RTX 4090', 165.2],
    ['NVIDIA L40S', 362],
  ])('%s', (name, peak) => {
    expect(machineOf({ type: 'cuda', name })?.bf16).toBe(peak);
  });

  test('no peak is better than a wrong one', () => {
    for (const name of ['NVIDIA H100 NVL', 'NVIDIA L4', 'NVIDIA GeForce RTX 4090 D', 'NVIDIA B200']) {
      expect(machineOf({ type: 'cuda', name })).toBeUndefined();
    }
    expect(machineOf({ type: 'cpu', name: 'NVIDIA H200' })).toBeUndefined();
  });
});
