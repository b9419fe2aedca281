import fc from 'fast-check';
import { type CoarseCase, checkCoarse } from '../../lib/check/coarse.js';
import { tensorOf, valuesOf } from '../../lib/check/values.js';
import { coarseAttention, type Tensor, tidy } from '../../lib/index.js';
import { expectCase, heads, holds, useGuardedMemory } from './support.js';
import { fresh, here } from '../under-test.js';

useGuardedMemory();

const cases: fc.Arbitrary<CoarseCase> = fc
  .record({
    counts: heads,
    headDim: fc.constantFrom(64, 96, 128),
    queryTiles: fc.integer({ min: 1, max: 70 }),
    keyTiles: fc.integer({ min: 1, max: 70 }),
    std: fc.constantFrom(0.125, 1),
    scale: fc.option(fc.constantFrom(0.2, 0.01, 0, -0.1), { nil: undefined }),
  })
  .map(({ counts, scale, ...dims }) => ({
    ...{ name: 'random', ...counts, ...dims },
    ...(scale !== undefined && { scale }),
  }));

test('output, lse and gradients of any sizes', async () => {
  await holds(30, cases, (c) => expectCase(checkCoarse, c));
});

test.each([
  [4, 64],
  [16, 64],
  [4, 128],
  [16, 128],
])('large logits: inputs x%i, D %i', async (std, headDim) => {
  await expectCase(checkCoarse, {
    ...{ name: 'large', batch: 2, heads: 2, kvHeads: 1, headDim, queryTiles: 60, keyTiles: 100, std },
  });
});

test.each([63, 64, 65, 129])('%i key tiles', async (keyTiles) => {
  await expectCase(checkCoarse, {
    ...{
      name: 'edge of a block',
      batch: 1,
      heads: 2,
      kvHeads: 1,
      headDim: 96,
      queryTiles: keyTiles + 1,
      keyTiles,
      std: 1,
    },
  });
});

test('one key tile: its value, and an lse that is its score', async () => {
  const { output, saved } = tidy(() => {
    const [q, k] = [fresh.full([1, 3, 1, 64], 0.5), fresh.full([1, 1, 1, 64], 2)];
    const v = fresh.randn([1, 1, 1, 64], { seed: 3 });
    return coarseAttention.forward({ q, k, v });
  });
  expect([...(await valuesOf(saved.lse))]).toEqual([8, 8, 8]); // 64 * 0.5 * 2 / sqrt(64)
  const v = await valuesOf(saved.v);
  expect([...(await valuesOf(output))]).toEqual([...v, ...v, ...v]);
  output.dispose();
  saved.dispose();
});

/** Random pooled tensors of two batches, four query heads on two key heads, with NaN at (batch 1, tile 3, head 0). */
async function withNaN(where: 'q' | 'k' | 'v') {
  const [batch, tile] = [1, 3];
  const shapes = { q: [2, 5, 4, 64], k: [2, 6, 2, 64], v: [2, 6, 2, 64] } as const;
  const tensors = { q: here, k: here, v: here } as unknown as Record<'q' | 'k' | 'v', Tensor>;
  for (const [seed, name] of (['q', 'k', 'v'] as const).entries()) {
    const shape = shapes[name];
    const random = fresh.randn(shape, { seed });
    const values = await valuesOf(random);
    random.dispose();
    if (name === where) values[(batch * shape[1] + tile) * shape[2] * 64] = NaN; // head 0, channel 0
    tensors[name] = tensorOf(values, shape, 'float32', here);
  }
  const { output, saved } = coarseAttention.forward(tensors);
  const got = await valuesOf(output);
  const lse = await valuesOf(saved.lse);
  for (const resource of [...Object.values(tensors), output, saved]) resource.dispose();
  /** Which (batch, query tile, head, channel) are NaN. */
  const places = [...got.keys()].filter((i) => Number.isNaN(got[i]));
  const bad = places.map((i) => [
    Math.floor(i / (5 * 4 * 64)),
    Math.floor(i / (4 * 64)) % 5,
    Math.floor(i / 64) % 4,
    i % 64,
  ]);
  return { bad, badLse: [...lse.keys()].filter((i) => Number.isNaN(lse[i])) };
}

const indices = (n: number) => Array.from({ length: n }, (_, i) => i);

test('NaN in a pooled key makes the output of the heads that read it NaN, and no other', async () => {
  const { bad, badLse } = await withNaN('k');
  const wanted = indices(5).flatMap((i) => [0, 1].flatMap((h) => indices(64).map((d) => [1, i, h, d])));
  expect(bad).toEqual(wanted);
  // lse [2, 4, 5]: batch 1, heads 0 and 1.
  expect(badLse).toEqual(indices(10).map((i) => 20 + i));
});

test('NaN in a pooled query makes the output of that tile and head NaN', async () => {
  const { bad, badLse } = await withNaN('q');
  expect(bad).toEqual(indices(64).map((d) => [1, 3, 0, d]));
  expect(badLse).toEqual([20 + 3]);
});

test('NaN in a pooled value makes one channel NaN', async () => {
  const { bad, badLse } = await withNaN('v');
  expect(bad).toEqual(indices(5).flatMap((i) => [0, 1].map((h) => [1, i, h, 0])));
  expect(badLse).toEqual([]);
});
