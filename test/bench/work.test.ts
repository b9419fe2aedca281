import { TileGrid } from '../../lib/attention/grid.js';
import { attentionLoad, boundOfSteps, type Load } from '../../lib/bench/bounds.js';
import type { BenchCase, Op } from '../../lib/bench/cases.js';
import { makeLists, summarize } from '../../lib/bench/lists.js';
import { machineOf } from '../../lib/device/machine.js';
import { workOf } from '../../lib/bench/work.js';
import { expandMask } from '../../lib/oracle/index.js';

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
    expect(workOf(one, 'forward', summary).flops).toBe(4 * 64 * pairs);
    expect(workOf(one, 'backward', summary).flops).toBe(2.5 * 4 * 64 * pairs);
    expect(workOf(one, 'both', summary).flops).toBe(3.5 * 4 * 64 * pairs);
    expect(workOf(caseOf('vsa', grid), 'forward', summary).flops).toBe(4 * 64 * pairs);
  });

  test('of slots count 64x64 for every pair of tiles', () => {
    const { slotFlops } = workOf(caseOf('fine', grid), 'forward', summary);
    expect(slotFlops).toBe(4 * 64 * 4096 * lists.indices.length);
  });

  test('of full lists are those of dense attention', () => {
    const full = summarize(undefined, grid, 2);
    expect(full).toEqual({ pairs: 2 * grid.totalTileCount ** 2, tokenPairs: 2 * grid.length ** 2, overlap: 1 });
    expect(workOf(caseOf('dense', grid, { lists: 'dense' }), 'forward', full).flops).toBe(
      4 * 64 * 2 * grid.length ** 2,
    );
    const all = Array.from({ length: 2 * grid.totalTileCount }, () =>
      Array.from({ length: grid.totalTileCount }, (_, j) => j),
    );
    const offsets = Int32Array.from({ length: all.length + 1 }, (_, row) => row * grid.totalTileCount);
    const spelledOut = summarize({ offsets, indices: Int32Array.from(all.flat()) }, grid, 2);
    expect(spelledOut).toEqual(full);
  });

  test('there are none to speak of where only bytes move', () => {
    for (const op of ['pool', 'lists', 'select'] as const) {
      const { flops, bytes } = workOf(caseOf(op, grid), 'forward', summary);
      expect({ op, flops, moves: bytes > 0 }).toEqual({ op, flops: null, moves: true });
    }
    // bfloat16 tokens in, float32 means out.
    expect(workOf(caseOf('pool', grid), 'forward', undefined).bytes).toBe(
      2 * 64 * (2 * grid.length + 4 * grid.totalTileCount),
    );
  });
});

describe('bounds', () => {
  const pairs = 624 * 62 * 12;
  const work = (D: number, size: 2 | 4 = 2, sharing: 1 | 2 = 1) =>
    ({ pairs, tokenPairs: pairs * 4096, D, size, sharing }) as const;
  /** TFLOP/s at the bound. */
  const capOf = (load: Load, direction: 'forward' | 'backward', D: number) => {
    const { name, ms } = boundOfSteps(H100, [load], 'warm');
    return { name, tflops: ((direction === 'forward' ? 4 : 10) * D * pairs * 4096) / ms / 1e9 };
  };

  test('one query tile a workgroup: about 490 TFLOP/s of L2 at D = 128, as hopper.md has it', () => {
    const cap = capOf(attentionLoad('forward', work(128), 1e8), 'forward', 128);
    expect(cap.name).toBe('L2');
    expect(cap.tflops).toBeCloseTo(480, -1);
  });

  test('two tiles that share loads are bound by the tensor cores or nearly so', () => {
    expect(capOf(attentionLoad('forward', work(128, 2, 2), 1e8), 'forward', 128).tflops).toBeGreaterThan(950);
  });

  test('a backward in two passes: five products count, Q, dO, K and V move', () => {
    const cap = capOf(attentionLoad('backward', work(128), 1e8), 'backward', 128);
    expect(cap).toEqual({ name: 'L2', tflops: expect.closeTo(600, -1) as number });
  });

  test('float32 runs on multiply-adds', () => {
    const cap = capOf(attentionLoad('forward', work(128, 4), 1e8), 'forward', 128);
    expect(cap).toEqual({ name: 'FFMA', tflops: expect.closeTo(66.9, 1) as number });
  });

  test('memory: HBM where the cache is cold or too small, L2 where it holds everything', () => {
    expect(boundOfSteps(H100, [{ bytes: 3.35e9 }], 'warm')).toEqual({ name: 'HBM', ms: 1 });
    expect(boundOfSteps(H100, [{ bytes: 7.5e6 }], 'warm')).toEqual({ name: 'L2', ms: 1e-3 });
    expect(boundOfSteps(H100, [{ bytes: 7.5e6 }], 'cold').name).toBe('HBM');
  });

  test('steps add up, and the longest gives the name', () => {
    const steps = [{ bytes: 3.35e9 }, { ffma: 66.9e9 * 5, bytes: 0 }];
    expect(boundOfSteps(H100, steps, 'warm')).toEqual({ name: 'FFMA', ms: expect.closeTo(6, 9) as number });
  });

  test('every step of the operator has a part in its bound', () => {
    const grid = new TileGrid({ tokens: '8x16x16' });
    const summary = summarize(makeLists('local', { B: 1, H: 2, grid, K: 3, seed: 1 }), grid, 2);
    const msOf = (op: Op, coarse: 'skip' | 'gate') =>
      boundOfSteps(H100, workOf(caseOf(op, grid, { coarse }), 'forward', summary).steps, 'cold').ms;
    expect(msOf('vsa', 'skip')).toBeGreaterThan(msOf('fine', 'skip'));
    expect(msOf('vsa', 'gate')).toBeGreaterThan(msOf('vsa', 'skip'));
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
