/** A GPU whose memory is taken to the last piece: typed errors everywhere, and then everything again. */

import { denseAttention, memory, OutOfMemoryError, Tensor, tidy } from '../../../lib/index.js';
import { failureOf, leaveNothingBehind } from '../../tensor/support.js';
import { describeGpuAlone, gpu, onGpu } from '../support.js';

/** Takes the GPU's memory, in pieces that halve, down to one MiB. */
function exhaust(): Tensor[] {
  const held: Tensor[] = [];
  for (let count = 2 ** 30; count >= 2 ** 18; count /= 2) {
    try {
      for (;;) held.push(Tensor.zeros([count], onGpu));
    } catch (error) {
      expect(error).toBeInstanceOf(OutOfMemoryError);
      const { wantedBytes, freeBytes, totalBytes } = error as OutOfMemoryError;
      expect([wantedBytes, totalBytes]).toEqual([4 * count, gpu.memory().totalBytes]);
      expect(freeBytes).toBeGreaterThanOrEqual(0);
      expect(freeBytes).toBeLessThan(totalBytes);
    }
  }
  return held;
}

describeGpuAlone('memory that is exhausted', () => {
  leaveNothingBehind();

  test('tensors, operations, graphs, reads; then everything again', async () => {
    const q = Tensor.randn([1, 4096, 4, 128], { seed: 1, ...onGpu });
    const attend = () => tidy(() => denseAttention.forward({ q, k: q, v: q }).output);
    const first = attend();
    const wanted = await first.data();
    first.dispose();
    const held = exhaust();
    expect(held.length).toBeGreaterThan(3);
    const before = memory();
    const wrong = { name: 'OutOfMemoryError', code: 'ERR_OUT_OF_MEMORY' };
    expect(await failureOf(attend)).toMatchObject(wrong);
    expect(await failureOf(() => gpu.graph(attend))).toMatchObject(wrong);
    expect(await failureOf(() => Tensor.from(new Float32Array(2 ** 20), undefined, onGpu))).toMatchObject(wrong);
    expect(await failureOf(() => q.clone())).toMatchObject(wrong);
    expect(memory()).toEqual(before);
    // What needs no memory of the GPU still works.
    expect((await held[0]!.data())[5]).toBe(0);
    held[0]!.copyFrom(held[0]!);
    held.splice(0).forEach((tensor) => tensor.dispose());
    using again = attend();
    expect(Buffer.from((await again.data()).buffer).equals(Buffer.from(wanted.buffer))).toBe(true);
    q.dispose();
  }, 120_000);

  test('memory that queued operations still hold is waited for', async () => {
    const count = Math.floor(gpu.memory().totalBytes / 4 / 3);
    for (let i = 0; i < 12; i++) {
      const x = Tensor.full([count], i, onGpu);
      x.copyFrom(x);
      x.dispose();
    }
    using y = Tensor.full([Math.floor(count * 2.5)], 5, onGpu); // in one piece, of those that were disposed
    using part = Tensor.borrow(y.pointer, [16]);
    expect((await part.data())[9]).toBe(5);
  });

  test('afterwards a small tensor is as good as ever', async () => {
    using x = Tensor.full([3], 2, onGpu);
    expect([...(await x.data())]).toEqual([2, 2, 2]);
  });
});
