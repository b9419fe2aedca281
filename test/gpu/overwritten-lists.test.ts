/**
 * Lists are memory that a program can overwrite, and a GPU's kernels go by what is in it: bad ones must be found on the
 * device, told to whoever reads what came of them, and never be a fault.
 */

import {
  blockSparseAttention,
  Tensor,
  tidy,
  TileGrid,
  TileLists,
  tileSelection,
  videoSparseAttention,
} from '../../lib/index.js';
import { useGuardedMemory } from '../attention/support.js';
import { bytesOf, describeGpu, gpu, onGpu, runOnGpu } from './support.js';

const GRID = new TileGrid({ tokens: [4, 4, 12] });
const SHAPE = { batch: 1, heads: 2, queryTiles: 3, keyTiles: 3 };
const OFFSETS = [0, 1, 3, 3, 5, 6, 7];
const INDICES = [0, 1, 2, 0, 1, 2, 1];

type Overwritten = [what: string, offsets: number[] | undefined, indices: number[] | undefined];
const BAD: Overwritten[] = [
  ['offsets past the entries', [0, 1, 3, 3, 5, 6, 8], undefined],
  ['offsets far past the entries', [0, 1, 3, 3, 5, 6, 2 ** 31 - 1], undefined],
  ['offsets past the entries in the middle', [0, 1, 900_000, 900_000, 900_000, 900_000, 900_000], undefined],
  ['descending offsets', [0, 3, 1, 3, 5, 6, 7], undefined],
  ['a negative offset', [-5, 1, 3, 3, 5, 6, 7], undefined],
  ['offsets that begin late', [1, 1, 3, 3, 5, 6, 7], undefined],
  ['offsets that end early', [0, 1, 3, 3, 5, 6, 6], undefined],
  ['offsets that are bits of NaN', new Array<number>(7).fill(-1), undefined],
  ['a row of more entries than key tiles', [0, 7, 7, 7, 7, 7, 7], undefined],
  ['a negative tile', undefined, [0, -1, 2, 0, 1, 2, 1]],
  ['a tile too many', undefined, [0, 1, 3, 0, 1, 2, 1]],
  ['a huge tile', undefined, [0, 1, 2, 0, 2 ** 31 - 1, 2, 1]],
  ['a tile twice', undefined, [0, 1, 1, 0, 1, 2, 1]],
  ['descending tiles', undefined, [0, 2, 1, 0, 1, 2, 1]],
  ['a bad last tile', undefined, [0, 1, 2, 0, 1, 2, -(2 ** 31)]],
];

function overwrite(lists: TileLists, offsets: number[] | undefined, indices: number[] | undefined): void {
  if (offsets !== undefined) lists.offsets!.copyFrom(Int32Array.from(offsets));
  if (indices !== undefined) lists.indices!.copyFrom(Int32Array.from(indices));
}

describeGpu('overwritten lists', () => {
  useGuardedMemory();

  const told = (tensor: Tensor) => expect(tensor.data()).rejects.toMatchObject({ name: 'VsaError', code: 'ERR_LISTS' });

  test.each(BAD)('%s: every operation that takes lists tells it, and all else goes on', async (_, offsets, indices) => {
    const lists = TileLists.from(
      { offsets: Int32Array.from(OFFSETS), indices: Int32Array.from(INDICES) },
      SHAPE,
      onGpu,
    );
    const q = Tensor.randn([1, GRID.length, 2, 64], { seed: 1, ...onGpu });
    const whole = blockSparseAttention.forward({ q, k: q, v: q, grid: GRID, lists });
    const before = await bytesOf(whole.output);
    overwrite(lists, offsets, indices);

    const bits = lists.bits();
    const transposed = lists.transpose();
    const back = transposed.transpose();
    const fine = blockSparseAttention.forward({ q, k: q, v: q, grid: GRID, lists });
    const grads = blockSparseAttention.backward(fine.saved, { output: q });
    // Of the forward that was right, but the lists it saved are overwritten too: they are the same memory.
    const lateGrads = blockSparseAttention.backward(whole.saved, { output: q });
    const vsa = videoSparseAttention.forward({ q, k: q, v: q, grid: GRID, lists, coarse: 'add' });
    const vsaGrads = videoSparseAttention.backward(vsa.saved, { output: q });
    const derived = tidy(() => fine.output.cast('bfloat16').cast('float32'));
    const copied = Tensor.zeros(q.shape, onGpu).copyFrom(fine.output);
    const later = blockSparseAttention.forward({
      q: fine.output,
      k: q,
      v: q,
      grid: GRID,
      lists: TileLists.full(SHAPE, onGpu),
    });

    const failed = [bits, transposed.offsets!, transposed.indices!, back.indices!, fine.output, fine.saved.lse];
    failed.push(grads.q, grads.k, grads.v, lateGrads.q, lateGrads.k, lateGrads.v);
    failed.push(vsa.output, vsaGrads.q, vsaGrads.k, vsaGrads.v, derived, copied, later.output);
    await Promise.all(failed.map(told));
    expect(() => fine.output.dataSync()).toThrow(expect.objectContaining({ code: 'ERR_LISTS' }) as Error);
    await expect(fine.output.toFloat32()).rejects.toMatchObject({ code: 'ERR_LISTS' });
    const onHost = fine.output.to('cpu');
    await expect(onHost.data()).rejects.toMatchObject({ code: 'ERR_LISTS' });
    await gpu.synchronize();

    // What was made before is as it was; and lists that are mended are of use again.
    expect((await bytesOf(whole.output)).equals(before)).toBe(true);
    overwrite(lists, OFFSETS, INDICES);
    const mended = blockSparseAttention.forward({ q, k: q, v: q, grid: GRID, lists });
    expect((await bytesOf(mended.output)).equals(before)).toBe(true);

    for (const one of [lists, q, ...failed, transposed, back, onHost]) one.dispose();
    for (const { output, saved } of [whole, fine, vsa, later, mended]) {
      output.dispose();
      saved.dispose();
    }
  });

  test('with random words for lists, again and again', async () => {
    const q = Tensor.randn([1, GRID.length, 2, 64], { seed: 1, dtype: 'bfloat16', ...onGpu });
    for (let seed = 1; seed <= 30; seed++) {
      const lists = TileLists.from(
        { offsets: Int32Array.from(OFFSETS), indices: Int32Array.from(INDICES) },
        SHAPE,
        onGpu,
      );
      const words = Tensor.randbits([7], { seed, ...onGpu });
      (seed % 2 === 0 ? lists.offsets! : lists.indices!).copyFrom(words);
      const { output, saved } = blockSparseAttention.forward({ q, k: q, v: q, grid: GRID, lists });
      const grads = blockSparseAttention.backward(saved, { output: q });
      await Promise.all([output, grads.q, grads.k, grads.v].map(told));
      for (const one of [lists, words, output, saved, grads.q, grads.k, grads.v]) one.dispose();
    }
    q.dispose();
  });

  test('valid others are taken: fewer entries in some rows, more in others', async () => {
    const arrays = [[0], [], [0, 2], [0, 1, 2], [1], []];
    using lists = TileLists.from(
      { offsets: Int32Array.from(OFFSETS), indices: Int32Array.from(INDICES) },
      SHAPE,
      onGpu,
    );
    using wanted = TileLists.from(arrays, SHAPE, onGpu);
    lists.offsets!.copyFrom(wanted.offsets!);
    lists.indices!.copyFrom(wanted.indices!);
    const q = Tensor.randn([1, GRID.length, 2, 64], { seed: 1, ...onGpu });
    const both = [lists, wanted].map((of) =>
      tidy(() => {
        const { output, saved } = blockSparseAttention.forward({ q, k: q, v: q, grid: GRID, lists: of });
        return [output, blockSparseAttention.backward(saved, { output: q }).k];
      }),
    );
    const [a, b] = await Promise.all(both.map((tensors) => Promise.all(tensors.map(bytesOf))));
    expect(a!.map((bytes, i) => bytes.equals(b![i]!))).toEqual([true, true]);
    for (const one of [q, ...both.flat()]) one.dispose();
  });

  test('lists that were selected, and then overwritten', async () => {
    const pooled = Tensor.randn([1, 3, 2, 64], { seed: 2, ...onGpu });
    const { lists } = tileSelection.forward({ q: pooled, k: pooled, grid: GRID, topK: 2 });
    const q = Tensor.randn([1, GRID.length, 2, 64], { seed: 1, ...onGpu });
    const transposed = lists.transpose();
    tidy(() => void lists.indices!.copyFrom(Tensor.full([12], 2 ** 30, { dtype: 'int32', ...onGpu })));
    tidy(() => void transposed.offsets!.copyFrom(Tensor.full([7], -1, { dtype: 'int32', ...onGpu })));
    const { output, saved } = blockSparseAttention.forward({ q, k: q, v: q, grid: GRID, lists });
    const bits = transposed.bits();
    await Promise.all([output, bits].map(told));
    for (const one of [pooled, lists, q, transposed, output, saved, bits]) one.dispose();
  });
});

describeGpu('lists overwritten behind the back', () => {
  // By an address that was asked for, as another library would.
  test('through their pointer: found, and no fault', async () => {
    const result = await runOnGpu(`
      const grid = new vsa.TileGrid({ tokens: [4, 4, 12] });
      const pooled = vsa.Tensor.randn([1, 3, 2, 64]);
      const { lists } = vsa.tileSelection.forward({ q: pooled, k: pooled, grid, topK: 2 });
      const q = vsa.Tensor.randn([1, grid.length, 2, 64], { seed: 1 });
      const alias = vsa.Tensor.borrow(lists.indices.pointer, [12], { dtype: 'int32' });
      alias.copyFrom(Int32Array.from({ length: 12 }, () => 2 ** 30));
      const { output } = vsa.blockSparseAttention.forward({ q, k: q, v: q, grid, lists });
      const told = await output.data().then(() => 'values', (error) => error.code);
      report([told, (await vsa.Tensor.full([1], 5).data())[0]]);`);
    expect(result).toEqual(['ERR_LISTS', 5]);
  });
});
