import fc from 'fast-check';
import { checkTiling } from '../../lib/check/tiling.js';
import { tensorOf, valuesOf } from '../../lib/check/values.js';
import { tidy, tile, TileGrid, untile } from '../../lib/index.js';
import { bitsOf, expectCase, grids, holds, useGuardedMemory } from './support.js';
import { fresh, here } from '../under-test.js';

useGuardedMemory();

const cases = fc.record({
  name: fc.constant('random'),
  dtype: fc.constantFrom('float32' as const, 'bfloat16' as const, 'float16' as const, 'int32' as const),
  batch: fc.integer({ min: 1, max: 3 }),
  row: fc.constantFrom([2, 64], [1, 96], [5], [], [3, 1, 7]),
  grid: grids(150),
});

test.each(['tile', 'untile'] as const)('%s moves rows, and its gradient moves them back', async (op) => {
  await holds(25, cases, (c) => expectCase((one, context) => checkTiling(op, one, context), c));
});

test('rows keep their bits, those of every NaN included', async () => {
  const grid = new TileGrid({ tokens: [3, 5, 6], prefix: 7 });
  const bits = Uint16Array.from({ length: 2 * grid.length * 3 }, (_, i) => 0x7f80 + (i % 128) + (i % 2) * 0x8000);
  const x = fresh.from(bits, [2, grid.length, 3], { dtype: 'bfloat16' });
  const back = tidy(() => untile.forward({ x: tile.forward({ x, grid }).output, grid }).output);
  expect(await bitsOf(back)).toBe(await bitsOf(x));
  x.dispose();
  back.dispose();
});

test('the slots are those of permutation()', async () => {
  const grid = new TileGrid({ tokens: [3, 9, 6], tile: [2, 4, 8], prefix: 70 });
  const table = fresh.from(
    Int32Array.from({ length: grid.length }, (_, n) => n + 1),
    [1, grid.length],
  );
  const tiled = tidy(() => tile.forward({ x: table, grid }).output);
  expect(await tiled.data()).toEqual(grid.permutation().map((token) => token + 1)); // -1, no token, is 0
  table.dispose();
  tiled.dispose();
});

test('an empty batch', () => {
  const grid = new TileGrid({ tokens: [3, 5, 6] });
  const shape = tidy(() => tile.forward({ x: fresh.zeros([0, grid.length, 4]), grid }).output.shape);
  expect(shape).toEqual([0, grid.slots, 4]);
});

test('padding of any bits is dropped', async () => {
  const grid = new TileGrid({ tokens: [1, 1, 2] });
  for (const padding of [NaN, Infinity, -1]) {
    const values = new Float64Array(64).fill(padding);
    values.set([5, 6]);
    const x = tensorOf(values, [1, 64], 'float32', here);
    const { output, saved } = untile.forward({ x, grid });
    expect([...(await valuesOf(output))]).toEqual([5, 6]);
    const { x: dx } = untile.backward(saved, { output });
    expect([...(await valuesOf(dx))]).toEqual([5, 6, ...new Array<number>(62).fill(0)]);
    for (const resource of [x, output, saved, dx]) resource.dispose();
  }
});
