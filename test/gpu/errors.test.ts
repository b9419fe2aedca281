/** What goes wrong with a GPU: none, another one, a backend that does not serve, and a fault, after which all is lost. */

import { backends, device, Tensor, TileGrid, tilePooling, VsaError } from '../../lib/index.js';
import { cudaStatus } from '../../lib/device/device.js';
import { runProgram } from '../binding/node.js';
import { failureOf, leaveNothingBehind } from '../tensor/support.js';
import { describeGpu, gpu, onCpu, onGpu, runOnGpu } from './support.js';

describeGpu('devices', () => {
  leaveNothingBehind();

  test('an index out of range names the GPUs there are', async () => {
    const { devices } = cudaStatus();
    for (const index of [devices.length, 99, 999]) {
      const failure = await failureOf(() => device(`cuda:${index}`));
      expect(failure).toBeInstanceOf(VsaError);
      expect(failure).toMatchObject({ code: 'ERR_DEVICE', argument: 'device', got: `'cuda:${index}'` });
      for (const one of devices) expect((failure as VsaError).message).toContain(`cuda:${one.index} (${one.name})`);
    }
  });

  test('device() is a GPU, of its name and memory', () => {
    const { devices } = cudaStatus();
    expect(device().type).toBe('cuda');
    expect(gpu.name).toBe(devices.find((one) => one.index === gpu.index)!.name);
    expect(gpu.memory().totalBytes).toBeGreaterThan(0.9 * devices[gpu.index]!.totalMemory);
  });

  test('hidden from the process: the CPU is the best there is, and the reason is told', async () => {
    const result = await runProgram(
      `try { vsa.device('cuda'); } catch (error) { report([error.code, error.message, vsa.device().toString()]); }`,
      { device: 'cpu' },
    );
    const [code, message, best] = result as [string, string, string];
    expect([code, best]).toEqual(['ERR_DEVICE', 'cpu']);
    expect(message).toMatch(/no usable GPU/);
  });

  test('backends: cuda serves every operation on the GPU, cpu none', async () => {
    const rows = backends(gpu);
    expect(rows.filter((row) => row.backend === 'cuda').every((row) => row.serves)).toBe(true);
    expect(rows.filter((row) => row.backend === 'cpu').some((row) => row.serves)).toBe(false);
    expect(
      backends('cpu')
        .filter((row) => row.serves)
        .every((row) => row.backend === 'cpu'),
    ).toBe(true);
    const grid = new TileGrid({ tokens: [4, 4, 4] });
    for (const [on, good, bad] of [
      [onGpu, 'cuda', 'cpu'],
      [onCpu, 'cpu', 'cuda'],
    ] as const) {
      using x = Tensor.zeros([1, 64, 1, 64], on);
      const { output, saved } = tilePooling.forward({ x, grid, backend: good });
      output.dispose();
      saved.dispose();
      const failure = await failureOf(() => tilePooling.forward({ x, grid, backend: bad }));
      expect(failure).toMatchObject({
        ...{ name: 'VsaError', code: 'ERR_BACKEND', argument: 'backend' },
        got: `'${bad}' for tensors on ${on.device.toString()}`,
      });
    }
  });

  test('tensors of two devices in one call', async () => {
    using fine = Tensor.zeros([1, 64, 1, 64], onGpu);
    using k = Tensor.zeros([1, 64, 1, 64], onCpu);
    const { denseAttention } = await import('../../lib/index.js');
    const failure = await failureOf(() => denseAttention.forward({ q: fine, k, v: k }));
    expect(failure).toMatchObject({ code: 'ERR_DEVICE', argument: 'k', got: 'a tensor on cpu' });
  });
});

/** In scope of programs: what a promise or a call came to. */
const TOLD = `
  const told = (promise) => promise.then(() => 'values', ({ name, code, message }) => [name, code, message]);
  const thrown = (call) => { try { call(); return 'values'; } catch ({ name, code, message }) { return [name, code, message]; } };
  const busy = () => {
    const q = vsa.Tensor.randn([1, 16384, 8, 128]);
    return vsa.denseAttention.forward({ q, k: q, v: q }).output;
  };`;

type Told = [name: string, code: string, message: string];

describeGpu('a fault', () => {
  test('pending reads reject with the name of the kernel, later calls say that the context is lost', async () => {
    const result = (await runOnGpu(`${TOLD}
      const x = vsa.Tensor.randn([1 << 20]);
      const onHost = vsa.Tensor.full([4], 7, { device: 'cpu' });
      const graph = gpu.graph(() => x.clone());
      await x.data();
      const outputs = [busy(), busy(), busy()];
      const before = outputs.map((output) => told(output.data()));
      native().fault(gpu.index);
      const copy = x.to('cpu');
      const pending = [told(x.data()), told(x.data()), told(gpu.synchronize()), told(copy.data())];
      const first = await Promise.all(pending);
      const later = [
        thrown(() => vsa.Tensor.zeros([1])),
        thrown(() => x.clone()),
        thrown(() => x.dataSync()),
        thrown(() => x.copyFrom(new Float32Array(1 << 20))),
        thrown(() => graph.replay()),
        thrown(() => gpu.graph(() => x.clone())),
        thrown(() => gpu.memory()),
        thrown(() => vsa.Tensor.from([1])),
        await told(x.data()),
        await told(gpu.synchronize()),
      ];
      x.dispose();
      graph.dispose();
      graph.output.dispose();
      outputs.forEach((output) => output.dispose());
      const host = onHost.cast('bfloat16').cast('float32').dataSync()[3];
      report({ before: await Promise.all(before), first, later, host, device: String(vsa.device('cuda')) });`)) as {
      before: (string | Told)[];
      first: Told[];
      later: Told[];
      host: number;
      device: string;
    };
    for (const [name, code, message] of result.first) {
      expect([name, code]).toEqual(['VsaError', 'ERR_DEVICE_LOST']);
      expect(message).toMatch(/^device cuda:\d+: .*fault failed with .*\(cudaError\w+\)/);
    }
    for (const [name, code, message] of result.later) {
      expect([name, code]).toEqual(['VsaError', 'ERR_DEVICE_LOST']);
      expect(message).toMatch(/^device cuda:\d+: the CUDA context is lost since fault failed with .*; restart/);
    }
    // What was read before the fault ran is told as it is, or is lost: but never wrong, and never pending.
    for (const one of result.before) if (one !== 'values') expect(one[1]).toBe('ERR_DEVICE_LOST');
    expect(result.first.length + result.later.length).toBe(14);
    expect([result.host, result.device]).toEqual([7, gpu.toString()]);
  });

  test('with nothing pending: the next call tells it', async () => {
    const result = await runOnGpu(`${TOLD}
      const x = vsa.Tensor.zeros([5]);
      await gpu.synchronize();
      native().fault(gpu.index);
      await new Promise((resolve) => setTimeout(resolve, 300));
      report([thrown(() => x.dataSync()), thrown(() => x.clone()), await told(x.data())]);`);
    const [first, ...later] = result as Told[];
    expect(first!.slice(0, 2)).toEqual(['VsaError', 'ERR_DEVICE_LOST']);
    expect(first![2]).toContain('fault failed with');
    for (const [, code, message] of later) {
      expect(code).toBe('ERR_DEVICE_LOST');
      expect(message).toContain('the CUDA context is lost since fault failed');
    }
  });

  test('in a thread: that one and all others are told, and the process ends by itself', async () => {
    const result = await runOnGpu(`${TOLD}
      const x = vsa.Tensor.zeros([5]);
      await x.data();
      const thread = worker(\`async () => {
        const x = vsa.Tensor.zeros([5]);
        await x.data();
        const reading = new Promise((resolve) => parentPort.once('message', resolve)).then(() => x.data());
        parentPort.postMessage('ready');
        parentPort.postMessage(await reading.then(() => 'values', (error) => error.code));
        parentPort.close();
      }\`);
      await message(thread);
      native().fault(gpu.index);
      const mine = told(x.data());
      const theirs = message(thread);
      thread.postMessage('read');
      report([(await mine)[1], await theirs, await exit(thread)]);`);
    expect(result).toEqual(['ERR_DEVICE_LOST', 'ERR_DEVICE_LOST', 0]);
  });

  test('uncaught, it ends the process as any rejection does', async () => {
    const result = await runOnGpu(`
      const { spawnSync } = require('node:child_process');
      const source = \`const vsa = require('\${require.resolve('./dist/index.js')}');
        const { native } = require('\${require.resolve('./dist/binding.js')}');
        const x = vsa.Tensor.zeros([5]);
        native().fault(0);
        x.data();\`;
      const { status, signal, stderr } = spawnSync(process.execPath, ['-e', source], { encoding: 'utf8' });
      report({ status, signal, told: stderr.includes('ERR_DEVICE_LOST') });`);
    expect(result).toEqual({ status: 1, signal: null, told: true });
  });
});
