import fc from 'fast-check';
import { checkPooling, type PoolingCase } from '../../lib/check/pooling.js';
import { tensorOf, valuesOf } from '../../lib/check/values.js';
import { TileGrid, tidy, tilePooling } from '../../lib/index.js';
import { layoutOf } from '../../lib/oracle/index.js';
import { expectCase, formats, grids, heads, holds, useGuardedMemory } from './support.js';
import { fresh, here } from '../under-test.js';

useGuardedMemory();

const cases: fc.Arbitrary<PoolingCase> = fc
  .record({ format: formats, counts: heads, grid: grids(120), std: fc.constantFrom(1, 4, 16) })
  .map(({ format, counts, grid, std }) => ({ name: 'random', ...format, ...counts, grid, std }));

test('means and their gradients on any grid', async () => {
  await holds(30, cases, (c) => expectCase(checkPooling, c));
});

test('a constant has itself as its mean, whatever the number of tokens', async () => {
  const options = { tokens: [3, 5, 6], prefix: 67 } as const;
  const grid = new TileGrid(options);
  const { output, dx } = tidy(() => {
    const x = fresh.full([2, grid.length, 1, 64], -1.75, { dtype: 'bfloat16' });
    const forward = tilePooling.forward({ x, grid });
    const gradient = fresh.full(forward.output.shape, 1);
    return { output: forward.output, dx: tilePooling.backward(forward.saved, { output: gradient }).x };
  });
  expect(new Set(await valuesOf(output))).toEqual(new Set([-1.75]));
  // A token's gradient is one over the tokens of its tile, in the format of x.
  const gradients = await valuesOf(dx);
  const { tileOfToken } = layoutOf({ ...options, tile: [4, 4, 4] });
  for (const token of [0, 66, 67, grid.length - 1]) {
    expect(gradients[token * 64]).toBeCloseTo(1 / grid.valid(tileOfToken[token]!), 2);
  }
  output.dispose();
  dx.dispose();
});

test('NaN and infinities stay in their tile, batch and channel', async () => {
  const grid = new TileGrid({ tokens: [4, 8, 5] });
  const values = new Float64Array(2 * grid.length * 2 * 64).fill(1);
  const [batch, token, head] = [1, 4, 1]; // token 4 is the only column of tile 1
  const at = ((batch * grid.length + token) * 2 + head) * 64;
  values.set([NaN, Infinity, -Infinity], at);
  const x = tensorOf(values, [2, grid.length, 2, 64], 'float16', here);
  const output = tidy(() => tilePooling.forward({ x, grid }).output);
  const got = await valuesOf(output);
  const place = ((batch * grid.totalTileCount + 1) * 2 + head) * 64;
  expect([...got.subarray(place, place + 4)]).toEqual([NaN, Infinity, -Infinity, 1]);
  got.fill(1, place, place + 3);
  expect(new Set(got)).toEqual(new Set([1]));
  x.dispose();
  output.dispose();
});

test('sums are kept in float32, beyond what a 16-bit format holds', async () => {
  const grid = new TileGrid({ tokens: [4, 4, 4] });
  const values = new Float64Array(64 * 64).fill(60000); // the sum of 64 is far above float16's largest number
  for (let token = 1; token < 64; token += 2) values.fill(60032, token * 64, (token + 1) * 64);
  const x = tensorOf(values, [1, 64, 1, 64], 'float16', here);
  const output = tidy(() => tilePooling.forward({ x, grid }).output);
  expect(new Set(await valuesOf(output))).toEqual(new Set([60016])); // and the mean lies between two float16
  x.dispose();
  output.dispose();
});
