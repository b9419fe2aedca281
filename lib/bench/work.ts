/** How much each operation computes and moves. */

import { dtypeSize } from '../tensor/dtype.js';
import { attentionFlops, attentionLoad, type Load, type PairWork } from './bounds.js';
import type { BenchCase, Direction } from './cases.js';
import type { ListsSummary } from './lists.js';

/** One call. */
export interface Work {
  /** Useful FLOP of attention, of valid tokens; null where there is none to speak of. */
  readonly flops: number | null;
  /** The same with 64x64 for every pair of tiles, padding slots included. */
  readonly slotFlops: number | null;
  /** Compulsory bytes: every input once, every output once. */
  readonly bytes: number;
  /** For the roofline, step by step. */
  readonly steps: readonly Load[];
}

type Pass = 'forward' | 'backward';

/** Bytes of the tensors of a case. */
interface Sizes {
  readonly q: number;
  /** k, and v. */
  readonly kv: number;
  readonly lse: number;
  /** Pooled q; pooled k. */
  readonly qc: number;
  readonly kc: number;
  readonly lists: number;
}

function sizesOf(one: BenchCase, entries: number): Sizes {
  const { B, H, Hkv, D, grid, dtype } = one;
  const N = grid.totalTileCount;
  const row = B * grid.length * D * dtypeSize(dtype);
  return {
    ...{ q: row * H, kv: row * Hkv, lse: B * H * grid.length * 4 },
    ...{ qc: B * N * H * D * 4, kc: B * N * Hkv * D * 4 },
    lists: one.lists === 'dense' ? 0 : 4 * (entries + B * H * N),
  };
}

/** @param lists Of the operation; absent for those that have none. */
export function workOf(one: BenchCase, direction: Direction, lists: ListsSummary | undefined): Work {
  if (direction !== 'both') return passWork(one, direction, lists);
  const [forward, backward] = [passWork(one, 'forward', lists), passWork(one, 'backward', lists)];
  const sum = (a: number | null, b: number | null) => (a === null || b === null ? null : a + b);
  return {
    flops: sum(forward.flops, backward.flops),
    slotFlops: sum(forward.slotFlops, backward.slotFlops),
    bytes: forward.bytes + backward.bytes,
    steps: [...forward.steps, ...backward.steps],
  };
}

function passWork(one: BenchCase, pass: Pass, lists: ListsSummary | undefined): Work {
  const { op, B, H, D, grid } = one;
  const N = grid.totalTileCount;
  const sizes = sizesOf(one, lists?.pairs ?? 0);
  const plain = (bytes: number, load: Partial<Load> = {}): Work => ({
    ...{ flops: null, slotFlops: null, bytes },
    steps: [{ ...load, bytes }],
  });
  switch (op) {
    case 'pool':
      return plain(sizes.q + sizes.qc);
    case 'select':
      return plain(selectBytes(sizes), { ffma: 2 * B * H * N * N * D });
    case 'lists':
      return plain(sizes.lists + (pass === 'backward' ? sizes.lists : (B * H * N * N) / 8));
    case 'coarse': {
      const tokenPairs = B * H * N * N;
      const flops = attentionFlops(pass, tokenPairs, D);
      const work: PairWork = { pairs: tokenPairs / 4096, tokenPairs, D, size: 4, sharing: 2 };
      const bytes = coarseBytes(pass, sizes, B * H * N * 4);
      return { flops, slotFlops: flops, bytes, steps: [attentionLoad(pass, work, bytes)] };
    }
    case 'fine':
    case 'dense':
    case 'vsa': {
      const steps = op === 'vsa' ? vsaSteps(one, pass, sizes, lists!) : [fineStep(one, pass, sizes, lists!)];
      return {
        // Of the whole operator the useful work is that of its fine stage: the rest is what it costs.
        flops: attentionFlops(pass, lists!.tokenPairs, D),
        slotFlops: attentionFlops(pass, lists!.pairs * 4096, D),
        bytes: steps.reduce((sum, step) => sum + step.bytes, 0),
        steps,
      };
    }
  }
}

function selectBytes({ qc, kc, lists }: Sizes): number {
  return qc + kc + lists;
}

function coarseBytes(pass: Pass, { qc, kc }: Sizes, lse: number): number {
  return pass === 'forward' ? qc + 2 * kc + qc + lse : 2 * (qc + 2 * kc) + 2 * qc + lse;
}

/** @param more Bytes of what is done beside attention, less those that are not read then. */
function fineStep(one: BenchCase, pass: Pass, sizes: Sizes, summary: ListsSummary, more = 0): Load {
  const { q, kv, lse, lists } = sizes;
  const bytes = (pass === 'forward' ? q + 2 * kv + q + lse : 2 * (q + 2 * kv) + 2 * q + lse) + lists + more;
  const work: PairWork = {
    ...{ pairs: summary.pairs, tokenPairs: summary.tokenPairs, D: one.D },
    size: one.dtype === 'float32' ? 4 : 2,
    sharing: one.lists === 'dense' ? 2 : 1,
  };
  return attentionLoad(pass, work, bytes);
}

/** Pool, select, attend to tiles and to tokens, combined; and back. */
function vsaSteps(one: BenchCase, pass: Pass, sizes: Sizes, summary: ListsSummary): Load[] {
  const { B, H, D, grid, coarse, fineGate } = one;
  const N = grid.totalTileCount;
  const { q, kv, qc, kc, lse } = sizes;
  const withCoarse = coarse !== 'skip';
  const gates = (coarse === 'gate' ? 1 : 0) + (fineGate === true ? 1 : 0);
  const combined = withCoarse || fineGate === true;
  const ofCoarse = passWork({ ...one, op: 'coarse' }, pass, undefined).steps;
  const pooled = withCoarse ? qc : 0;
  if (pass === 'forward') {
    const inputs = q + kv + qc + kc + (withCoarse ? kv + kc : 0);
    const select = { bytes: selectBytes(sizes), ffma: 2 * B * H * N * N * D };
    // The fine stage combines its output: it reads the gates and writes both outputs.
    const fine = fineStep(one, pass, sizes, summary, combined ? q * (1 + gates) + pooled : 0);
    return [{ bytes: inputs }, select, ...(withCoarse ? ofCoarse : []), fine];
  }
  // The gates' gradients, dO times the fine gate, the sums of dO over tiles, and those of O dO over rows, of which O is
  // not read again.
  const combination = { bytes: q * (2 + 2 * gates + (fineGate === true ? 1 : 0)) + 2 * pooled + lse };
  const fine = fineStep(one, pass, sizes, summary, combined ? lse - q : 0);
  const transpose = { bytes: 2 * sizes.lists };
  return [...(combined ? [combination] : []), ...(withCoarse ? ofCoarse : []), transpose, fine];
}
