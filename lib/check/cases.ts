/**
 * What `runCheck` runs: for every operation each dtype, head dim and token order on a small grid, and each option once
 * by itself on one whose tiles are partial in every way (5 x 6 x 7 tokens in tiles of 4 x 4 x 4: eight tiles, seven of
 * them partial). Options of attention over tokens once more in 16-bit formats, which other kernels serve.
 */

import type { DType, Order } from '../index.js';
import type { FloatFormat, OracleGrid } from '../oracle/index.js';
import { checkCoarse, type CoarseCase } from './coarse.js';
import { checkCombination, type CombinationCase } from './combination.js';
import { type AttentionCase, type BlockSparseCase, checkBlockSparse, checkDense } from './fine.js';
import { checkCast, checkRandbits, checkRandn, type RandomCase } from './numbers.js';
import { checkPooling, type PoolingCase } from './pooling.js';
import type { CheckRow } from './report.js';
import { checkSelection, type SelectionCase } from './selection.js';
import { checkTiling, type TilingCase } from './tiling.js';
import type { CaseContext } from './values.js';
import { checkVsa, type VsaCase } from './vsa.js';

/** One case of one operation. */
export interface CheckCase {
  /** Name of the public function. */
  readonly op: string;
  readonly name: string;
  readonly run: (context: CaseContext) => Promise<CheckRow[]>;
}

/** What differs from an operation's base case. */
type Variant<T> = Partial<T> & { readonly name: string };

const DTYPES: readonly FloatFormat[] = ['float32', 'bfloat16', 'float16'];
const HEAD_DIMS = [64, 96, 128];
const ORDERS: readonly Order[] = ['grid', 'tiled'];

const CUBES = [4, 4, 4] as const;
const PARTIAL: OracleGrid = { tokens: [5, 6, 7], tile: CUBES };
/** Eight tiles as well, of fewer tokens. */
const FEW: OracleGrid = { tokens: [5, 5, 6], tile: CUBES };
/** Four tiles, no two of the same extents. */
const SMALL: OracleGrid = { tokens: [5, 3, 6], tile: CUBES };
const WHOLE: OracleGrid = { tokens: [4, 8, 8], tile: CUBES };
/** A key grid for cross attention: other tokens, other tiles, a prefix of its own. */
const OTHER: OracleGrid = { tokens: [2, 9, 11], tile: [2, 4, 8], prefix: 3 };
const PREFIXED: OracleGrid = { tokens: [5, 4, 6], tile: CUBES, prefix: 70 };
/** Four prefix tiles, twelve video tiles. */
const LONG_PREFIX: OracleGrid = { tokens: [6, 7, 9], tile: CUBES, prefix: 200 };
const SHAPES: readonly OracleGrid[] = [
  { tokens: [3, 7, 9], tile: [2, 4, 8] },
  { tokens: [2, 9, 11], tile: [1, 8, 8] },
  { tokens: [9, 9, 2], tile: [8, 8, 1] },
  { tokens: [2, 1, 100], tile: [1, 1, 64] },
];

const shapeName = ({ tokens, tile }: OracleGrid) => `${tokens.join('x')} in tiles of ${tile.join('x')}`;

/** Every dtype with every head dim in both orders, on few tokens. */
const FORMATS = DTYPES.flatMap((dtype) =>
  HEAD_DIMS.flatMap((headDim) =>
    ORDERS.map((order) => ({ name: `${dtype}, D ${headDim}, ${order} order`, dtype, headDim, order, grid: SMALL })),
  ),
);
/** Logits that are large, and so large that every softmax has one key. */
const LARGE = [
  ...DTYPES.flatMap((dtype) => [4, 16].map((std) => ({ name: `${dtype}, inputs x${std}`, dtype, std }))),
  ...[4, 16].map((std) => ({ name: `bfloat16, D 128, inputs x${std}`, dtype: 'bfloat16' as const, headDim: 128, std })),
];

const HEADS = [
  { name: 'one head', heads: 1, kvHeads: 1 },
  { name: 'batch 2', batch: 2 },
  { name: '4 heads on 2 key heads', heads: 4, kvHeads: 2 },
  { name: '3 heads on 1 key head, batch 2', batch: 2, heads: 3, kvHeads: 1 },
];

const GRIDS = [
  { name: 'whole tiles', grid: WHOLE },
  { name: 'one partial tile', grid: { tokens: [3, 2, 3], tile: CUBES } as OracleGrid },
  ...SHAPES.map((grid) => ({ name: shapeName(grid), grid })),
  ...ORDERS.map((order) => ({ name: `prefix of 70, ${order} order`, grid: PREFIXED, order })),
];

const CROSS = [
  ...ORDERS.map((order) => ({ name: `other key grid, ${order} order`, keyGrid: OTHER, order })),
  { name: 'a single key tile', keyGrid: { tokens: [1, 1, 5], tile: CUBES } as OracleGrid },
];

/**
 * Each option, and the same in 16-bit formats: Hopper's own kernels take those alone, at head dims 64 and 128. Every
 * variant in bfloat16, every third in float16 too.
 */
function inAllFormats<T extends AttentionCase>(options: readonly Variant<T>[]): Variant<T>[] {
  return options.flatMap((variant, i) => {
    const as = (dtype: FloatFormat, headDim: number) => ({
      ...{ grid: FEW, ...variant, name: `${variant.name}, ${dtype}, D ${headDim}`, dtype, headDim },
    });
    return [variant, as('bfloat16', 128), ...(i % 3 === 0 ? [as('float16', 64)] : [])];
  });
}

const ATTENTION: AttentionCase = {
  ...{ name: '', dtype: 'float32', order: 'grid', batch: 1, heads: 2, kvHeads: 2, headDim: 64, grid: PARTIAL, std: 1 },
};
const DENSE: AttentionCase = { ...ATTENTION, grid: { tokens: [3, 5, 7], tile: CUBES } };
const BLOCK_SPARSE: BlockSparseCase = { ...ATTENTION, lists: 'unequal' };
/** So many query tiles choose one key tile that its list in the transpose is worth splitting; and their own. */
const HUB: Variant<BlockSparseCase> = {
  ...{ name: 'a key tile of 64 query tiles', heads: 1, kvHeads: 1, grid: { tokens: [4, 16, 64], tile: CUBES } },
  lists: Array.from({ length: 64 }, (_, tile) => (tile === 0 ? [0] : [0, tile])),
};
const VSA: VsaCase = { ...ATTENTION, choice: { topK: 3 }, coarse: 'gate', fineGate: true };

const BLOCK_SPARSE_VARIANTS: readonly Variant<BlockSparseCase>[] = [
  ...[...FORMATS, ...LARGE],
  ...inAllFormats<BlockSparseCase>([
    ...(['single', 'pairs', 'shared', 'disjoint', 'empty', 'everything', 'full'] as const).flatMap((lists) =>
      ORDERS.map((order) => ({ name: `lists: ${lists}, ${order} order`, lists, order })),
    ),
    ...[...HEADS, ...GRIDS, ...CROSS],
    { name: 'scale 0.3', scale: 0.3 },
  ]),
  ...[64, 128].map((headDim) => ({
    ...HUB,
    name: `${HUB.name}, bfloat16, D ${headDim}`,
    headDim,
    dtype: 'bfloat16' as const,
  })),
];

const DENSE_VARIANTS: readonly Variant<AttentionCase>[] = [
  ...[...FORMATS, ...LARGE],
  ...inAllFormats<AttentionCase>([
    ...[...HEADS, ...CROSS],
    { name: 'prefix of 70, tiled order', grid: PREFIXED, order: 'tiled' },
    { name: 'scale 0.3', scale: 0.3 },
  ]),
];

const WITH_PREFIX = { grid: PREFIXED, choice: { topK: 2, prefix: 'exempt' as const } };
const VSA_VARIANTS: readonly Variant<VsaCase>[] = [
  ...FORMATS.map((variant) => ({ ...variant, choice: { topK: 2 } })),
  ...LARGE,
  ...inAllFormats<VsaCase>([
    ...(['skip', 'add', 'gate'] as const).flatMap((coarse) =>
      [false, true].map((fineGate) => ({
        name: `coarse ${coarse}, ${fineGate ? 'a' : 'no'} fine gate`,
        coarse,
        fineGate,
      })),
    ),
    { name: 'K = 1', choice: { topK: 1 } },
    { name: 'K = N', choice: { topK: 8 } },
    ...[...HEADS, ...GRIDS.map((variant) => ({ choice: { topK: 1 }, ...variant }))],
    ...ORDERS.flatMap((order) => [
      { name: `prefix exempt, ${order} order`, order, ...WITH_PREFIX },
      {
        name: `prefix competes, ${order} order`,
        order,
        ...WITH_PREFIX,
        choice: { topK: 2, prefix: 'compete' as const },
      },
      { name: `own tile forced, ${order} order`, order, choice: { topK: 2, includeSelf: true } },
    ]),
    {
      name: 'own tile forced, prefix competes',
      ...WITH_PREFIX,
      choice: { topK: 2, prefix: 'compete', includeSelf: true },
    },
    ...CROSS.map((variant) => ({ choice: { topK: 1 }, ...variant })),
    { name: 'prefix of the keys competes', keyGrid: OTHER, choice: { topK: 3, prefix: 'compete' } },
    { name: 'lists of your own', choice: { lists: 'unequal' } },
    { name: 'lists of your own, coarse skip', choice: { lists: 'unequal' }, coarse: 'skip', fineGate: false },
    { name: 'empty lists', choice: { lists: 'empty' } },
    ...ORDERS.map((order) => ({ name: `pooled tensors given, ${order} order`, pooled: true, order })),
    {
      name: 'pooled tensors given, 4 heads on 2 key heads, other key grid',
      ...{ pooled: true, heads: 4, keyGrid: OTHER },
    },
    { name: 'pooled tensors given, coarse skip', pooled: true, coarse: 'skip' },
    {
      name: 'pooled tensors given, coarse add, lists of your own',
      pooled: true,
      coarse: 'add',
      choice: { lists: 'pairs' },
    },
    { name: 'scale 0.3', scale: 0.3 },
  ]),
];

const POOLING: PoolingCase = {
  ...{ name: '', dtype: 'float32', order: 'grid', batch: 1, heads: 2, headDim: 64, grid: PARTIAL, std: 1 },
};
const POOLING_VARIANTS: readonly Variant<PoolingCase>[] = [
  ...[...FORMATS, ...GRIDS],
  { name: 'batch 2, 3 heads', batch: 2, heads: 3 },
  { name: 'inputs x16', std: 16 },
];

const COARSE: CoarseCase = {
  ...{ name: '', batch: 1, heads: 2, kvHeads: 2, headDim: 64, queryTiles: 70, keyTiles: 70, std: 1 },
};
const COARSE_VARIANTS: readonly Variant<CoarseCase>[] = [
  ...HEAD_DIMS.map((headDim) => ({ name: `D ${headDim}`, headDim })),
  ...HEADS,
  { name: '5 query tiles, 130 key tiles', queryTiles: 5, keyTiles: 130 },
  { name: 'one key tile', keyTiles: 1 },
  { name: 'scale 0.3', scale: 0.3 },
  ...[4, 16].map((std) => ({ name: `inputs x${std}`, std })),
];

const SELECTION: SelectionCase = {
  ...{
    name: '',
    batch: 1,
    heads: 2,
    kvHeads: 2,
    headDim: 64,
    grid: { tokens: [12, 13, 17], tile: CUBES },
    topK: 7,
    std: 1,
  },
};
const SELECTION_VARIANTS: readonly Variant<SelectionCase>[] = [
  ...HEAD_DIMS.map((headDim) => ({ name: `D ${headDim}`, headDim })),
  ...[...HEADS, { name: 'K = 1', topK: 1 }, { name: 'K = N', topK: 60 }],
  { name: 'many ties', ties: true },
  { name: 'many ties, own tile forced', ties: true, includeSelf: true },
  { name: 'own tile forced, K = 1', includeSelf: true, topK: 1 },
  ...(['exempt', 'compete'] as const).flatMap((prefix) =>
    [false, true].map((includeSelf) => ({
      ...{ name: `prefix ${prefix}${includeSelf ? ', own tile forced' : ''}`, prefix, includeSelf, ties: includeSelf },
      grid: LONG_PREFIX,
    })),
  ),
  { name: 'other key grid', keyGrid: OTHER, topK: 3 },
  { name: 'scale 0.3', scale: 0.3 },
  ...[4, 16].map((std) => ({ name: `inputs x${std}`, std })),
];

const COMBINATION: CombinationCase = {
  ...{ name: '', dtype: 'float32', order: 'grid', batch: 1, heads: 2, headDim: 64, grid: PARTIAL, coarse: 'gate' },
  fineGate: true,
};
const COMBINATION_VARIANTS: readonly Variant<CombinationCase>[] = [
  ...FORMATS,
  ...(['none', 'add', 'gate'] as const).flatMap((coarse) =>
    [false, true].map((fineGate) => ({
      name: `coarse ${coarse}, ${fineGate ? 'a' : 'no'} fine gate`,
      coarse,
      fineGate,
    })),
  ),
  ...GRIDS,
  { name: 'batch 2, 3 heads', batch: 2, heads: 3 },
];

const TILING: TilingCase = { name: '', dtype: 'float32', batch: 1, row: [2, 64], grid: PARTIAL };
const TILING_VARIANTS: readonly Variant<TilingCase>[] = [
  ...(['float32', 'bfloat16', 'float16', 'int32'] as const).map((dtype) => ({ name: dtype, dtype })),
  ...GRIDS.filter((variant) => !('order' in variant)),
  { name: 'prefix of 70', grid: PREFIXED },
  { name: 'batch 3, rows of 5', batch: 3, row: [5] },
  { name: 'rows of one bfloat16', row: [], dtype: 'bfloat16' },
];

const RANDOM: RandomCase = { name: '', shape: [3, 1367], seed: 1n, dtype: 'float32', mean: 0, std: 1 };
const SEEDS: readonly Variant<RandomCase>[] = [
  { name: 'seed 0', seed: 0n },
  { name: 'seed 2^64 - 1', seed: 2n ** 64n - 1n },
  { name: 'seed 2^32', seed: 2n ** 32n },
  { name: 'one element', shape: [1] },
];
const RANDN_VARIANTS: readonly Variant<RandomCase>[] = [
  ...DTYPES.map((dtype) => ({ name: dtype, dtype })),
  ...SEEDS,
  { name: 'mean -3, std 0.5', mean: -3, std: 0.5 },
];

const CASTS: readonly DType[] = ['float32', 'bfloat16', 'float16', 'int32'];

function variants<T extends { readonly name: string }>(
  op: string,
  base: T,
  list: readonly Variant<T>[],
  run: (c: T, context: CaseContext) => Promise<CheckRow[]>,
): CheckCase[] {
  return list.map((variant) => ({ op, name: variant.name, run: (context) => run({ ...base, ...variant }, context) }));
}

/** Every case, operation by operation, what others build on first. */
export const CHECK_CASES: readonly CheckCase[] = [
  ...variants('Tensor.randbits', RANDOM, SEEDS, checkRandbits),
  ...variants('Tensor.randn', RANDOM, RANDN_VARIANTS, checkRandn),
  ...CASTS.flatMap((from) =>
    CASTS.filter((to) => to !== from).map((to): CheckCase => {
      const name = `${from} to ${to}`;
      return { op: 'Tensor.cast', name, run: (context) => checkCast({ name, from, to }, context) };
    }),
  ),
  ...variants('tile', TILING, TILING_VARIANTS, (c, context) => checkTiling('tile', c, context)),
  ...variants('untile', TILING, TILING_VARIANTS, (c, context) => checkTiling('untile', c, context)),
  ...variants('tilePooling', POOLING, POOLING_VARIANTS, checkPooling),
  ...variants('tileSelection', SELECTION, SELECTION_VARIANTS, checkSelection),
  ...variants('coarseAttention', COARSE, COARSE_VARIANTS, checkCoarse),
  ...variants('blockSparseAttention', BLOCK_SPARSE, BLOCK_SPARSE_VARIANTS, checkBlockSparse),
  ...variants('denseAttention', DENSE, DENSE_VARIANTS, checkDense),
  ...variants('gatedCombination', COMBINATION, COMBINATION_VARIANTS, checkCombination),
  ...variants('videoSparseAttention', VSA, VSA_VARIANTS, checkVsa),
];

/** Names of the operations that are checked, in order. */
export const CHECKED_OPS: readonly string[] = [...new Set(CHECK_CASES.map((c) => c.op))];
