/** What the attention tests share: guarded memory, cases run against the oracle, random grids and inputs. */
import fc from 'fast-check';
import { native } from '../../lib/binding.js';
import type { AttentionCase } from '../../lib/check/fine.js';
import type { CheckRow } from '../../lib/check/report.js';
import { CaseContext } from '../../lib/check/values.js';
import { memory, type Tensor } from '../../lib/index.js';
import { layoutOf, type OracleGrid } from '../../lib/oracle/index.js';
import { here } from '../under-test.js';

/**
 * From here on fresh memory is full of NaN, so that an element that is not written shows, and lies between guard
 * zones. No test may leave a tensor behind, and none may have written beside its memory.
 */
export function useGuardedMemory(): void {
  let left = { numTensors: 0, numBytes: 0 };
  beforeAll(() => {
    left = memory();
    native().debugMemory(true);
  });
  afterEach(() => {
    const before = left; // what a test left behind fails that test alone
    left = memory();
    expect(left).toEqual(before);
  });
  afterAll(async () => {
    await here.synchronize(); // guards are looked at when memory is freed, after the last operation on it
    expect(native().debugMemory(false)).toBe(0);
  });
}

/** Runs a test with a context of its own, and gives back what it holds. */
export async function inContext<T>(seed: number, body: (context: CaseContext) => Promise<T>): Promise<T> {
  const context = new CaseContext(here, BigInt(seed) << 20n);
  try {
    return await body(context);
  } finally {
    context.dispose();
  }
}

/** Every row must hold; those that do not are shown. */
export function expectRows(rows: readonly CheckRow[]): void {
  expect(rows.length).toBeGreaterThan(0);
  expect(rows.filter((row) => !row.ok)).toEqual([]);
}

/** Runs a case of lib/check and expects every row to hold. */
export async function expectCase<C>(
  check: (c: C, context: CaseContext) => Promise<CheckRow[]>,
  c: C,
  seed = 1,
): Promise<void> {
  expectRows(await inContext(seed, (context) => check(c, context)));
}

/** A property of random values: a fixed seed, so many runs, and the smallest counterexample. */
export async function holds<T>(runs: number, arbitrary: fc.Arbitrary<T>, check: (value: T) => Promise<void> | void) {
  const property = fc.asyncProperty(arbitrary, async (value) => {
    await check(value);
  });
  await fc.assert(property, { seed: 20250513, numRuns: runs });
}

const TILES = [1, 2, 4, 8, 16, 32, 64].flatMap((ct) =>
  [1, 2, 4, 8, 16, 32, 64].flatMap((cy) => (64 % (ct * cy) === 0 ? [[ct, cy, 64 / (ct * cy)] as const] : [])),
);

/** Grids of up to so many video tokens in tiles of any shape, half of them with a prefix. */
export function grids(most: number, mostPrefix = most): fc.Arbitrary<OracleGrid> {
  return fc
    .constantFrom(...TILES)
    .chain((tile) =>
      fc.record({
        tokens: fc.tuple(...(tile.map((extent) => fc.integer({ min: 1, max: 2 * extent + 2 })) as Triple)),
        tile: fc.constant(tile),
        prefix: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: mostPrefix })),
      }),
    )
    .filter(({ tokens: [t, y, x] }) => t * y * x <= most);
}
type Triple = [fc.Arbitrary<number>, fc.Arbitrary<number>, fc.Arbitrary<number>];

/** Dtype, order, head dim, heads, and what the padding of inputs holds. */
export const formats = fc.record({
  dtype: fc.constantFrom('float32' as const, 'bfloat16' as const, 'float16' as const),
  order: fc.constantFrom('grid' as const, 'tiled' as const),
  headDim: fc.constantFrom(64, 96, 128),
  padding: fc.constantFrom(NaN, Infinity, -Infinity, 3),
});

/** Batches and heads, few in all. */
export const heads = fc.constantFrom(
  { batch: 1, heads: 1, kvHeads: 1 },
  { batch: 1, heads: 2, kvHeads: 2 },
  { batch: 2, heads: 1, kvHeads: 1 },
  { batch: 1, heads: 3, kvHeads: 1 },
  { batch: 2, heads: 2, kvHeads: 1 },
  { batch: 1, heads: 4, kvHeads: 2 },
);

/**
 * Attention over few tokens: every option at once. Large logits are tested elsewhere, on tokens enough for two careful
 * implementations to have errors of one size: where a softmax has but one key, one of them may be exact by luck.
 */
export const attentionCases: fc.Arbitrary<AttentionCase> = fc
  .record({
    format: formats,
    heads,
    grid: grids(80),
    keyGrid: fc.option(grids(80), { nil: undefined }),
    scale: fc.option(fc.constantFrom(0.2, 0.01, 0, -0.1), { nil: undefined }),
  })
  .map(({ format, heads: counts, grid, keyGrid, scale }) => ({
    ...{ name: 'random', ...format, ...counts, grid, std: 1 },
    ...(keyGrid !== undefined && { keyGrid }),
    ...(scale !== undefined && { scale }),
  }));

/** A list for every query tile: each key tile with a chance of its own. */
export function listsOf(rows: number, keyTiles: number): fc.Arbitrary<number[][]> {
  return fc.array(fc.subarray(Array.from({ length: keyTiles }, (_, tile) => tile)), {
    minLength: rows,
    maxLength: rows,
  });
}

/** Tiles of the two grids of a case. */
export function tilesOf(c: Pick<AttentionCase, 'grid' | 'keyGrid'>): { queryTiles: number; keyTiles: number } {
  return { queryTiles: layoutOf(c.grid).tiles, keyTiles: layoutOf(c.keyGrid ?? c.grid).tiles };
}

/** The bits of a tensor: NaN equals itself, and -0 is not 0. */
export async function bitsOf(tensor: Tensor): Promise<string> {
  const data = await tensor.data();
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');
}

/** The bits of several tensors, each under its name. */
export async function bitsOfAll(
  tensors: Readonly<Record<string, Tensor | undefined>>,
): Promise<Record<string, string>> {
  const bits: Record<string, string> = {};
  for (const [name, tensor] of Object.entries(tensors)) if (tensor !== undefined) bits[name] = await bitsOf(tensor);
  return bits;
}
