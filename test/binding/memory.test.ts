/** Memory of the CPU: exhausted, and that must stay flat. A GPU's is in test/gpu. */

import { totalmem } from 'node:os';
import { memory } from '../../lib/device/device.js';
import { OutOfMemoryError, VsaError } from '../../lib/errors.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import { runProgram } from './node.js';

/** A program's process has this much address space, in KiB: Node takes 1.1 to 1.5 GiB of it at its start. */
const LIMIT = 2_100_000;
const onCpu = { device: 'cpu' } as const;
const limited = { ...onCpu, prefix: ['sh', '-c', `ulimit -v ${LIMIT}; exec "$@"`, 'sh'] };

describe('out of memory', () => {
  const tooMany = Math.ceil(totalmem() / 4) + 1;

  test.each([
    ['zeros', () => Tensor.zeros([tooMany], onCpu), tooMany * 4],
    ['randn in 16 bits', () => Tensor.randn([2, tooMany], { dtype: 'bfloat16', ...onCpu }), tooMany * 4],
    ['more than any machine has', () => Tensor.full([2 ** 49], 1, onCpu), 2 ** 51],
  ])('%s: a typed error with the numbers, and life goes on', (_, call, bytes) => {
    let error: unknown;
    try {
      call();
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(error).toBeInstanceOf(VsaError);
    const { code, wantedBytes, freeBytes, totalBytes, message } = error as OutOfMemoryError;
    expect([code, wantedBytes]).toEqual(['ERR_OUT_OF_MEMORY', bytes]);
    expect(freeBytes).toBeGreaterThan(0);
    expect(freeBytes).toBeLessThanOrEqual(totalBytes);
    expect(totalBytes).toBeLessThanOrEqual(totalmem());
    expect(message).toContain(`got ${freeBytes} bytes free of ${totalBytes}, wanted ${bytes}`);
    expect(memory()).toEqual({ numTensors: 0, numBytes: 0 });
    using next = Tensor.full([3], 1.5, onCpu);
    expect([...next.dataSync()]).toEqual([1.5, 1.5, 1.5]);
  });

  test('where the system itself refuses: tensors, reads, and then everything again', async () => {
    const result = await runProgram(
      `const held = [];
      const failures = [];
      const told = (error) => failures.push([error.name, error.code, error.wantedBytes, error.freeBytes < 2 ** 26]);
      try { for (;;) held.push(vsa.Tensor.zeros([1 << 24])); } catch (error) { told(error); }
      held.pop().dispose(); // so that at least 15 of the next fit, wherever the first ones ended
      try { for (;;) held.push(vsa.Tensor.zeros([1 << 20])); } catch { }
      for (let i = 0; i < 4; i++) held.pop().dispose(); // V8 aborts where it cannot have some megabytes for itself
      try { await held[0].data(); } catch (error) { told(error); }
      try { held[0].dataSync(); } catch (error) { told(error); }
      try { vsa.Tensor.from(new Float32Array(4)).copyFrom(held[0]); } catch (error) { failures.push(error.code); }
      const many = held.length > 3;
      for (const tensor of held) tensor.dispose();
      const values = await vsa.Tensor.full([1 << 24], 2).data();
      report({ many, failures, last: values.at(-1) });`,
      limited,
    );
    const { many, failures, last } = result as { many: boolean; failures: unknown[]; last: number };
    expect({ many, last }).toEqual({ many: true, last: 2 });
    expect(failures).toEqual([
      ['OutOfMemoryError', 'ERR_OUT_OF_MEMORY', 2 ** 26, true],
      ['OutOfMemoryError', 'ERR_OUT_OF_MEMORY', 2 ** 26, false],
      ['OutOfMemoryError', 'ERR_OUT_OF_MEMORY', 2 ** 26, false],
      'ERR_SHAPE',
    ]);
  });

  // What is disposed is free only when the operations that use it have run: an allocation that fails waits for them.
  test('memory that queued operations still hold is waited for', async () => {
    const result = await runProgram(
      `let last = 0;
      for (let i = 0; i < 30; i++) {
        const x = vsa.Tensor.full([1 << 23], i);
        x.cast('bfloat16').dispose();
        x.dispose();
      }
      const y = vsa.Tensor.full([1 << 23], 5);
      report({ value: (await y.data())[9], memory: vsa.memory().numTensors });`,
      limited,
    );
    expect(result).toEqual({ value: 5, memory: 1 });
  });
});

describe('flat memory', () => {
  const setup = `
    const rss = () => process.memoryUsage().rss;
    const grid = new vsa.TileGrid({ tokens: [5, 8, 8] });
    const shape = [1, grid.length, 2, 64];
    const make = (seed) => vsa.Tensor.randn(shape, { seed, dtype: 'bfloat16' });
    const [q, k, v, gate, dOutput] = [1, 2, 3, 4, 5].map(make);
    const forward = () => vsa.videoSparseAttention.forward({ q, k, v, grid, topK: 2, coarse: { gate }, fine: { gate } });
    const start = vsa.memory();`;

  test('a thousand forwards and backwards, disposed by hand and by tidy', async () => {
    const body = `${setup}
      const steps = [
        () => {
          const { output, saved } = forward();
          const grads = vsa.videoSparseAttention.backward(saved, { output: dOutput });
          for (const one of [output, saved, ...Object.values(grads)]) one.dispose();
        },
        () => vsa.tidy(() => { vsa.videoSparseAttention.backward(forward().saved, { output: dOutput }); }),
      ];
      let warm;
      for (let i = 0; i < 1000; i++) {
        steps[i % 2]();
        if (i % 20 === 0) await vsa.device().synchronize();
        if (vsa.memory().numBytes !== start.numBytes) throw new Error('step ' + i + ' left memory behind');
        if (i === 300) warm = rss();
      }
      await vsa.device().synchronize();
      report({ start, end: vsa.memory(), grown: rss() - warm });`;
    // V8's own heap would grow with its young generation.
    const result = await runProgram(body, { ...onCpu, flags: ['--max-semi-space-size=1'] });
    const { start, end, grown } = result as { start: unknown; end: unknown; grown: number };
    expect(end).toEqual(start);
    expect(start).toMatchObject({ numTensors: 5 });
    expect(grown).toBeLessThan(16 * 2 ** 20); // a leak of one output a step would be 57 MiB
  });

  // Or the memory of all its steps would be held at once. The first operations keep the queue busy for a while.
  test('a loop that never awaits: calls wait where the queue is full, reads do not', async () => {
    const result = await runProgram(
      `
      vsa.setCpuThreads(1);
      const attend = () => vsa.tidy(() => {
        const q = vsa.Tensor.randn([1, 2048, 8, 64]);
        vsa.denseAttention.forward({ q, k: q, v: q });
      });
      const idle = () => vsa.device().synchronize();
      const x = vsa.Tensor.zeros([1]);
      attend();
      await idle();
      let started = performance.now();
      const elapsed = () => performance.now() - started;
      attend();
      await idle();
      const one = elapsed();
      started = performance.now();
      for (let i = 0; i < 1500 / one; i++) attend();
      for (let i = 0; i < 800; i++) x.copyFrom(x);
      const launched = elapsed();
      const reads = Array.from({ length: 500 }, () => x.data());
      const read = elapsed();
      for (let i = 0; i < 400; i++) x.copyFrom(x);
      const waited = elapsed();
      await Promise.all(reads);
      await idle();
      report({ launched, read, waited, all: elapsed() });`,
      onCpu,
    );
    const { launched, read, waited, all } = result as Record<string, number>;
    expect(launched! / all!).toBeLessThan(0.5);
    expect(read! / all!).toBeLessThan(0.6);
    expect(waited! / all!).toBeGreaterThan(0.7);
  });
});
