/** Hopper's own kernels beside the portable ones: who serves what, and lists and grids that the check has none of. */

import {
  backends,
  blockSparseAttention,
  coarseAttention,
  denseAttention,
  type DType,
  gatedCombination,
  type Order,
  Tensor,
  TileGrid,
  TileLists,
  tidy,
  tilePooling,
  tileSelection,
  videoSparseAttention,
  type VsaError,
} from '../../lib/index.js';
import { ops } from '../../lib/nn/index.js';
import { failureOf, leaveNothingBehind } from '../tensor/support.js';
import { bytesOf, describeHopper, gpu, onGpu } from './support.js';

type Gradients = ReturnType<typeof blockSparseAttention.backward>;
type Call = Omit<Parameters<typeof blockSparseAttention.forward>[0], 'backend'>;

/** Lists of a rule for every row: (head, row) to key tiles. */
function listsOf(heads: number, rows: number, columns: number, rule: (head: number, row: number) => number[]) {
  const lists = [];
  for (let h = 0; h < heads; ++h) for (let i = 0; i < rows; ++i) lists.push(rule(h, i));
  return TileLists.from(lists, { batch: 1, heads, queryTiles: rows, keyTiles: columns }, onGpu);
}

/** Deterministic whole numbers below n. */
function numbers(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

const below = (n: number) => Array.from({ length: n }, (_, i) => i);

async function values(tensor: Tensor): Promise<Float32Array> {
  using wide = tensor.cast('float32');
  return (await wide.data()) as Float32Array;
}

async function l2(a: Tensor, b: Tensor): Promise<number> {
  const [x, y] = [await values(a), await values(b)];
  let [difference, norm] = [0, 0];
  for (let i = 0; i < x.length; ++i) {
    difference += (x[i]! - y[i]!) ** 2;
    norm += y[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}

interface Inputs extends Call {
  readonly grid: TileGrid;
  readonly lists: TileLists;
  /** The gradient of the output. */
  readonly d: Tensor;
}

/** Random inputs of so many heads. */
function inputsOf(order: Order, dtype: DType, D: number, H: number, grid: TileGrid, lists: TileLists): Inputs {
  const [q, k, v, d] = [1, 2, 3, 4].map((seed) =>
    Tensor.randn([1, grid.rows(order), H, D], { ...onGpu, dtype, seed }),
  ) as [Tensor, Tensor, Tensor, Tensor];
  return { q, k, v, d, grid, lists, order };
}

/**
 * Full lists of 24 pairs of key tiles (the last one of a single tile) in each of 48 heads: dK and dV go by pairs where
 * every SM has eight or more (pairs_key_tiles in csrc/cuda/sm90/fine_backward.cu), so up to 144 SMs.
 */
function inPairs(order: Order, dtype: DType, D: number): Inputs {
  const [grid, H] = [new TileGrid({ tokens: [9, 9, 17], prefix: 70 }), 48];
  const N = grid.totalTileCount;
  expect(Math.ceil(N / 2) * H).toBeGreaterThanOrEqual(8 * 144);
  return inputsOf(order, dtype, D, H, grid, TileLists.full({ batch: 1, heads: H, queryTiles: N, keyTiles: N }, onGpu));
}

/** Lists of every length; key tile 3 is in all of them, and what it gets is cut into parts. */
function inParts(order: Order, dtype: DType, D: number): Inputs {
  const [grid, H] = [new TileGrid({ tokens: [9, 14, 18] }), 8];
  const N = grid.totalTileCount;
  const draw = numbers(5);
  const lists = listsOf(H, N, N, () => below(N).filter((j) => j === 3 || draw(N) < draw(N) / 2));
  return inputsOf(order, dtype, D, H, grid, lists);
}

function disposeAll(...held: readonly { dispose(): void }[]): void {
  for (const one of held) one.dispose();
}

/** Both kinds of kernels round P, dS and the results to bfloat16, differently. */
async function agree(call: Call, limit = 2 ** -8) {
  const [own, portable] = (['sm90', 'cuda'] as const).map((backend) =>
    blockSparseAttention.forward({ ...call, backend }),
  ) as [ReturnType<typeof blockSparseAttention.forward>, ReturnType<typeof blockSparseAttention.forward>];
  expect(await l2(own.output, portable.output)).toBeLessThan(limit);
  const [lse, wanted] = [await own.saved.lse.data(), await portable.saved.lse.data()];
  const { abs } = Math; // by name: a look-up of a global in every step of a loop is slow in Jest's sandbox
  const far = lse.findIndex((x, i) => x !== wanted[i] && !(abs(x - wanted[i]!) < 1e-3 + 1e-5 * abs(wanted[i]!)));
  expect([far, lse[far], wanted[far]]).toEqual([-1, undefined, undefined]);
  using output = Tensor.randn(call.q.shape, { ...onGpu, dtype: call.q.dtype, seed: 11 });
  const [grads, wantedGrads] = [own, portable].map(({ saved }) => blockSparseAttention.backward(saved, { output })) as [
    Gradients,
    Gradients,
  ];
  for (const name of ['q', 'k', 'v'] as const) {
    expect(await l2(grads[name], wantedGrads[name])).toBeLessThan(2 * limit);
    [grads[name], wantedGrads[name]].forEach((held) => held.dispose());
  }
  for (const one of [own, portable]) [one.output, one.saved].forEach((held) => held.dispose());
}

describeHopper("Hopper's own kernels", () => {
  leaveNothingBehind();

  test('serve fine attention, and nothing else', () => {
    const serving = backends(gpu).filter(({ backend, serves }) => backend === 'sm90' && serves);
    expect(serving.map(({ operation }) => operation)).toEqual([
      ...['blockSparseAttention', 'denseAttention', 'videoSparseAttention'],
    ]);
  });

  test('forced, they say what they do not take', async () => {
    const grid = new TileGrid({ tokens: [4, 4, 8] });
    const cases = [
      ['float32', 64, 0.1, 'bfloat16 and float16, the tensors are float32'],
      ['bfloat16', 96, 0.1, 'head dims 64 and 128, this is 96'],
      ['float16', 64, -0.1, 'a scale above 0, this is -0.1'],
    ] as const;
    for (const [dtype, D, scale, why] of cases) {
      using q = Tensor.zeros([1, 128, 1, D], { ...onGpu, dtype });
      const failure = await failureOf(() => denseAttention.forward({ q, k: q, v: q, scale, backend: 'sm90' }));
      expect(failure).toMatchObject({ code: 'ERR_BACKEND', argument: 'backend' });
      expect((failure as VsaError).message).toContain(why);
    }
    using x = Tensor.zeros([1, 128, 1, 64], { ...onGpu, dtype: 'bfloat16' });
    const failure = await failureOf(() => tilePooling.forward({ x, grid, backend: 'sm90' }));
    expect(failure).toMatchObject({ code: 'ERR_BACKEND', argument: 'backend' });
    expect((failure as VsaError).message).toContain('fine attention');
  });

  // What the dispatcher makes of them on 132 SMs; heads at D = 64 and at 128.
  const shapes = [
    ['few tiles, in parts', [4, 8, 8], { 64: 1, 128: 1 }, 1],
    ['pairs', [12, 12, 12], { 64: 20, 128: 15 }, 5],
    ['triples, or quads', [12, 16, 20], { 64: 12, 128: 6 }, 2],
    ['partial tiles', [9, 10, 13], { 64: 12, 128: 12 }, 12],
  ] as const;
  const kinds = ['full', 'ragged', 'empty', 'hub', 'disjoint'] as const;
  describe.each([64, 128] as const)('D = %d', (D) => {
    test.each(
      shapes.flatMap(([name, tokens, H, Hkv]) => kinds.map((kind) => [name, kind, tokens, H[D], Hkv] as const)),
    )('%s, %s lists: as the portable kernels, in both orders', async (_, kind, tokens, H, Hkv) => {
      const grid = new TileGrid({ tokens, prefix: tokens[0] === 9 ? 70 : 0 });
      const N = grid.totalTileCount;
      const draw = numbers(N * 31 + D);
      using lists =
        kind === 'full'
          ? TileLists.full({ batch: 1, heads: H, queryTiles: N, keyTiles: N }, onGpu)
          : listsOf(H, N, N, (_head, i) => {
              if (kind === 'ragged') return below(N).filter(() => draw(N) < draw(N));
              if (kind === 'empty') return draw(2) === 0 ? [] : [draw(N)];
              if (kind === 'hub') return i % 4 === 1 ? below(N).filter((j) => j === 0 || draw(10) < 9) : [0];
              return below(N).filter((j) => j % 2 === i % 2 && draw(3) === 0);
            });
      for (const [order, dtype] of [
        ['grid', 'bfloat16'],
        ['tiled', 'float16'],
      ] as const) {
        const random = (heads: number, seed: number) =>
          Tensor.randn([1, grid.rows(order), heads, D], { ...onGpu, dtype, seed });
        using q = random(H, 1);
        using k = random(Hkv, 2);
        using v = random(Hkv, 3);
        await agree({ q, k, v, grid, lists, order });
      }
    });

    test.each([
      ['grid', 'bfloat16'],
      ['tiled', 'float16'],
    ] as const)('key tiles in pairs: as the portable kernels, %s order, %s', async (order, dtype) => {
      const { d, ...call } = inPairs(order, dtype, D);
      await agree(call);
      disposeAll(d, call.q, call.k, call.v, call.lists);
    });

    test.each([
      ['sm90', 1000],
      ['cuda', 100],
    ] as const)('forwards have the same bits: %s, %i repetitions', async (backend, times) => {
      const grid = new TileGrid({ tokens: [9, 14, 18] });
      const [N, H] = [grid.totalTileCount, 8];
      const draw = numbers(5);
      using lists = listsOf(H, N, N, () => below(N).filter(() => draw(N) < draw(N) / 2));
      using q = Tensor.randn([1, grid.length, H, D], { ...onGpu, dtype: 'bfloat16', seed: 4 });
      using first = tidy(() => blockSparseAttention.forward({ q, k: q, v: q, grid, lists, backend }).output);
      const wanted = await bytesOf(first);
      for (let batch = 0; batch < times / 25; ++batch) {
        const outputs = tidy(() =>
          below(25).map(() => blockSparseAttention.forward({ q, k: q, v: q, grid, lists, backend }).output),
        );
        for (const output of outputs) {
          expect((await bytesOf(output)).equals(wanted)).toBe(true);
          output.dispose();
        }
      }
    });

    test.each([
      ['sm90', 1000],
      ['cuda', 100],
    ] as const)('backwards have the same bits: %s, %i repetitions', async (backend, times) => {
      const { d, ...call } = inParts('grid', 'bfloat16', D);
      const { output, saved } = blockSparseAttention.forward({ ...call, backend });
      let wanted: Buffer[] = [];
      for (let time = 0; time < times; ++time) {
        const { q, k, v } = blockSparseAttention.backward(saved, { output: d });
        const bytes = await Promise.all([q, k, v].map(bytesOf));
        if (time === 0) wanted = bytes;
        else expect(bytes.every((x, i) => x.equals(wanted[i]!))).toBe(true);
        disposeAll(q, k, v);
      }
      disposeAll(d, call.q, call.k, call.v, call.lists, output, saved);
    });

    // Compared on the GPU, since reading all of it would take most of the time: the mean of squared differences, which
    // is summed in float64, is 0 if no value differs.
    test.each([
      ['lists in parts', 'tiled', 'float16'],
      ['key tiles in pairs', 'grid', 'bfloat16'],
      ['key tiles in pairs', 'grid', 'float16'],
      ['key tiles in pairs', 'tiled', 'bfloat16'],
    ] as const)('backwards have the same values: %s, %s order, %s, 200 repetitions', (kind, order, dtype) => {
      const { d, ...call } = (kind === 'lists in parts' ? inParts : inPairs)(order, dtype, D);
      const { output, saved } = blockSparseAttention.forward({ ...call, backend: 'sm90' });
      const first = blockSparseAttention.backward(saved, { output: d });
      for (const name of ['q', 'k', 'v'] as const) {
        using size = tidy(() => ops.sum.forward({ x: first[name] }).output);
        expect(size.item()).not.toBe(0);
      }
      for (let batch = 0; batch < 20; ++batch) {
        const differences = tidy(() =>
          below(10).flatMap(() => {
            const again = blockSparseAttention.backward(saved, { output: d });
            return (['q', 'k', 'v'] as const).map(
              (name) => ops.meanSquaredError.forward({ prediction: again[name], target: first[name] }).output,
            );
          }),
        );
        expect(differences.map((one) => one.item())).toEqual(differences.map(() => 0)); // NaN is none
        disposeAll(...differences);
      }
      disposeAll(d, call.q, call.k, call.v, call.lists, output, saved, first.q, first.k, first.v);
    });
  });

  // The lists of the fine stage are merged while coarse attention runs. Two inputs take turns, so that what was there
  // before is not what is wanted.
  test.each([
    [64, 'tiled'],
    [128, 'tiled'],
    [128, 'grid'],
  ] as const)('the whole operator is its parts, 200 times: D = %i, %s order', (D, order) => {
    const grid = new TileGrid({ tokens: [18, 22, 30], prefix: 5 });
    const cases = [1, 4].map((seed) => {
      const [q, k, v] = [seed, seed + 1, seed + 2].map((one) =>
        Tensor.randn([1, grid.rows(order), 12, D], { ...onGpu, dtype: 'bfloat16', seed: one }),
      ) as [Tensor, Tensor, Tensor];
      const parts = tidy(() => {
        const [pooledQ, pooledK, pooledV] = [q, k, v].map((x) => tilePooling.forward({ x, grid, order }).output);
        const { lists } = tileSelection.forward({ q: pooledQ!, k: pooledK!, grid, topK: 24 });
        const coarse = coarseAttention.forward({ q: pooledQ!, k: pooledK!, v: pooledV! }).output;
        const fine = blockSparseAttention.forward({ q, k, v, grid, order, lists, backend: 'sm90' }).output;
        return gatedCombination.forward({ fine, coarse, grid, order }).output;
      });
      using size = tidy(() => ops.sum.forward({ x: parts }).output);
      expect(size.item()).not.toBe(0);
      return { q, k, v, parts };
    });
    for (let batch = 0; batch < 20; ++batch) {
      const differences = tidy(() => {
        const outputs = below(10).map((i) => {
          const { q, k, v } = cases[i % 2]!;
          const options = { grid, order, topK: 24, coarse: 'add', backend: 'sm90' } as const;
          return videoSparseAttention.forward({ q, k, v, ...options }).output;
        });
        return outputs.map(
          (prediction, i) => ops.meanSquaredError.forward({ prediction, target: cases[i % 2]!.parts }).output,
        );
      });
      expect(differences.map((one) => one.item())).toEqual(differences.map(() => 0));
      disposeAll(...differences);
    }
    for (const { q, k, v, parts } of cases) disposeAll(q, k, v, parts);
  });

  test('4,096 tiles, 262,144 tokens', async () => {
    const grid = new TileGrid({ tokens: [64, 64, 64] });
    const draw = numbers(9);
    using lists = listsOf(1, 4096, 4096, (_, i) => [...new Set([i, draw(4096), draw(4096)])].sort((a, b) => a - b));
    using q = Tensor.randn([1, grid.length, 1, 128], { ...onGpu, dtype: 'bfloat16', seed: 6 });
    await agree({ q, k: q, v: q, grid, lists });
  });
});
