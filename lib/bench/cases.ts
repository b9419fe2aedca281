/** What is measured: one operation on one shape, spelled out. */

import { type Backend, chooseBackend, type OperationName } from '../attention/backends.js';
import type { Order, TileGrid } from '../attention/grid.js';
import type { Device } from '../device/device.js';
import type { ListsKind } from './lists.js';

export const OPS = ['pool', 'select', 'lists', 'coarse', 'fine', 'dense', 'vsa'] as const;
export type Op = (typeof OPS)[number];

/** The operation that an op measures. */
export const OPERATION_OF: Readonly<Record<Op, OperationName>> = {
  pool: 'tilePooling',
  select: 'tileSelection',
  lists: 'tileSelection',
  coarse: 'coarseAttention',
  fine: 'blockSparseAttention',
  dense: 'denseAttention',
  vsa: 'videoSparseAttention',
};

/**
 * `both`: a forward and its backward in one call. Of `lists`, forward builds the bit rows and backward the transpose,
 * which is what a forward and a backward pass need of them.
 */
export const DIRECTIONS = ['forward', 'backward', 'both'] as const;
export type Direction = (typeof DIRECTIONS)[number];

export type BenchDType = 'float32' | 'bfloat16' | 'float16';
export type Cache = 'warm' | 'cold';
/** Of q and k; `smooth`: noise plus a smooth field over the grid, see smooth.ts. */
export const DATA_KINDS = ['randn', 'smooth'] as const;
export type DataKind = (typeof DATA_KINDS)[number];
export type CoarseMode = 'skip' | 'add' | 'gate';

/** One shape of one operation, on inputs of its own. Null: of no meaning for this operation. */
export interface BenchCase {
  readonly op: Op;
  readonly backend: 'auto' | Backend;
  readonly B: number;
  readonly H: number;
  readonly Hkv: number;
  readonly grid: TileGrid;
  readonly D: number;
  /** Of tokens; what works on tiles is float32. */
  readonly dtype: BenchDType | 'int32';
  /** Video key tiles for every query tile. */
  readonly K: number | null;
  readonly sparsity: number | null;
  readonly lists: ListsKind | null;
  readonly listsFile: string | undefined;
  readonly data: DataKind;
  readonly order: Order | null;
  readonly coarse: CoarseMode | null;
  readonly fineGate: boolean | null;
  readonly seed: number;
}

/**
 * The backend that serves a case on a device.
 *
 * @throws VsaError ERR_BACKEND where the one it forces does not.
 */
export function backendOf({ op, backend, dtype, D }: BenchCase, device: Device): Backend {
  const facts = dtype === 'int32' ? undefined : { dtype, D, scale: 1 / Math.sqrt(D) };
  return chooseBackend(device, backend, OPERATION_OF[op], facts);
}

/** The directions that an operation has. Indices have no gradient. */
export function directionsOf(op: Op): readonly Direction[] {
  return op === 'select' ? ['forward'] : DIRECTIONS;
}

/** What an operation does not depend on is null: a list of values for it must not measure the same thing twice. */
export function normalized(one: BenchCase): BenchCase {
  const { op } = one;
  const N = one.grid.tileCount;
  const onTokens = op === 'pool' || op === 'fine' || op === 'dense' || op === 'vsa';
  const kept: Partial<BenchCase> =
    op === 'pool' || op === 'coarse'
      ? { K: null, sparsity: null, lists: null }
      : op === 'dense' || (one.lists === 'dense' && op !== 'select' && op !== 'vsa')
        ? { K: N, sparsity: 0, lists: 'dense' }
        : op === 'select' || op === 'vsa'
          ? { lists: 'selected' }
          : {};
  return {
    ...one,
    ...kept,
    dtype: onTokens ? one.dtype : op === 'lists' ? 'int32' : 'float32',
    data: op === 'vsa' ? one.data : 'randn',
    order: onTokens ? one.order : null,
    coarse: op === 'vsa' ? one.coarse : null,
    fineGate: op === 'vsa' ? one.fineGate : null,
    listsFile: kept.lists === undefined && one.lists === 'file' ? one.listsFile : undefined,
    Hkv: op === 'lists' ? one.H : one.Hkv,
  };
}

/** A name for progress and messages. */
export function caseName(one: BenchCase): string {
  const { op, B, H, Hkv, grid, D, dtype, K, lists, data, order, coarse, fineGate } = one;
  const heads = Hkv === H ? `H${H}` : `H${H}/${Hkv}`;
  const parts = [op, grid.toString(), B === 1 ? '' : `B${B}`, heads, `D${D}`, dtype, K === null ? '' : `K${K}`];
  return [
    ...parts,
    lists ?? '',
    data === 'randn' ? '' : data,
    order ?? '',
    coarse ?? '',
    fineGate === true ? 'fine gate' : '',
  ]
    .filter((part) => part !== '')
    .join(' ');
}
