import { annealedSparsity, Tensor, tidy, topK } from '../../lib/index.js';
import type { VideoDiTOptions } from '../../lib/models/config.js';
import { failureOf, leaveNothingBehind } from '../tensor/support.js';
import { fresh } from '../under-test.js';
import { bitsOf, inputsOf, numbersOf, relativeL2, tinyModel } from './support.js';

leaveNothingBehind();

// Three times two tiles, some of them partial.
const SIZES = { tokens: [4, 7, 11], context: { tokens: 3, width: 8 } } as const;
const dense = (options: Partial<VideoDiTOptions> = {}) => tinyModel({ ...SIZES, ...options }, 5);
const sparse = (options: Partial<VideoDiTOptions> = {}) =>
  tinyModel({ ...SIZES, attention: 'vsa', topK: 1, ...options }, 6);

test.each([
  ['float32', false],
  ['float32', true],
  ['bfloat16', true],
  ['float16', false],
] as const)('an adapted model gives the dense output in %s (fine gate: %s)', (dtype, fineGate) => {
  tidy(() => {
    const [from, model] = [dense({ dtype }), sparse({ dtype, fineGate })];
    expect(model.adapt(from.parameters())).toBe(model);
    expect(model.topK).toBe(6);
    const inputs = inputsOf(from, { batch: 2 });
    const error = relativeL2(numbersOf(model.forward(inputs)), numbersOf(from.forward(inputs)));
    expect(error).toBeLessThan({ float32: 1e-6, bfloat16: 1e-2, float16: 1e-3 }[dtype]);
  });
});

test('the coarse gate learns from its zero, and K shrinks as the recipe says', () => {
  tidy(() => {
    const model = sparse().adapt(dense().parameters());
    const output = model.forward(inputsOf(model));
    output.backward(fresh.randn(output.shape, { seed: 1 }));
    const gate = model.parameters().get('blocks.0.attention.coarseGate.weight')!;
    expect(new Set(numbersOf(gate))).toEqual(new Set([0]));
    expect(numbersOf(gate.grad!).every((value) => value !== 0)).toBe(true);
    const kept = [0, 50, 100, 1000].map((step) => {
      model.topK = topK(model.grid, { sparsity: annealedSparsity(step, { target: 0.5, rate: 0.2 }) });
      return model.topK;
    });
    expect(kept).toEqual([6, 5, 4, 3]);
  });
});

test.each<[string, (values: Map<string, Tensor>) => unknown, RegExp]>([
  [
    'a gate',
    (values) => values.set('blocks.1.attention.coarseGate.bias', values.get('patch.bias')!),
    /^an entry for 'blocks.1.attention.coarseGate.bias'$/,
  ],
  ['a missing weight', (values) => values.delete('blocks.1.ffn.0.weight'), /^no entry for 'blocks.1.ffn.0.weight'$/],
  ['another weight', (values) => values.set('blocks.2.modulation', values.get('patch.bias')!), /^an entry for/],
])('a dense checkpoint with %s is a typed error, and nothing has changed', async (_, edit, got) => {
  using from = dense();
  using model = sparse();
  const before = bitsOf(model.parameters());
  const values = from.parameters();
  edit(values);
  const error = await failureOf(() => model.adapt(values));
  expect(error).toMatchObject({ code: 'ERR_ARGUMENT', got: expect.stringMatching(got) as string });
  expect(bitsOf(model.parameters())).toEqual(before);
  expect(model.topK).toBe(1);
});

test('a model of full attention cannot be adapted, nor one from what is no Map', async () => {
  using from = dense();
  expect(await failureOf(() => from.adapt(from.parameters()))).toMatchObject({
    ...{ code: 'ERR_ARGUMENT', argument: 'this', got: 'a model of full attention', wanted: "attention: 'vsa'" },
  });
  using model = sparse();
  const error = await failureOf(() => model.adapt([] as unknown as Map<string, Tensor>));
  expect(error).toMatchObject({ code: 'ERR_ARGUMENT', argument: 'dense', got: '[]' });
});
