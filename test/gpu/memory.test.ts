/** Memory of a GPU: what is too much for it, and what must stay flat. */

import { memory, OutOfMemoryError, Tensor, tidy, TileGrid, videoSparseAttention } from '../../lib/index.js';
import { leaveNothingBehind } from '../tensor/support.js';
import { describeGpu, gpu, onGpu, runOnGpu } from './support.js';

describeGpu('memory', () => {
  leaveNothingBehind();

  test('free, total and held', async () => {
    const before = gpu.memory();
    expect(before.totalBytes).toBeGreaterThan(2 ** 30);
    expect(before.freeBytes).toBeLessThanOrEqual(before.totalBytes);
    {
      using x = Tensor.zeros([2 ** 26], onGpu);
      const during = gpu.memory();
      expect(during.heldBytes).toBeGreaterThanOrEqual(x.byteLength);
      await gpu.synchronize();
    }
    // Kept for the next tensors, and free for them.
    expect(gpu.memory().heldBytes).toBeGreaterThanOrEqual(2 ** 28);
  });

  test('what is disposed is free, and the next tensor of its size has its memory', async () => {
    await gpu.synchronize();
    // No other suite has tensors of these sizes.
    const [count, bytes] = [3 * 2 ** 24 + 128, 4 * (3 * 2 ** 24 + 128)];
    const first = Tensor.zeros([count], onGpu);
    const { ptr } = first.pointer;
    const held = gpu.memory().heldBytes;
    first.dispose();
    const { freeBytes, heldBytes, totalBytes } = gpu.memory();
    expect(heldBytes).toBe(held); // kept, and not in use
    {
      using second = Tensor.full([count], 2, onGpu);
      using other = Tensor.full([count + 64], 3, onGpu);
      expect(second.pointer.ptr).toBe(ptr);
      expect(other.pointer.ptr).not.toBe(ptr);
      const during = gpu.memory();
      expect(during.freeBytes).toBeLessThanOrEqual(totalBytes - 2 * bytes);
      expect((await second.data())[count - 1]).toBe(2);
      expect((await other.data())[count]).toBe(3);
    }
    expect(freeBytes).toBeGreaterThanOrEqual(bytes);
  });

  test('memory that is handed out again while the operations of its last tensor are still queued', async () => {
    const count = 2 ** 22 + 96;
    const copies = Array.from({ length: 8 }, (_, i) => {
      using x = Tensor.full([count], i, onGpu);
      return x.clone(); // runs after x is disposed, and before the next x is filled
    });
    for (const [i, copy] of copies.entries()) {
      const values = await copy.data();
      expect([values[0], values[count >> 1], values[count - 1]]).toEqual([i, i, i]);
      copy.dispose();
    }
  });

  test('VSA_DEBUG_MEMORY: nothing is kept for the next tensors but by CUDA', async () => {
    const program = `
      const sizes = [1, 2, 3].map((i) => (i << 20) + 64);
      const values = [];
      for (const size of [...sizes, ...sizes]) {
        vsa.Tensor.full([size], size).dispose();
        const y = vsa.Tensor.full([size], 7);
        values.push((await y.data())[size - 1]);
        y.dispose();
      }
      const { heldBytes, freeBytes, totalBytes } = gpu.memory();
      report({ values, living: vsa.memory().numTensors, plausible: heldBytes >= 0 && freeBytes <= totalBytes });`;
    const wanted = { values: [7, 7, 7, 7, 7, 7], living: 0, plausible: true };
    expect(await runOnGpu(program)).toEqual(wanted);
    expect(await runOnGpu(program, { env: { VSA_DEBUG_MEMORY: '1' } })).toEqual(wanted);
  });

  test.each([
    ['more than the GPU has', () => gpu.memory().totalBytes],
    ['more than any GPU has', () => 2 ** 49],
  ])('%s: a typed error with the numbers, and the next operation works', async (_, elements) => {
    const count = elements();
    const error = (() => {
      try {
        Tensor.zeros([count], onGpu);
      } catch (caught) {
        return caught;
      }
      return undefined;
    })();
    expect(error).toBeInstanceOf(OutOfMemoryError);
    const { code, wantedBytes, freeBytes, totalBytes, message } = error as OutOfMemoryError;
    expect([code, wantedBytes]).toEqual(['ERR_OUT_OF_MEMORY', 4 * count]);
    expect(freeBytes).toBeGreaterThan(0);
    expect(freeBytes).toBeLessThanOrEqual(totalBytes);
    expect(message).toContain(
      `out of memory on ${gpu.toString()}: got ${freeBytes} bytes free of ${totalBytes}, wanted ${4 * count}`,
    );
    expect(memory()).toEqual({ numTensors: 0, numBytes: 0 });
    using next = Tensor.full([3], 1.5, onGpu);
    expect([...(await next.data())]).toEqual([1.5, 1.5, 1.5]);
  });

  test('2,000 forwards and backwards: flat', async () => {
    const grid = new TileGrid({ tokens: [5, 8, 8] });
    const make = (seed: number) => Tensor.randn([1, grid.length, 2, 64], { seed, dtype: 'bfloat16', ...onGpu });
    const [q, k, v, gate, d] = [1, 2, 3, 4, 5].map(make) as [Tensor, Tensor, Tensor, Tensor, Tensor];
    const options = { q, k, v, grid, topK: 2, coarse: { gate }, fine: { gate } };
    const steps = [
      () => {
        const { output, saved } = videoSparseAttention.forward(options);
        const grads = videoSparseAttention.backward(saved, { output: d });
        for (const one of [output, saved, ...(Object.values(grads) as Tensor[])]) one.dispose();
      },
      () => tidy(() => void videoSparseAttention.backward(videoSparseAttention.forward(options).saved, { output: d })),
    ];
    const start = memory();
    let held = 0;
    for (let i = 0; i < 2000; i++) {
      steps[i % 2]!();
      if (i % 40 === 0) await gpu.synchronize();
      expect(memory().numTensors).toBe(start.numTensors);
      if (i === 200) held = gpu.memory().heldBytes;
    }
    await gpu.synchronize();
    expect(memory()).toEqual(start);
    expect(gpu.memory().heldBytes).toBe(held);
    for (const one of [q, k, v, gate, d]) one.dispose();
  }, 120_000);

  test('tensors that come and go, of many sizes: what is held is what was needed at once', async () => {
    const cycle = () => {
      for (let i = 0; i < 200; i++) Tensor.zeros([1000 + 7919 * (i % 50)], onGpu).dispose();
    };
    for (let i = 0; i < 5; i++) cycle();
    const held = gpu.memory().heldBytes;
    for (let i = 0; i < 20; i++) cycle();
    await gpu.synchronize();
    expect(gpu.memory().heldBytes).toBe(held);
  });
});
