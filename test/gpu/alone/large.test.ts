/** Tensors of more than 2^31 elements: looked at in parts, at their beginning, around 2^31 and at their end. */

import {
  blockSparseAttention,
  gatedCombination,
  Tensor,
  tidy,
  tile as toTiles,
  TileGrid,
  TileLists,
  tilePooling,
  untile,
} from '../../../lib/index.js';
import { decodeBfloat16 } from '../../../lib/oracle/index.js';
import { philox4x32 } from '../../../lib/check/philox.js';
import { leaveNothingBehind } from '../../tensor/support.js';
import { bytesOf, describeGpuAlone, gpu, onGpu } from '../support.js';

/** Elements [from, from + count) of a large tensor, as their bytes; `from` in 16-byte steps. */
async function part(x: Tensor, from: number, count: number): Promise<Buffer> {
  const size = x.byteLength / x.size;
  const { ptr } = x.pointer;
  using slice = Tensor.borrow({ ptr: ptr + BigInt(from * size), byteLength: count * size, device: gpu }, [count], {
    dtype: x.dtype,
  });
  return await bytesOf(slice);
}

const COUNT = 2 ** 31 + 4096 + 24;
const PLACES = [0, 2 ** 30, 2 ** 31 - 64, 2 ** 31, 2 ** 31 + 2048, COUNT - 24];

describeGpuAlone('more than 2^31 elements', () => {
  leaveNothingBehind();
  afterEach(() => gpu.synchronize());

  test('full, cast, copy', async () => {
    using x = Tensor.full([2 ** 16, 2 ** 15 + 1], 0, { dtype: 'bfloat16', ...onGpu });
    expect(x.size).toBeGreaterThan(2 ** 31);
    using ones = Tensor.full([COUNT], 1.5, { dtype: 'bfloat16', ...onGpu });
    using halves = ones.cast('float16');
    const patterns = async (of: Tensor, wanted: number) => {
      for (const at of PLACES) {
        const bytes = await part(of, at, 24);
        expect([at, ...new Uint16Array(bytes.buffer, bytes.byteOffset, 24)]).toEqual([
          at,
          ...new Array<number>(24).fill(wanted),
        ]);
      }
    };
    await patterns(ones, 0x3fc0);
    await patterns(halves, 0x3e00);
    tidy(() => void halves.copyFrom(Tensor.full([COUNT], -2, { dtype: 'bfloat16', ...onGpu })));
    await patterns(halves, 0xc000);
  }, 60_000);

  test('random numbers: element i depends on i, beyond 2^31 as before', async () => {
    using bits = Tensor.randbits([COUNT], { seed: 3, ...onGpu });
    for (const at of PLACES) {
      const bytes = await part(bits, at, 8);
      const blocks = [at / 4, at / 4 + 1].map((block) => philox4x32([block, 0, 0, 0], [3, 0]));
      expect([at, ...new Uint32Array(bytes.buffer, bytes.byteOffset, 8)]).toEqual([at, ...blocks.flat()]);
    }
  }, 60_000);

  test('data of all of it', async () => {
    using x = Tensor.randn([COUNT], { seed: 5, dtype: 'bfloat16', ...onGpu });
    const all = (await x.data()) as Uint16Array;
    expect(all.length).toBe(COUNT);
    for (const at of PLACES) {
      const bytes = await part(x, at, 24);
      expect([at, ...all.subarray(at, at + 24)]).toEqual([at, ...new Uint16Array(bytes.buffer, bytes.byteOffset, 24)]);
    }
  }, 60_000);

  // Heads enough that one clip of 32 x 32 x 32 tokens passes 2^31 elements: 4.3 GB a tensor.
  const grid = new TileGrid({ tokens: [32, 32, 32] });
  const [L, H, D] = [grid.length, 1040, 64];
  const tokens = grid.permutation();
  /** Tokens of a tile, in the order of its slots. */
  const tokensOf = (tile: number) => Array.from(tokens.subarray(tile * 64, tile * 64 + 64));
  const SAMPLED = [0, 255, 511];
  /** Of a row's channels every so many are looked at. */
  const STRIDE = 13;

  /** The rows of a tile's tokens, as a small tensor [1, 64, heads, D] on the GPU. */
  async function rowsOf(x: Tensor, tile: number): Promise<Tensor> {
    const row = x.shape[2]! * x.shape[3]!;
    const rows = await Promise.all(tokensOf(tile).map((token) => part(x, token * row, row)));
    const bytes = Buffer.concat(rows);
    const data = new Uint16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    return Tensor.from(data, [1, 64, x.shape[2]!, x.shape[3]!], { dtype: x.dtype, ...onGpu });
  }

  /** Whether rows of bfloat16 are those of a small call: the same arithmetic, but a sum may be cut in another way. */
  function expectNear(name: string, tile: number, got: Tensor, small: Tensor): void {
    expect(got.shape).toEqual(small.shape);
    const [bits, wanted] = [got.dataSync(), small.dataSync()];
    let [error, largest] = [0, 0];
    for (let i = 0; i < wanted.length; i += STRIDE) {
      const value = decodeBfloat16(wanted[i]!);
      largest = Math.max(largest, Math.abs(value));
      error = Math.max(error, Math.abs(value - decodeBfloat16(bits[i]!)));
    }
    const found = { name, tile, far: !(error <= 2 ** -7 * largest), some: largest > 0 };
    expect(found).toEqual({ name, tile, far: false, some: true });
  }

  test('tile and untile: rows in their places, and back', async () => {
    using x = Tensor.randn([1, L, H, D], { seed: 7, dtype: 'bfloat16', ...onGpu });
    using tiled = tidy(() => toTiles.forward({ x, grid }).output);
    using back = tidy(() => untile.forward({ x: tiled, grid }).output);
    for (const tile of SAMPLED) {
      using rows = await rowsOf(x, tile);
      using again = await rowsOf(back, tile);
      const wanted = await bytesOf(rows);
      expect((await part(tiled, tile * 64 * H * D, 64 * H * D)).equals(wanted)).toBe(true);
      expect((await bytesOf(again)).equals(wanted)).toBe(true);
    }
  }, 60_000);

  // Of a tile nothing but its own rows are needed: a small call must give the same.
  test('gatedCombination, forward and backward', async () => {
    const random = (seed: number) => Tensor.randn([1, L, H, D], { seed, dtype: 'bfloat16', ...onGpu });
    const large = { fine: random(1), coarseGate: random(2), fineGate: random(3) };
    using coarse = Tensor.randn([1, grid.totalTileCount, H, D], { seed: 4, ...onGpu });
    using d = random(5);
    const { output, saved } = gatedCombination.forward({ ...large, coarse, grid });
    const grads = gatedCombination.backward(saved, { output: d });
    const one = new TileGrid({ tokens: [4, 4, 4] });
    for (const tile of SAMPLED) {
      using fine = await rowsOf(large.fine, tile);
      using coarseGate = await rowsOf(large.coarseGate, tile);
      using fineGate = await rowsOf(large.fineGate, tile);
      using sd = await rowsOf(d, tile);
      const bytes = await part(coarse, tile * H * D, H * D);
      const values = new Float32Array(bytes.buffer, bytes.byteOffset, H * D);
      using pooled = Tensor.from(values, [1, 1, H, D], onGpu);
      const small = tidy(() => {
        const forward = gatedCombination.forward({ fine, coarseGate, fineGate, coarse: pooled, grid: one });
        return { output: forward.output, ...gatedCombination.backward(forward.saved, { output: sd }) };
      });
      const big = { output, fine: grads.fine, coarseGate: grads.coarseGate!, fineGate: grads.fineGate! };
      for (const name of ['output', 'fine', 'coarseGate', 'fineGate'] as const) {
        using rows = await rowsOf(big[name], tile);
        const wanted = await bytesOf(small[name]!); // nothing is added up over rows: the same bits
        expect([name, tile, (await bytesOf(rows)).equals(wanted)]).toEqual([name, tile, true]);
      }
      const sums = await part(grads.coarse!, tile * H * D, H * D);
      const wanted = (await small.coarse!.data()) as Float32Array;
      let far = 0;
      for (let i = 0; i < wanted.length; i++) if (!(Math.abs(sums.readFloatLE(4 * i) - wanted[i]!) < 1e-4)) far++;
      expect([tile, far]).toEqual([tile, 0]);
      for (const made of Object.values(small)) made.dispose();
    }
    for (const made of [large.fine, large.coarseGate, large.fineGate, output, saved]) made.dispose();
    for (const made of [grads.fine, grads.coarse!, grads.coarseGate!, grads.fineGate!]) made.dispose();
  }, 120_000);

  test('tilePooling, forward and backward', async () => {
    using x = Tensor.randn([1, L, H, D], { seed: 1, dtype: 'bfloat16', ...onGpu });
    expect(x.size).toBeGreaterThan(2 ** 31);
    const { output, saved } = tilePooling.forward({ x, grid });
    const { x: dx } = tilePooling.backward(saved, { output });
    for (const tile of SAMPLED) {
      using rows = await rowsOf(x, tile);
      const bits = rows.dataSync();
      const bytes = await part(output, tile * H * D, H * D);
      const pooled = new Float32Array(bytes.buffer, bytes.byteOffset, H * D);
      let worst = 0;
      for (let i = 0; i < H * D; i += STRIDE) {
        let sum = 0;
        for (let slot = 0; slot < 64; slot++) sum += decodeBfloat16(bits[slot * H * D + i]!);
        worst = Math.max(worst, Math.abs(sum / 64 - pooled[i]!));
      }
      expect(worst).toBeLessThan(1e-6);
      using gradient = await rowsOf(dx, tile);
      const gradientBits = gradient.dataSync();
      let far = 0;
      for (let slot = 0; slot < 64; slot++) {
        for (let i = 0; i < H * D; i += STRIDE) {
          const wanted = pooled[i]! / 64;
          if (Math.abs(decodeBfloat16(gradientBits[slot * H * D + i]!) - wanted) > 2 ** -8 * Math.abs(wanted)) far++;
        }
      }
      expect(far).toBe(0);
    }
    for (const one of [output, saved, dx]) one.dispose();
  }, 120_000);

  // Every query tile attends to its own: then a tile is a problem by itself, and a small call must give the same.
  test.each(['auto', 'cuda'] as const)(
    'blockSparseAttention, forward and backward, backend %s',
    async (backend) => {
      const random = (heads: number, seed: number) =>
        Tensor.randn([1, L, heads, D], { seed, dtype: 'bfloat16', ...onGpu });
      const [q, k, v, d] = [random(H, 1), random(1, 2), random(1, 3), random(H, 4)];
      expect(q.size).toBeGreaterThan(2 ** 31);
      const N = grid.totalTileCount;
      const own = {
        offsets: Int32Array.from({ length: H * N + 1 }, (_, i) => i),
        indices: Int32Array.from({ length: H * N }, (_, i) => i % N),
      };
      using lists = TileLists.from(own, { batch: 1, heads: H, queryTiles: N, keyTiles: N }, onGpu);
      const { output, saved } = blockSparseAttention.forward({ q, k, v, grid, lists, backend });
      const grads = blockSparseAttention.backward(saved, { output: d });
      const one = new TileGrid({ tokens: [4, 4, 4] });
      for (const tile of SAMPLED) {
        const [sq, sk, sv, sd] = (await Promise.all([q, k, v, d].map((x) => rowsOf(x, tile)))) as [
          Tensor,
          Tensor,
          Tensor,
          Tensor,
        ];
        const small = tidy(() => {
          const full = TileLists.full({ batch: 1, heads: H, queryTiles: 1, keyTiles: 1 }, onGpu);
          const forward = blockSparseAttention.forward({ q: sq, k: sk, v: sv, grid: one, lists: full, backend });
          const { q: dq, k: dk, v: dv } = blockSparseAttention.backward(forward.saved, { output: sd });
          return { output: forward.output, dq, dk, dv };
        });
        const big = { output, dq: grads.q, dk: grads.k, dv: grads.v };
        for (const name of ['output', 'dq', 'dk', 'dv'] as const) {
          using rows = await rowsOf(big[name], tile);
          expectNear(name, tile, rows, small[name]);
          small[name].dispose();
        }
        for (const x of [sq, sk, sv, sd]) x.dispose();
      }
      for (const x of [q, k, v, d, output, saved, grads.q, grads.k, grads.v]) x.dispose();
    },
    120_000,
  );
});
