/** Memory of other owners: what is not there is an error and never a fault; what is there is used in place. */

import { denseAttention, memory, Tensor, tidy } from '../../lib/index.js';
import { failureOf, leaveNothingBehind } from '../tensor/support.js';
import { bytesOf, describeGpu, gpu, onGpu, runOnGpu } from './support.js';

describeGpu('borrowed memory', () => {
  leaveNothingBehind();

  test('an alias of a tensor: both see what either writes, dispose gives nothing back', async () => {
    const x = Tensor.full([6], 1, onGpu);
    const { ptr, byteLength, device } = x.pointer;
    expect([typeof ptr, byteLength, device]).toEqual(['bigint', 24, gpu]);
    const alias = Tensor.borrow(x.pointer, [2, 3]);
    expect([alias.dtype, alias.shape, alias.device, alias.pointer.ptr]).toEqual(['float32', [2, 3], gpu, ptr]);
    alias.copyFrom(Float32Array.of(1, 2, 3, 4, 5, 6));
    expect([...(await x.data())]).toEqual([1, 2, 3, 4, 5, 6]);
    tidy(() => void x.copyFrom(Tensor.full([6], 9, onGpu)));
    expect([...alias.dataSync()]).toEqual([9, 9, 9, 9, 9, 9]);
    alias.dispose();
    using other = Tensor.full([6], 3, onGpu);
    expect([...x.dataSync(), other.dataSync()[0]]).toEqual([9, 9, 9, 9, 9, 9, 3]);
    x.dispose();
  });

  test('a part, in another dtype, and as an input of attention', async () => {
    using x = Tensor.randn([1, 256, 2, 64], { seed: 1, dtype: 'bfloat16', ...onGpu });
    const { ptr } = x.pointer;
    const half = x.byteLength / 2;
    using part = Tensor.borrow(
      { ptr: ptr + BigInt(half), byteLength: half, device: gpu.toString() as 'cuda' },
      [1, 128, 2, 64],
      {
        dtype: 'bfloat16',
      },
    );
    expect((await bytesOf(part)).equals((await bytesOf(x)).subarray(half))).toBe(true);
    using words = Tensor.borrow(x.pointer, [x.size / 2], { dtype: 'int32' });
    expect((await bytesOf(words)).equals(await bytesOf(x))).toBe(true);
    using copy = part.clone();
    const [a, b] = [part, copy].map((of) => tidy(() => denseAttention.forward({ q: of, k: of, v: of }).output));
    expect((await bytesOf(a!)).equals(await bytesOf(b!))).toBe(true);
    a!.dispose();
    b!.dispose();
    using none = Tensor.borrow(x.pointer, [0, 5]);
    expect((await none.data()).length).toBe(0);
  });

  test('counts as a tensor, and in a graph is written and read in place', async () => {
    using x = Tensor.full([4], 1, onGpu);
    using y = Tensor.zeros([4], onGpu);
    const { numTensors } = memory();
    using from = Tensor.borrow(x.pointer, [4]);
    using into = Tensor.borrow(y.pointer, [4]);
    expect(memory().numTensors).toBe(numTensors + 2);
    using graph = gpu.graph(() => void into.copyFrom(from));
    x.copyFrom(Float32Array.of(1, 2, 3, 4));
    graph.replay();
    expect([...(await y.data())]).toEqual([1, 2, 3, 4]);
  });

  test('pointer of a disposed tensor', async () => {
    const x = Tensor.zeros([4], onGpu);
    x.dispose();
    expect(await failureOf(() => x.pointer)).toMatchObject({ code: 'ERR_DISPOSED', argument: 'this' });
  });

  // In a process of its own: an address taken for good would be a fault, and the end of all tests after it.
  test('what is no memory of the GPU: typed errors, and the device goes on', async () => {
    const result = await runOnGpu(`
      const x = vsa.Tensor.zeros([1024]);
      const { ptr, byteLength } = x.pointer;
      const device = gpu;
      const lines = require('node:fs').readFileSync('/proc/self/maps', 'utf8').split('\\n');
      const heap = BigInt('0x' + (lines.find((line) => line.includes('[heap]')) ?? lines[0]).split('-')[0]);
      const wrong = {
        host: { ptr: heap & ~15n, byteLength: 64, device },
        low: { ptr: 16n, byteLength: 64, device },
        garbage: { ptr: 0xdeadbeefdeadbee0n, byteLength: 64, device },
        high: { ptr: (1n << 64n) - 16n, byteLength: 64, device },
        unaligned: { ptr: ptr + 4n, byteLength: 16, device },
        beyond: { ptr, byteLength: 2 ** 45, device },
        far: { ptr: ptr + (1n << 44n), byteLength: 64, device },
        small: { ptr, byteLength: 60, device },
        cpu: { ptr, byteLength, device: 'cpu' },
        other: { ptr, byteLength, device: 'cuda:12' },
      };
      const codes = {};
      for (const [name, memory] of Object.entries(wrong)) {
        try {
          const borrowed = vsa.Tensor.borrow(memory, [16]);
          await borrowed.data();
          codes[name] = 'values';
        } catch (error) {
          codes[name] = error.code ?? String(error);
        }
      }
      report({ codes, next: (await vsa.Tensor.full([2], 5).data())[1], memory: vsa.memory().numTensors });`);
    const { codes, next } = result as { codes: Record<string, string>; next: number };
    expect(codes).toEqual({
      ...{ host: 'ERR_DEVICE', low: 'ERR_DEVICE', garbage: 'ERR_DEVICE', high: 'ERR_DEVICE', beyond: 'ERR_DEVICE' },
      ...{ far: 'ERR_DEVICE', unaligned: 'ERR_ARGUMENT', small: 'ERR_SHAPE', cpu: 'ERR_DEVICE', other: 'ERR_DEVICE' },
    });
    expect(next).toBe(5);
  });
});
