/** Values on their way between the host, the CPU's memory and a GPU's: all of them, and in order. */

import {
  blockSparseAttention,
  denseAttention,
  type DType,
  memory,
  Tensor,
  tidy,
  TileGrid,
  TileLists,
} from '../../lib/index.js';
import { failureOf, leaveNothingBehind } from '../tensor/support.js';
import { bytesOf, cpu, describeGpu, gpu, onCpu, onGpu } from './support.js';

const DTYPES: readonly DType[] = ['float32', 'bfloat16', 'float16', 'int32'];
/** Bytes: none, one element, odd, a slab of pinned memory and its neighbours, several slabs and a rest. */
const SLAB = 4 * 2 ** 20;
const BYTES = [0, 4, 12, 4 * 4095, SLAB - 4, SLAB, SLAB + 4, 9 * 2 ** 20 + 12];

/** Random numbers of a dtype on the CPU. */
function random(dtype: DType, count: number, seed: number): Tensor {
  return dtype === 'int32'
    ? Tensor.randbits([count], { seed, ...onCpu })
    : Tensor.randn([count], { seed, dtype, ...onCpu });
}

describeGpu('transfers', () => {
  leaveNothingBehind();

  test.each(DTYPES)('%s of every size: to the GPU, back, and read there', async (dtype) => {
    for (const bytes of BYTES) {
      const count = bytes / (dtype === 'float32' || dtype === 'int32' ? 4 : 2) + (bytes === 9 * 2 ** 20 + 12 ? 1 : 0);
      using x = random(dtype, count, bytes);
      using there = x.to(gpu);
      using back = there.to('cpu');
      using uploaded = Tensor.from(x.dataSync() as Float32Array, undefined, { dtype, ...onGpu });
      const wanted = await bytesOf(x);
      expect([there.device, there.dtype, there.size, back.device]).toEqual([gpu, dtype, count, cpu]);
      for (const copy of [there, back, uploaded]) expect((await bytesOf(copy)).equals(wanted)).toBe(true);
      const { buffer, byteOffset, byteLength } = there.dataSync();
      expect(Buffer.from(buffer, byteOffset, byteLength).equals(wanted)).toBe(true);
      const host = x.dataSync() as Float32Array;
      using target = Tensor.zeros([count], { dtype, ...onGpu }).copyFrom(host);
      expect((await bytesOf(target)).equals(wanted)).toBe(true);
    }
  });

  test('to the device it is on: the memory is shared', () => {
    using x = Tensor.full([8], 1, onGpu);
    using y = x.to(gpu);
    expect(memory().numBytes).toBe(32);
    x.copyFrom(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8));
    expect(y.dataSync()[7]).toBe(8);
  });

  test('in order with operations and writes on both devices', async () => {
    const count = 9 * 2 ** 18 + 3;
    using x = Tensor.zeros([count], onGpu);
    using onHost = Tensor.zeros([count], onCpu);
    const reads: Promise<unknown>[] = [];
    const ends = (tensor: Tensor) => tensor.data().then((data) => [data[0], data[count - 1]]);
    for (let i = 1; i <= 12; i++) {
      if (i % 3 === 0) x.copyFrom(new Float32Array(count).fill(i));
      else if (i % 3 === 1)
        tidy(() => void x.copyFrom(Tensor.full([count], i, { dtype: 'bfloat16', ...onGpu }).cast('float32')));
      else x.copyFrom(Float64Array.from({ length: count }, () => i));
      using moved = x.to('cpu');
      onHost.copyFrom(moved); // on the CPU's queue, behind the copy
      using again = onHost.to(gpu);
      reads.push(ends(x), ends(moved), ends(onHost), ends(again));
    }
    const wanted = Array.from({ length: 48 }, (_, i) => [1 + Math.floor(i / 4), 1 + Math.floor(i / 4)]);
    expect(await Promise.all(reads)).toEqual(wanted);
  });

  test('waits for the work that makes the values, on either side', async () => {
    const q = Tensor.randn([1, 1024, 2, 64], { seed: 1, ...onCpu });
    const slow = denseAttention.forward({ q, k: q, v: q });
    using there = slow.output.to(gpu);
    expect((await bytesOf(there)).equals(await bytesOf(slow.output))).toBe(true);
    const big = Tensor.randn([1, 8192, 8, 128], { seed: 1, ...onGpu });
    const busy = denseAttention.forward({ q: big, k: big, v: big });
    using back = busy.output.to('cpu');
    using cast = back.cast('bfloat16');
    using wanted = busy.output.cast('bfloat16');
    expect((await bytesOf(cast)).equals(await bytesOf(wanted))).toBe(true);
    for (const one of [q, big, slow.output, slow.saved, busy.output, busy.saved]) one.dispose();
  });

  test('disposed at once: the copy is whole', async () => {
    const copies = Array.from({ length: 20 }, (_, i) =>
      tidy(() => Tensor.full([500_001], i, onGpu).to('cpu').to(gpu).to('cpu')),
    );
    for (const [i, copy] of copies.entries()) {
      expect((await copy.data()).every((value) => value === i)).toBe(true);
      copy.dispose();
    }
  });

  test('lists: the same, of use there, and full ones', async () => {
    const grid = new TileGrid({ tokens: [4, 4, 12] });
    const arrays = [[0], [1, 2], [], [0, 1], [2], [1]];
    const shape = { batch: 1, heads: 2, queryTiles: 3, keyTiles: 3 };
    using lists = TileLists.from(arrays, shape, onCpu);
    using there = lists.to(gpu);
    using back = there.to('cpu');
    expect([there.device, there.offsets!.device, there.indices!.device, back.device]).toEqual([gpu, gpu, gpu, cpu]);
    expect(await Promise.all([there.toArrays(), back.toArrays()])).toEqual([arrays, arrays]);
    const q = Tensor.randn([1, grid.length, 2, 64], onGpu);
    using direct = TileLists.from(arrays, shape, onGpu);
    const attend = (of: TileLists) =>
      tidy(() => blockSparseAttention.forward({ q, k: q, v: q, grid, lists: of }).output);
    const [a, b] = [attend(there), attend(direct)];
    expect((await bytesOf(a)).equals(await bytesOf(b))).toBe(true);
    using full = TileLists.full(shape, onCpu);
    using fullThere = full.to(gpu);
    expect([fullThere.isFull, fullThere.device]).toEqual([true, gpu]);
    for (const one of [q, a, b]) one.dispose();
  });

  test('what cannot be mixed', async () => {
    using x = Tensor.full([4], 1, onGpu);
    using y = Tensor.full([4], 2, onCpu);
    for (const [target, source] of [
      [x, y],
      [y, x],
    ] as const) {
      const failure = await failureOf(() => target.copyFrom(source));
      expect(failure).toMatchObject({ code: 'ERR_DEVICE', argument: 'source' });
    }
    const gone = x.clone();
    gone.dispose();
    expect(await failureOf(() => gone.to('cpu'))).toMatchObject({ code: 'ERR_DISPOSED' });
    expect(await failureOf(() => x.to('cuda:12'))).toMatchObject({ code: 'ERR_DEVICE' });
    expect([...x.dataSync(), ...y.dataSync()]).toEqual([1, 1, 1, 1, 2, 2, 2, 2]);
  });
});
