/**
 * The roofline: which unit of the GPU an operation keeps busy longest, and for how long at least. Every unit works at
 * its peak and all of them at once; the slowest one is the bound.
 *
 * Attention is cut into pairs of 64 queries and 64 keys, and one workgroup has one query tile: it loads every K and V
 * tile of its list for itself. (Dense lists need no such thing: there, two query tiles share their loads, as dense
 * kernels do.) A kernel that shares loads between the query tiles of sparse lists can get past this bound.
 * The exponentials are no term: a pair takes them 256 clocks of an SM, no more than its products take tensor cores.
 */

import type { Machine } from '../device/machine.js';

export const BOUNDS = ['tensor cores', 'FFMA', 'L2', 'shared memory', 'HBM'] as const;
export type BoundName = (typeof BOUNDS)[number];

/** What a step of an operation does to each unit. */
export interface Load {
  /** FLOP on tensor cores, or as float32 multiply-adds. */
  readonly tensor?: number;
  readonly ffma?: number;
  /** Bytes from the L2 to shared memory, beyond the compulsory ones. */
  readonly l2?: number;
  /** Bytes written to and read from shared memory. */
  readonly shared?: number;
  /** Compulsory bytes: every input read once, every output written once. */
  readonly bytes: number;
}

export interface Bound {
  readonly name: BoundName;
  readonly ms: number;
}

/** @param resident What it reads and writes fits into the L2 and is there. */
function boundOf(machine: Machine, load: Load, resident: boolean): Bound {
  const terms: Record<BoundName, number> = {
    'tensor cores': (load.tensor ?? 0) / (machine.bf16 * 1e9),
    FFMA: (load.ffma ?? 0) / (machine.fp32 * 1e9),
    L2: machine.l2 === null ? 0 : Math.max(load.l2 ?? 0, load.bytes) / (machine.l2 * 1e6),
    'shared memory': (load.shared ?? 0) / (machine.shared * 1e6),
    HBM: resident ? 0 : load.bytes / (machine.hbm * 1e6),
  };
  const name = BOUNDS.reduce((slowest, next) => (terms[next] > terms[slowest] ? next : slowest));
  return { name, ms: terms[name] };
}

/** Steps run one after the other: their times add up, and the longest names the bound. */
export function boundOfSteps(machine: Machine, steps: readonly Load[], cache: 'warm' | 'cold'): Bound {
  const bytes = steps.reduce((sum, step) => sum + step.bytes, 0);
  const resident = cache === 'warm' && bytes <= machine.cache;
  const bounds = steps.map((step) => boundOf(machine, step, resident));
  const longest = bounds.reduce((slowest, next) => (next.ms > slowest.ms ? next : slowest));
  return { name: longest.name, ms: bounds.reduce((sum, { ms }) => sum + ms, 0) };
}

/** Attention over pairs of tiles, without its compulsory bytes. */
export interface PairWork {
  /** Pairs of 64x64 slots. */
  readonly pairs: number;
  /** Pairs of valid tokens. */
  readonly tokenPairs: number;
  readonly D: number;
  /** Bytes of an element. */
  readonly size: 2 | 4;
  /** Query tiles that share their loads of K and V. */
  readonly sharing: 1 | 2;
}

const SLOTS = 64;
/** Products of a forward (S, O) and of a backward (S, dP, dV, dK, dQ). */
const PRODUCTS = { forward: 2, backward: 5 } as const;
/**
 * Tiles of 64 x D, a pair: those that come from the L2, and passes over shared memory, that is writing those and
 * reading operands. Forward: K and V. Backward in two deterministic passes: Q and dO for dK and dV (read for S, dP, dV
 * and dK), then K and V for dQ (K, V, and K again).
 */
const TILES = { forward: { loaded: 2, passes: 2 + 2 }, backward: { loaded: 4, passes: 4 + 7 } } as const;

/** FLOP as vsa.md counts them: 4 D a pair of tokens forward, 2.5 times that backward. */
export function attentionFlops(direction: 'forward' | 'backward', tokenPairs: number, D: number): number {
  return 2 * PRODUCTS[direction] * D * tokenPairs;
}

/** FLOP are those of valid tokens; tiles move whole. */
export function attentionLoad(direction: 'forward' | 'backward', work: PairWork, bytes: number): Load {
  const { pairs, tokenPairs, D, size, sharing } = work;
  const tile = SLOTS * D * size;
  const { loaded, passes } = TILES[direction];
  const flops = attentionFlops(direction, tokenPairs, D);
  const moved = { l2: (pairs * loaded * tile) / sharing, shared: pairs * (passes - loaded + loaded / sharing) * tile };
  // In float32 the products run on multiply-adds, whose operands come from registers: blocked as they need.
  return size === 4 ? { ffma: flops, l2: moved.l2, bytes } : { tensor: flops, ...moved, bytes };
}
