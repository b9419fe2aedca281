/**
 * The roofline: which unit of the GPU an operation keeps busy longest, and for how long at least. Every unit works at
 * its peak and all of them at once; the slowest one is the bound. Where it is not known how much a kernel does, the
 * least that it could do counts: a bound that is too low is still one, a bound that is beaten is none.
 *
 * Attention is cut into pairs of 64 queries and 64 keys. How often their tiles are copied from the L2 is what kernels
 * differ in (see Copies): that of the kernels that serve the row is counted, not the least that any could do.
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

/** Steps run one after the other: their times add up, and the unit that is the bound of most of it gives the name. */
export function boundOfSteps(machine: Machine, steps: readonly Load[], cache: 'warm' | 'cold'): Bound {
  const bytes = steps.reduce((sum, step) => sum + step.bytes, 0);
  const resident = cache === 'warm' && bytes <= machine.cache;
  const bounds = steps.map((step) => boundOf(machine, step, resident));
  const msOf = (unit: BoundName) => bounds.reduce((sum, { name, ms }) => sum + (name === unit ? ms : 0), 0);
  const name = BOUNDS.reduce((slowest, next) => (msOf(next) > msOf(slowest) ? next : slowest));
  return { name, ms: bounds.reduce((sum, { ms }) => sum + ms, 0) };
}

/**
 * Tiles of 64 x D rows that workgroups copy from the L2 to shared memory. A workgroup with one query tile copies every
 * key tile of its list: as many as there are pairs. One with several neighbours copies what is in any of their lists
 * once for all of them.
 */
export interface Copies {
  /** Key tiles for query tiles: K and V, in the forward and for dQ. */
  readonly keys: number;
  /** Query tiles for key tiles: Q and dO, for dK and dV. */
  readonly queries: number;
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
  readonly copies: Copies;
}

const SLOTS = 64;
/** Products of a forward (S, O) and of a backward (S, dP, dV, dK, dQ). */
const PRODUCTS = { forward: 2, backward: 5 } as const;
/**
 * Tiles of 64 x D that products read from shared memory, a pair: one operand of each product, the other one being in
 * registers. A backward is two deterministic passes with seven products: S, dP, dV and dK, then S, dP and dQ.
 */
const READS = { forward: 2, backward: 4 + 3 } as const;
/** Query tiles, or key tiles, that share their copies where lists are full; no kernel is known to share more. */
const SHARING_OF_FULL_LISTS = 4;

/** Of full lists, by whatever kernels. */
export function fullCopies(pairs: number): Copies {
  return { keys: pairs / SHARING_OF_FULL_LISTS, queries: pairs / SHARING_OF_FULL_LISTS };
}

/** FLOP as vsa.md counts them: 4 D a pair of tokens forward, 2.5 times that backward. */
export function attentionFlops(direction: 'forward' | 'backward', tokenPairs: number, D: number): number {
  return 2 * PRODUCTS[direction] * D * tokenPairs;
}

/** FLOP are those of valid tokens; tiles move whole. */
export function attentionLoad(direction: 'forward' | 'backward', work: PairWork, bytes: number): Load {
  const { pairs, tokenPairs, D, size, copies } = work;
  const tile = SLOTS * D * size;
  const flops = attentionFlops(direction, tokenPairs, D);
  const l2 = 2 * tile * (copies.keys + (direction === 'backward' ? copies.queries : 0));
  // In float32 the products run on multiply-adds, whose operands come from registers: blocked as they need.
  if (size === 4) return { ffma: flops, l2, bytes };
  return { tensor: flops, l2, shared: l2 + pairs * READS[direction] * tile, bytes };
}
