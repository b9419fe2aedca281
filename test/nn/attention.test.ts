import {
  blockSparseAttention as blockSparsePair,
  coarseAttention as coarsePair,
  denseAttention as densePair,
  gatedCombination as combinationPair,
  memory,
  type Tensor,
  tidy,
  tile as tilePair,
  TileGrid,
  tilePooling as poolingPair,
  untile as untilePair,
  videoSparseAttention as sparsePair,
} from '../../lib/index.js';
import * as nn from '../../lib/nn/attention.js';
import { bitsOf } from '../models/support.js';
import { failureOf, leaveNothingBehind } from '../tensor/support.js';
import { fresh } from '../under-test.js';

leaveNothingBehind();

const grid = new TileGrid({ tokens: [4, 6, 8] });
const L = grid.length;
const N = grid.tileCount;
let seed = 0;
const leaf = (shape: readonly number[]): Tensor => {
  const tensor = fresh.randn(shape, { seed: ++seed });
  tensor.requiresGrad = true;
  return tensor;
};
const tokens = (heads = 2) => leaf([2, L, heads, 64]);
const lists = () =>
  fresh.lists(
    Array.from({ length: 4 * N }, (_, i) => (i % 3 === 0 ? [] : [i % N])),
    {
      ...{ batch: 2, heads: 2, queryTiles: N, keyTiles: N },
    },
  );
const qkv = () => ({ q: tokens(), k: tokens(1), v: tokens(1) });

interface Pair<Options> {
  forward(options: Options): { output: Tensor; saved: Disposable };
  backward(saved: never, grads: { output: Tensor }): object;
}

/** A case: the differentiable function, its pair, options, and the options' tensors that have gradients. */
function one<Options>(name: string, fn: (o: Options) => Tensor, pair: Pair<Options>, make: () => [Options, object]) {
  return [name, () => check(fn, pair, ...make())] as const;
}

function check<Options>(fn: (o: Options) => Tensor, pair: Pair<Options>, options: Options, inputs: object): void {
  const { output, saved } = pair.forward(options);
  const gradient = fresh.randn(output.shape, { seed: 99 });
  const wanted = new Map(Object.entries(pair.backward(saved as never, { output: gradient }) as Record<string, Tensor>));
  const found = fn(options);
  expect(bitsOf(new Map([['output', found]]))).toEqual(bitsOf(new Map([['output', output]])));
  found.backward(gradient);
  const leaves = Object.entries(inputs as Record<string, Tensor>);
  expect(leaves.map(([key]) => key).sort()).toEqual([...wanted.keys()].sort());
  expect(bitsOf(new Map(leaves.map(([key, tensor]) => [key, tensor.grad!])))).toEqual(bitsOf(wanted));
}

const sparse = (edit: (rest: { coarseGate: Tensor; fineGate: Tensor }) => [object, object]) => (): [never, object] => {
  const given = qkv();
  const [options, gates] = edit({ coarseGate: tokens(), fineGate: tokens() });
  return [{ ...given, grid, topK: 1, ...options } as never, { ...given, ...gates }];
};

test.each([
  one('denseAttention', nn.denseAttention, densePair, () => {
    const given = qkv();
    return [given, given];
  }),
  one('blockSparseAttention', nn.blockSparseAttention, blockSparsePair, () => {
    const given = qkv();
    return [{ ...given, grid, lists: lists() }, given];
  }),
  one(
    'videoSparseAttention',
    nn.videoSparseAttention,
    sparsePair,
    sparse(() => [{}, {}]),
  ),
  one(
    'with the coarse output added',
    nn.videoSparseAttention,
    sparsePair,
    sparse(() => [{ coarse: 'add' }, {}]),
  ),
  one(
    'with a coarse gate',
    nn.videoSparseAttention,
    sparsePair,
    sparse(({ coarseGate }) => [{ coarse: { gate: coarseGate } }, { coarseGate }]),
  ),
  one(
    'with a fine gate',
    nn.videoSparseAttention,
    sparsePair,
    sparse(({ fineGate }) => [{ fine: { gate: fineGate } }, { fineGate }]),
  ),
  one(
    'with both gates',
    nn.videoSparseAttention,
    sparsePair,
    sparse((gates) => [{ coarse: { gate: gates.coarseGate }, fine: { gate: gates.fineGate } }, gates]),
  ),
  one('gatedCombination', nn.gatedCombination, combinationPair, () => {
    const given = { fine: tokens(), coarse: leaf([2, N, 2, 64]), coarseGate: tokens(), fineGate: tokens() };
    return [{ ...given, grid }, given];
  }),
  one('coarseAttention', nn.coarseAttention, coarsePair, () => {
    const given = { q: leaf([2, N, 2, 64]), k: leaf([2, N, 1, 64]), v: leaf([2, N, 1, 64]) };
    return [given, given];
  }),
  one('tilePooling', nn.tilePooling, poolingPair, () => {
    const x = tokens();
    return [{ x, grid }, { x }];
  }),
  one('tile', nn.tile, tilePair, () => {
    const x = leaf([2, L, 5]);
    return [{ x, grid }, { x }];
  }),
  one('untile', nn.untile, untilePair, () => {
    const x = leaf([2, grid.slots, 5]);
    return [{ x, grid }, { x }];
  }),
])('%s gives the output and the gradients of its pair', (_, run) => {
  tidy(run);
});

test('an observer sees what the forward computed, and the backward runs all the same', () => {
  tidy(() => {
    const given = qkv();
    const seen: nn.AttentionState[] = [];
    const observe = (state: nn.AttentionState) => {
      seen.push(state);
      expect(state.lse.shape).toEqual([2, 2, L]);
      expect(bitsOf(new Map([['q', state.q]]))).toEqual(bitsOf(new Map([['q', given.q]])));
    };
    const output = nn.videoSparseAttention({ ...given, grid, topK: 1, observe });
    nn.denseAttention({ ...given, observe });
    expect(seen.map(({ lists: { isFull } }) => isFull)).toEqual([false, true]);
    output.backward(fresh.full(output.shape, 1));
    expect(given.v.grad).toBeDefined();
  });
});

test('an observer that throws ends the call, and nothing is left', async () => {
  const given = qkv();
  const before = memory();
  const observe = () => {
    throw new Error('enough');
  };
  for (const call of [
    () => nn.videoSparseAttention({ ...given, grid, topK: 1, coarse: 'add', observe }),
    () => nn.denseAttention({ ...given, observe }),
  ]) {
    expect(await failureOf(call)).toMatchObject({ message: 'enough' });
    expect(memory()).toEqual(before);
  }
  for (const tensor of Object.values(given)) tensor.dispose();
});

test('errors are those of the pair', async () => {
  const given = qkv();
  expect(await failureOf(() => nn.videoSparseAttention({ ...given, grid, topK: 0 }))).toMatchObject({
    ...{ code: 'ERR_TOP_K', argument: 'topK' },
  });
  expect(await failureOf(() => nn.denseAttention({ ...given, window: 3 } as never))).toMatchObject({
    ...{ code: 'ERR_ARGUMENT', argument: 'options', got: "the unknown option 'window'" },
  });
  for (const tensor of Object.values(given)) tensor.dispose();
});
