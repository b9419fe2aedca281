/** Hopper's own kernels beside the portable ones: who serves what, and lists and grids that the check has none of. */

import {
  backends,
  blockSparseAttention,
  denseAttention,
  Tensor,
  TileGrid,
  TileLists,
  tidy,
  tilePooling,
  type VsaError,
} from '../../lib/index.js';
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
  for (const [i, value] of x.entries()) {
    difference += (value - y[i]!) ** 2;
    norm += y[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}

/** Both kinds of kernels round P, dS and the results to bfloat16, differently. */
async function agree(call: Call, limit = 2 ** -8) {
  const [own, portable] = (['sm90', 'cuda'] as const).map((backend) =>
    blockSparseAttention.forward({ ...call, backend }),
  ) as [ReturnType<typeof blockSparseAttention.forward>, ReturnType<typeof blockSparseAttention.forward>];
  expect(await l2(own.output, portable.output)).toBeLessThan(limit);
  const [lse, wanted] = [await own.saved.lse.data(), await portable.saved.lse.data()];
  for (const [i, value] of wanted.entries()) {
    if (Number.isFinite(value)) expect(Math.abs(lse[i]! - value)).toBeLessThan(1e-3 + 1e-5 * Math.abs(value));
    else expect(lse[i]).toBe(value);
  }
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

    test('1,000 repetitions have the same bits', async () => {
      const grid = new TileGrid({ tokens: [9, 14, 18] });
      const [N, H] = [grid.totalTileCount, 8];
      const draw = numbers(5);
      using lists = listsOf(H, N, N, () => below(N).filter(() => draw(N) < draw(N) / 2));
      using q = Tensor.randn([1, grid.length, H, D], { ...onGpu, dtype: 'bfloat16', seed: 4 });
      using first = tidy(() => blockSparseAttention.forward({ q, k: q, v: q, grid, lists, backend: 'sm90' }).output);
      const wanted = await bytesOf(first);
      for (let batch = 0; batch < 40; ++batch) {
        const outputs = tidy(() =>
          below(25).map(() => blockSparseAttention.forward({ q, k: q, v: q, grid, lists, backend: 'sm90' }).output),
        );
        for (const output of outputs) {
          expect((await bytesOf(output)).equals(wanted)).toBe(true);
          output.dispose();
        }
      }
    });
  });

  test.each([64, 128])('1,000 backwards have the same bits: D = %d', async (D) => {
    const grid = new TileGrid({ tokens: [9, 14, 18] });
    const [N, H] = [grid.totalTileCount, 8];
    const draw = numbers(5);
    using lists = listsOf(H, N, N, () => below(N).filter((j) => j === 3 || draw(N) < draw(N) / 2)); // 3: cut into parts
    using q = Tensor.randn([1, grid.length, H, D], { ...onGpu, dtype: 'bfloat16', seed: 4 });
    const { output, saved } = blockSparseAttention.forward({ q, k: q, v: q, grid, lists, backend: 'sm90' });
    const run = () => {
      const grads = blockSparseAttention.backward(saved, { output: q });
      return [grads.q, grads.k, grads.v];
    };
    let wanted: Buffer[] = [];
    for (let time = 0; time < 1000; ++time) {
      const grads = run();
      const bytes = await Promise.all(grads.map(bytesOf));
      if (time === 0) wanted = bytes;
      else expect(bytes.every((x, i) => x.equals(wanted[i]!))).toBe(true);
      grads.forEach((held) => held.dispose());
    }
    [output, saved].forEach((held) => held.dispose());
  });

  test('4,096 tiles, 262,144 tokens', async () => {
    const grid = new TileGrid({ tokens: [64, 64, 64] });
    const draw = numbers(9);
    using lists = listsOf(1, 4096, 4096, (_, i) => [...new Set([i, draw(4096), draw(4096)])].sort((a, b) => a - b));
    using q = Tensor.randn([1, grid.length, 1, 128], { ...onGpu, dtype: 'bfloat16', seed: 6 });
    await agree({ q, k: q, v: q, grid, lists });
  });
});
