/** How much each operation computes and moves. */

import type { Backend } from '../attention/backends.js';
import { KEPT_SCORES_BYTES, SAVED_SCORES_BYTES } from '../attention/coarse.js';
import { dtypeSize } from '../tensor/dtype.js';
import { attentionFlops, attentionLoad, type Copies, fullCopies, type Load, type PairWork } from './bounds.js';
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

/** A case, and what serves it: kernels differ in what they copy. */
export interface Served {
  readonly one: BenchCase;
  readonly backend: Backend;
}

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
export function workOf(served: Served, direction: Direction, lists: ListsSummary | undefined): Work {
  if (direction !== 'both') return passWork(served, direction, lists);
  const [forward, backward] = [passWork(served, 'forward', lists), passWork(served, 'backward', lists)];
  const sum = (a: number | null, b: number | null) => (a === null || b === null ? null : a + b);
  return {
    flops: sum(forward.flops, backward.flops),
    slotFlops: sum(forward.slotFlops, backward.slotFlops),
    bytes: forward.bytes + backward.bytes,
    steps: [...forward.steps, ...backward.steps],
  };
}

function passWork(served: Served, pass: Pass, lists: ListsSummary | undefined): Work {
  const { one } = served;
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
      const flops = attentionFlops(pass, B * H * N * N, D);
      const steps = coarseSteps(one, pass, sizes, false);
      return { flops, slotFlops: flops, bytes: bytesOf(steps), steps };
    }
    case 'fine':
    case 'dense':
    case 'vsa': {
      const steps = op === 'vsa' ? vsaSteps(served, pass, sizes, lists!) : [fineStep(served, pass, sizes, lists!)];
      return {
        // Of the whole operator the useful work is that of its fine stage: the rest is what it costs.
        flops: attentionFlops(pass, lists!.tokenPairs, D),
        slotFlops: attentionFlops(pass, lists!.pairs * 4096, D),
        bytes: bytesOf(steps),
        steps,
      };
    }
  }
}

function selectBytes({ qc, kc, lists }: Sizes): number {
  return qc + kc + lists;
}

function bytesOf(steps: readonly Load[]): number {
  return steps.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** Tensor cores take float32 operands in three bf16 parts, and six products of parts for a product. */
const PRODUCTS_OF_PARTS = 6;

/**
 * Attention to tiles as GPUs do it: scores in plain float32, whose last bits decide where inputs are large; all other
 * products on tensor cores. The scores lie in memory between the steps; that is no compulsory traffic.
 *
 * @param kept The scores are there, from the selection: then neither are they made nor q and k read for them.
 */
function coarseSteps({ B, H, D, grid }: BenchCase, pass: Pass, { qc, kc }: Sizes, kept: boolean): Load[] {
  const N = grid.totalTileCount;
  const product = 2 * B * H * N * N * D;
  const lse = B * H * N * 4;
  const tensor = (products: number) => PRODUCTS_OF_PARTS * products * product;
  const scores = kept ? [] : [{ ffma: product, bytes: qc + kc }];
  // P V; the output and lse.
  if (pass === 'forward') return [...scores, { tensor: tensor(1), bytes: kc + qc + lse }];
  // dP, and dQ by K: V, O, dO, lse, and K if the scores did not take it. Then dV, and dK by Q, the same.
  const [k, q] = kept ? [kc, qc] : [0, 0];
  return [...scores, { tensor: tensor(2), bytes: k + kc + 3 * qc + lse }, { tensor: tensor(2), bytes: q + 2 * kc }];
}

/**
 * What kernels of fine attention copy. The portable ones have one query tile, or key tile, a workgroup. Hopper's have
 * two or three neighbouring query tiles, whatever suits the GPU: the smaller count is the bound. Their dK and dV have
 * one key tile.
 */
function copiesOf({ one, backend }: Served, { pairs, unions }: ListsSummary): Copies {
  if (one.lists === 'dense') return fullCopies(pairs);
  return { keys: backend === 'sm90' ? Math.min(unions.two, unions.three) : pairs, queries: pairs };
}

/** @param more Bytes of what is done beside attention, less those that are not read then. */
function fineStep(served: Served, pass: Pass, sizes: Sizes, summary: ListsSummary, more = 0): Load {
  const { one } = served;
  const { q, kv, lse, lists } = sizes;
  const bytes = (pass === 'forward' ? q + 2 * kv + q + lse : 2 * (q + 2 * kv) + 2 * q + lse) + lists + more;
  const work: PairWork = {
    ...{ pairs: summary.pairs, tokenPairs: summary.tokenPairs, D: one.D },
    size: one.dtype === 'float32' ? 4 : 2,
    copies: copiesOf(served, summary),
  };
  return attentionLoad(pass, work, bytes);
}

/** Whether coarse attention finds the scores that its selection has made, and its backward those again. */
function keepsScores({ B, H, grid: { totalTileCount: N } }: BenchCase, pass: Pass): boolean {
  const bytes = B * H * N * 16 * Math.ceil(N / 4);
  return bytes <= (pass === 'forward' ? KEPT_SCORES_BYTES : SAVED_SCORES_BYTES);
}

/** Pool, select, attend to tiles and to tokens, combined; and back. */
function vsaSteps(served: Served, pass: Pass, sizes: Sizes, summary: ListsSummary): Load[] {
  const { one } = served;
  const { B, H, D, grid, coarse, fineGate } = one;
  const N = grid.totalTileCount;
  const { q, kv, qc, kc, lse } = sizes;
  const withCoarse = coarse !== 'skip';
  const gates = (coarse === 'gate' ? 1 : 0) + (fineGate === true ? 1 : 0);
  const combined = withCoarse || fineGate === true;
  const ofCoarse = coarseSteps(one, pass, sizes, keepsScores(one, pass));
  const pooled = withCoarse ? qc : 0;
  if (pass === 'forward') {
    const inputs = q + kv + qc + kc + (withCoarse ? kv + kc : 0);
    const select = { bytes: selectBytes(sizes), ffma: 2 * B * H * N * N * D };
    // The fine stage combines its output: it reads the gates and writes both outputs.
    const fine = fineStep(served, pass, sizes, summary, combined ? q * (1 + gates) + pooled : 0);
    return [{ bytes: inputs }, select, ...(withCoarse ? ofCoarse : []), fine];
  }
  // The gates' gradients, dO times the fine gate, the sums of dO over tiles, and those of O dO over rows, of which O is
  // not read again.
  const combination = { bytes: q * (2 + 2 * gates + (fineGate === true ? 1 : 0)) + 2 * pooled + lse };
  const fine = fineStep(served, pass, sizes, summary, combined ? lse - q : 0);
  const transpose = { bytes: 2 * sizes.lists };
  return [...(combined ? [combination] : []), ...(withCoarse ? ofCoarse : []), transpose, fine];
}
