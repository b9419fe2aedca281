import fc from 'fast-check';
import { orderCode } from '../../lib/attention/checks.js';
import { native } from '../../lib/binding.js';
import { checkCombination, type CombinationCase } from '../../lib/check/combination.js';
import { tensorOf, valuesOf } from '../../lib/check/values.js';
import { gatedCombination, type Tensor, TileGrid, tidy } from '../../lib/index.js';
import { dtypeCode } from '../../lib/tensor/dtype.js';
import { handleOf } from '../../lib/tensor/tensor.js';
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

test('the addon takes no combination that lacks a part', () => {
  tidy(() => {
    const [fine, gate, output] = [constant(1), constant(2), constant(0)];
    const [coarse, lse] = [constant(3, [1, 1, 1, 64]), constant(0, [1, 1, 6])];
    const handle = (tensor: Tensor) => handleOf(tensor, 'x');
    const dims = { B: 1, H: 1, D: 64, dtype: dtypeCode('float32'), order: orderCode('grid') };
    const common = { ...dims, Hkv: 1, qGrid: grid.native(), kvGrid: grid.native(), scale: 1, kernels: 0 };
    const tensors = { q: handle(fine), k: handle(fine), v: handle(fine), output: handle(output), lse: handle(lse) };
    const forward = (more: object) => () => {
      native().fineForward({ ...common, ...tensors, lists: undefined, ...more });
    };
    expect(forward({ fineGate: handle(gate) })).toThrow('a combination needs an output');
    expect(forward({ coarse: handle(coarse) })).toThrow('a combination needs an output');
    const combined = handle(constant(0));
    expect(forward({ combined, coarseGate: handle(gate) })).toThrow('a coarse gate needs a coarse output');
    expect(forward({ combined, coarse: handle(constant(0, [1, 1, 1, 8])) })).toThrow('coarse');

    const backward = (more: object) => () => {
      native().combinationBackward({
        ...dims,
        grid: grid.native(),
        doutput: handle(fine),
        delta: handle(lse),
        ...more,
      });
    };
    const ofGate = { fine: handle(fine), fineGate: handle(gate), dfineGate: handle(constant(0)) };
    expect(backward({})).toThrow('delta needs the fine output');
    expect(backward(ofGate)).toThrow('delta needs the fine output');
    expect(backward({ fine: handle(fine), delta: handle(constant(0, [1, 1, 5])) })).toThrow('delta');
  });
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
