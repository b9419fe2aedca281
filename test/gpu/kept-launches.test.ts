/** Parts of an operation, which go to the GPU together: as single launches at first, then as a graph with new arguments. */

import { native } from '../../lib/binding.js';
import { type DType, memory, type Order, Tensor, tidy, TileGrid, videoSparseAttention } from '../../lib/index.js';
import { bitsOfAll } from '../attention/support.js';
import { leaveNothingBehind } from '../tensor/support.js';
import { describeGpu, onGpu } from './support.js';

interface Case {
  tokens: string;
  D: number;
  dtype: DType;
  order: Order;
  coarse: 'skip' | 'add' | 'gate';
  backend: 'auto' | 'cuda';
}

const CASES: readonly Case[] = [
  { tokens: '4x8x8', D: 64, dtype: 'bfloat16', order: 'tiled', coarse: 'gate', backend: 'auto' },
  // The same kernels, more blocks of them.
  { tokens: '9x14x17', D: 64, dtype: 'bfloat16', order: 'tiled', coarse: 'gate', backend: 'auto' },
  { tokens: '9x14x17', D: 128, dtype: 'float16', order: 'grid', coarse: 'add', backend: 'auto' },
  { tokens: '9x14x17', D: 64, dtype: 'bfloat16', order: 'tiled', coarse: 'gate', backend: 'cuda' },
  { tokens: '5x9x10', D: 96, dtype: 'float32', order: 'grid', coarse: 'gate', backend: 'auto' },
  { tokens: '8x8x8', D: 128, dtype: 'bfloat16', order: 'grid', coarse: 'skip', backend: 'auto' },
];

function inputsOf({ tokens, D, dtype, order }: Case, seed: number) {
  const grid = new TileGrid({ tokens });
  const random = (i: number) => Tensor.randn([1, grid.rows(order), 4, D], { ...onGpu, dtype, seed: 10 * seed + i });
  return { grid, q: random(0), k: random(1), v: random(2), gate: random(3), dOutput: random(4) };
}
type Inputs = ReturnType<typeof inputsOf>;

/** Outputs and gradients. */
function step({ order, coarse, backend }: Case, { grid, q, k, v, gate, dOutput }: Inputs): Record<string, Tensor> {
  return tidy(() => {
    const { output, saved } = videoSparseAttention.forward({
      ...{ q, k, v, grid, order, backend, topK: 2 },
      coarse: coarse === 'gate' ? { gate } : coarse,
    });
    return { output, ...videoSparseAttention.backward(saved, { output: dOutput }) };
  });
}

const dispose = ({ grid: _, ...tensors }: Inputs): void => {
  for (const tensor of Object.values(tensors)) tensor.dispose();
};

describeGpu('parts that are launched together', () => {
  leaveNothingBehind();
  afterEach(() => jest.restoreAllMocks());

  test('the same bits however often and after what else they came', async () => {
    const inputs = CASES.map((one, i) => [inputsOf(one, 2 * i), inputsOf(one, 2 * i + 1)] as const);
    const rounds: Record<string, string>[][] = [];
    for (let round = 0; round < 6; round++) {
      const results = CASES.flatMap((one, i) => inputs[i]!.map((input) => step(one, input)));
      const bits = await Promise.all(results.map(bitsOfAll));
      for (const result of results) for (const tensor of Object.values(result)) tensor.dispose();
      rounds.push(bits);
    }
    for (const bits of rounds) expect(bits).toEqual(rounds[0]);
    // Every case and input has its own.
    expect(new Set(rounds[0]!.map(({ output }) => output)).size).toBe(2 * CASES.length);
    inputs.flat().forEach(dispose);
  });

  test.each(['selection', 'fineForward'] as const)(
    'after %s has failed, nothing is left and all goes on',
    async (part) => {
      const [one] = CASES as [Case];
      const inputs = inputsOf(one, 1);
      const bits: Record<string, string>[] = [];
      for (let round = 0; round < 3; round++) {
        const before = memory();
        jest.spyOn(native(), part).mockImplementationOnce(() => {
          throw new Error('this part');
        });
        expect(() => step(one, inputs)).toThrow('this part');
        expect(memory()).toEqual(before);
        const result = step(one, inputs);
        bits.push(await bitsOfAll(result));
        for (const tensor of Object.values(result)) tensor.dispose();
      }
      expect(bits).toEqual([bits[0], bits[0], bits[0]]);
      dispose(inputs);
    },
  );
});
