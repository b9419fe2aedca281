/** Lists are memory that a user can overwrite: whatever is in it, nothing outside of it is touched. */

import { blockSparseAttention, TileGrid } from '../../lib/index.js';
import { native } from '../../lib/binding.js';
import { fresh, here } from '../under-test.js';

const grid = new TileGrid({ tokens: [4, 4, 12] });
const shape = { batch: 1, heads: 2, queryTiles: 3, keyTiles: 3 };
/** The CPU's kernels find it, a GPU is asked first. */
const CODE = here.type === 'cpu' ? 'ERR_INTERNAL' : 'ERR_LISTS';
const good = [[0], [1, 2], [], [0, 1], [2], [1]];

beforeAll(() => native().debugMemory(true));
afterAll(() => native().debugMemory(false));

test.each([
  ['past the entries', [0, 1, 3, 3, 5, 6, 100_000]],
  ['past the entries in the middle', [0, 1, 900, 900, 900, 900, 900]],
  ['far past them', [0, 1, 3, 3, 5, 6, 2 ** 31 - 1]],
  ['falling', [0, 3, 1, 3, 5, 6, 7]],
  ['negative', [-5, 1, 3, 3, 5, 6, 7]],
])('offsets %s: the operation fails, the transpose too, and no memory is damaged', async (_, offsets) => {
  const damaged = native().debugMemory(true);
  const lists = fresh.lists(good, shape);
  const q = fresh.randn([1, grid.length, 2, 64]);
  const whole = blockSparseAttention.forward({ q, k: q, v: q, grid, lists });
  lists.offsets!.copyFrom(Int32Array.from(offsets));
  const transposed = lists.transpose();
  const { output, saved } = blockSparseAttention.forward({ q, k: q, v: q, grid, lists });
  const grads = blockSparseAttention.backward(saved, { output: q });
  const bits = lists.bits();
  for (const tensor of [output, grads.q, grads.k, transposed.indices!, bits]) {
    await expect(tensor.data()).rejects.toMatchObject({ code: CODE });
  }
  expect(await whole.output.data()).toHaveLength(q.size); // what was called before is as it was
  const { v } = grads;
  for (const one of [lists, q, whole.output, whole.saved, transposed, bits, output, saved, grads.q, grads.k, v]) {
    one.dispose();
  }
  expect(native().debugMemory(true)).toBe(damaged);
});
