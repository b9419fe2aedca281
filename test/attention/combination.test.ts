import fc from 'fast-check';
import { checkCombination, type CombinationCase } from '../../lib/check/combination.js';
import { tensorOf, valuesOf } from '../../lib/check/values.js';
import { gatedCombination, TileGrid, tidy } from '../../lib/index.js';
import { expectCase, formats, grids, heads, holds, useGuardedMemory } from './support.js';
import { fresh, here } from '../under-test.js';

useGuardedMemory();

const cases: fc.Arbitrary<CombinationCase> = fc
  .record({
    format: formats,
    counts: heads,
    grid: grids(70),
    coarse: fc.constantFrom('none' as const, 'add' as const, 'gate' as const),
    fineGate: fc.boolean(),
  })
  .map(({ format, counts, ...rest }) => ({ name: 'random', ...format, ...counts, ...rest }));

test('the gated sum and the gradient of whatever was given', async () => {
  await holds(40, cases, (c) => expectCase(checkCombination, c));
});

const grid = new TileGrid({ tokens: [1, 2, 3] });
const shape = [1, 6, 1, 64];
const constant = (value: number, of = shape) => fresh.full(of, value);

test('by hand', async () => {
  const { output, grads } = tidy(() => {
    const forward = gatedCombination.forward({
      ...{
        fine: constant(3),
        coarse: constant(5, [1, 1, 1, 64]),
        coarseGate: constant(-2),
        fineGate: constant(7),
        grid,
      },
    });
    return { output: forward.output, grads: gatedCombination.backward(forward.saved, { output: constant(0.5) }) };
  });
  const tensors = { output, ...grads };
  const found: Record<string, number[]> = {};
  for (const [name, tensor] of Object.entries(tensors)) {
    found[name] = [...new Set(await valuesOf(tensor))];
    tensor.dispose();
  }
  // -2 * 5 + 7 * 3; dOf = dO * Gf, dOc = six tokens of dO * Gc, dGc = dO * Oc, dGf = dO * Of
  expect(found).toEqual({ output: [11], fine: [3.5], coarse: [-6], coarseGate: [2.5], fineGate: [1.5] });
});

test('without gates and without a coarse output nothing is changed', async () => {
  const values = Float64Array.from({ length: 6 * 64 }, (_, i) => [NaN, -0, Infinity, 1.5][i % 4]!);
  const fine = tensorOf(values, shape, 'bfloat16', here);
  const { output, grads } = tidy(() => {
    const forward = gatedCombination.forward({ fine, grid });
    return { output: forward.output, grads: gatedCombination.backward(forward.saved, { output: fine }) };
  });
  expect(await valuesOf(output)).toEqual(values);
  expect(await valuesOf(grads.fine)).toEqual(values);
  expect(Object.keys(grads)).toEqual(['fine']);
  for (const resource of [fine, output, grads.fine]) resource.dispose();
});
