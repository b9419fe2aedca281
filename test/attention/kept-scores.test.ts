import { attendToTiles, type CoarseCall, coarseAttention, keptScoreStride } from '../../lib/attention/coarse.js';
import { checkRule, selectTiles } from '../../lib/attention/selection.js';
import { valuesOf } from '../../lib/check/values.js';
import { type Device, type Tensor, TileGrid, tidy } from '../../lib/index.js';
import { bitsOf, bitsOfAll, useGuardedMemory } from './support.js';
import { fresh, here } from '../under-test.js';

useGuardedMemory();

/** 27 and 45 tiles: rows of scores that are no multiple of four. */
const GRID = new TileGrid({ tokens: [12, 12, 12] });
const KEY_GRID = new TileGrid({ tokens: [12, 12, 20] });

const call: CoarseCall = {
  dims: { B: 2, H: 4, Hkv: 2, D: 64 },
  ...{ Nq: GRID.totalTileCount, Nk: KEY_GRID.totalTileCount, scale: -0.17 },
};
const STRIDE = Math.ceil(call.Nk / 4) * 4;

function inputs(): { q: Tensor; k: Tensor; v: Tensor; dOutput: Tensor } {
  const random = (tiles: number, heads: number, seed: number) => fresh.randn([2, tiles, heads, 64], { seed });
  const { Nq, Nk } = call;
  return { q: random(Nq, 4, 1), k: random(Nk, 2, 2), v: random(Nk, 2, 3), dOutput: random(Nq, 4, 4) };
}

const select = ({ q, k }: { q: Tensor; k: Tensor }, scoreStride?: number) => {
  const rule = checkRule({ topK: 7 }, GRID, KEY_GRID);
  return selectTiles({ q, k, rule, grid: GRID, keyGrid: KEY_GRID, scale: call.scale }, scoreStride);
};

test('scores in rows of a multiple of four are the same, and so are the lists', async () => {
  const { padded, plain, none } = tidy(() => {
    const tensors = inputs();
    return { padded: select(tensors, STRIDE), plain: select(tensors, call.Nk), none: select(tensors) };
  });
  const [wide, narrow] = [await valuesOf(padded.scores!), await valuesOf(plain.scores!)];
  const rows = Array.from({ length: narrow.length / call.Nk }, (_, row) => [
    ...wide.subarray(row * STRIDE, row * STRIDE + call.Nk),
  ]);
  expect(rows.flat()).toEqual([...narrow]);
  const lists = await none.lists.toArrays();
  expect(await padded.lists.toArrays()).toEqual(lists);
  expect(await plain.lists.toArrays()).toEqual(lists);
  expect(none.scores).toBeUndefined();
  for (const { lists: made, scores } of [padded, plain, none]) {
    made.dispose();
    scores?.dispose();
  }
});

test('coarse attention of given scores has the bits of one that makes them, forward and backward', async () => {
  const { made, given } = tidy(() => {
    const tensors = inputs();
    const { scores } = select(tensors, STRIDE);
    const [made, given] = [undefined, scores].map((kept) => {
      const saved = attendToTiles({ ...tensors, scores: kept }, call);
      return { output: saved.output, lse: saved.lse, ...coarseAttention.backward(saved, { output: tensors.dOutput }) };
    });
    return { made: made!, given: given! };
  });
  expect(await bitsOfAll({ ...given })).toEqual(await bitsOfAll({ ...made }));
  for (const tensor of [...Object.values(made), ...Object.values(given)]) tensor.dispose();
});

test('saved state owns the scores', async () => {
  const { first, second } = tidy(() => {
    const tensors = inputs();
    const saved = tidy(() => attendToTiles({ ...tensors, ...select(tensors, STRIDE) }, call));
    const grads = { output: tensors.dOutput };
    const [first, second] = [coarseAttention.backward(saved, grads).k, coarseAttention.backward(saved, grads).k];
    saved.dispose();
    expect(() => coarseAttention.backward(saved, grads)).toThrow('living');
    return { first, second };
  });
  expect(await bitsOf(first)).toEqual(await bitsOf(second));
  first.dispose();
  second.dispose();
});

test('scores are handed on on GPUs, where 512 MiB hold them', () => {
  const gpu = { type: 'cuda' } as const;
  const of = (heads: number, tiles: number, device: Pick<Device, 'type'>) =>
    keptScoreStride({ dims: { B: 1, H: heads, Hkv: heads, D: 128 }, Nq: tiles, Nk: tiles, scale: 1 }, device);
  expect(of(12, 624, gpu)).toBe(624);
  expect(of(12, 455, gpu)).toBe(456);
  expect(of(8, 4096, gpu)).toBe(4096);
  expect(of(9, 4096, gpu)).toBeUndefined();
  expect(of(12, 624, { type: 'cpu' })).toBeUndefined();
  expect(keptScoreStride(call, here)).toBe(here.type === 'cuda' ? STRIDE : undefined);
});
