import fc from 'fast-check';
import { type ListsShape, memory, type TileLists, tidy } from '../../lib/index.js';
import { holds, listsOf, useGuardedMemory } from './support.js';
import { fresh } from '../under-test.js';

useGuardedMemory();

const cases = fc
  .record({
    batch: fc.integer({ min: 0, max: 2 }),
    heads: fc.integer({ min: 1, max: 3 }),
    queryTiles: fc.integer({ min: 1, max: 9 }),
    keyTiles: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constantFrom(31, 32, 33, 64, 70)),
  })
  .chain((shape) =>
    fc.tuple(fc.constant(shape), listsOf(shape.batch * shape.heads * shape.queryTiles, shape.keyTiles)),
  );

function maskOf(lists: readonly (readonly number[])[], { keyTiles }: ListsShape): Uint8Array {
  const mask = new Uint8Array(lists.length * keyTiles);
  lists.forEach((list, row) => list.forEach((tile) => (mask[row * keyTiles + tile] = 1 + (tile % 255))));
  return mask;
}

/** Rows of key tiles, by looking at every pair. */
function transposed(lists: readonly number[][], { batch, heads, queryTiles, keyTiles }: ListsShape): number[][] {
  return Array.from({ length: batch * heads * keyTiles }, (_, row) => {
    const [head, tile] = [Math.floor(row / keyTiles), row % keyTiles];
    const queries = Array.from({ length: queryTiles }, (__, i) => i);
    return queries.filter((i) => lists[head * queryTiles + i]!.includes(tile));
  });
}

/** Reads everything that lists say of themselves, and disposes them. */
async function contents(lists: TileLists): Promise<{ arrays: number[][]; bits: number[][]; transpose: number[][] }> {
  const [bits, transpose] = [lists.bits(), lists.transpose()];
  const words = await bits.data();
  const perRow = bits.shape[3]!;
  const rows = lists.batch * lists.heads * lists.queryTiles;
  const fromBits = Array.from({ length: rows }, (_, row) => {
    const all = Array.from({ length: 32 * perRow }, (__, tile) => tile);
    return all.filter((tile) => ((words[row * perRow + Math.floor(tile / 32)]! >>> (tile % 32)) & 1) === 1);
  });
  expect(bits.shape).toEqual([lists.batch, lists.heads, lists.queryTiles, Math.ceil(lists.keyTiles / 32)]);
  expect(transpose).toMatchObject({ queryTiles: lists.keyTiles, keyTiles: lists.queryTiles, heads: lists.heads });
  const result = { arrays: await lists.toArrays(), bits: fromBits, transpose: await transpose.toArrays() };
  for (const resource of [lists, bits, transpose]) resource.dispose();
  return result;
}

test('from arrays, from CSR, from a mask: the same lists, bits and transpose', async () => {
  await holds(60, cases, async ([shape, lists]) => {
    const wanted = { arrays: lists, bits: lists, transpose: transposed(lists, shape) };
    expect(await contents(fresh.lists(lists, shape))).toEqual(wanted);
    expect(await contents(fresh.listsFromMask(maskOf(lists, shape), shape))).toEqual(wanted);
    const offsets = Int32Array.from([0, ...lists.map((list) => list.length)]);
    for (let row = 0; row < lists.length; row++) offsets[row + 1]! += offsets[row]!;
    expect(await contents(fresh.lists({ offsets, indices: Int32Array.from(lists.flat()) }, shape))).toEqual(wanted);
  });
});

test('the transpose of the transpose is the lists', async () => {
  await holds(20, cases, async ([shape, lists]) => {
    const again = tidy(() => fresh.lists(lists, shape).transpose().transpose());
    expect(await again.toArrays()).toEqual(lists);
    again.dispose();
  });
});

test('full lists take no memory and are those of every tile', async () => {
  const shape = { batch: 2, heads: 3, queryTiles: 4, keyTiles: 35 };
  const all = Array.from({ length: 35 }, (_, tile) => tile);
  const full = fresh.fullLists(shape);
  expect(full.isFull).toBe(true);
  expect(memory().numBytes).toBe(0);
  const found = await contents(full);
  expect(found.arrays).toEqual(new Array(24).fill(all));
  expect(found.bits).toEqual(found.arrays);
  expect(found.transpose).toEqual(new Array(2 * 3 * 35).fill([0, 1, 2, 3]));
  const everything = fresh.lists(found.arrays, shape);
  expect(everything.isFull).toBe(false);
  expect((await contents(everything)).transpose).toEqual(found.transpose);
});

test('lists are copied', async () => {
  const shape = { batch: 1, heads: 1, queryTiles: 2, keyTiles: 4 };
  const [offsets, indices] = [Int32Array.of(0, 2, 3), Int32Array.of(0, 3, 1)];
  const mask = Uint8Array.of(1, 0, 0, 1, 0, 1, 0, 0);
  const arrays = [[0, 3], [1]];
  const made = [fresh.lists(arrays, shape), fresh.lists({ offsets, indices }, shape), fresh.listsFromMask(mask, shape)];
  arrays[0]!.fill(2);
  for (const array of [offsets, indices, mask]) array.fill(1);
  for (const lists of made) {
    expect(await lists.toArrays()).toEqual([[0, 3], [1]]);
    lists.dispose();
  }
});

test('dispose, using and tidy give memory back', () => {
  const shape = { batch: 1, heads: 1, queryTiles: 1, keyTiles: 4 };
  const lists = fresh.lists([[1]], shape);
  expect(lists.disposed).toBe(false);
  lists.dispose();
  lists.dispose();
  expect(lists.disposed).toBe(true);
  const full = fresh.fullLists(shape);
  full.dispose();
  expect(full.disposed).toBe(true);
  {
    using held = fresh.lists([[1, 2]], shape);
    expect(held.disposed).toBe(false);
  }
  const kept = tidy(() => {
    fresh.lists([[3]], shape);
    return { lists: fresh.lists([[0]], shape) };
  });
  expect(memory().numTensors).toBe(2); // offsets and indices
  kept.lists.dispose();
});

test('a text says what they are', () => {
  using lists = fresh.lists([[1], []], { batch: 1, heads: 1, queryTiles: 2, keyTiles: 4 });
  expect(String(lists)).toBe('TileLists([1, 1, 2, 4], 1 entries)');
});
