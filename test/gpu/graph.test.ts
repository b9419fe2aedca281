/** CUDA graphs, besides what holds of graphs on every device (test/device/graph.test.ts): memory, threads, other devices. */

import {
  type DType,
  memory,
  type Order,
  Tensor,
  tidy,
  tile,
  TileGrid,
  TileLists,
  tileSelection,
  videoSparseAttention,
} from '../../lib/index.js';
import { everything, inOrder, type Inputs, makeInputs, OPERATIONS } from '../attention/every-operation.js';
import { bitsOfAll } from '../attention/support.js';
import { failureOf, leaveNothingBehind } from '../tensor/support.js';
import { bytesOf, describeGpu, gpu, onCpu, onGpu, runOnGpu } from './support.js';

const disposeAll = (...groups: object[]) => {
  for (const group of groups) for (const one of Object.values(group) as { dispose(): void }[]) one.dispose();
};

describeGpu('CUDA graphs', () => {
  leaveNothingBehind();

  // Lists of one's own are made from host values, so before.
  const recordable = OPERATIONS.filter(({ name }) => name !== 'blockSparseAttention');
  test.each<[DType, Order]>([
    ['float32', 'tiled'],
    ['bfloat16', 'grid'],
    ['float16', 'tiled'],
  ])('every operation, forward and backward: %s, %s order', async (dtype, order) => {
    const inputs = makeInputs(dtype, gpu);
    const call = (operation: (typeof OPERATIONS)[number]) => {
      const ordered = inOrder(inputs, order);
      const { outputs, saved } = operation.forward(ordered, order);
      return { ...outputs, ...operation.backward(saved, ordered) };
    };
    const graphs = recordable.map((operation) => gpu.graph(() => call(operation)));
    const next = Object.fromEntries(
      Object.entries(inputs).map(([name, x], i) => [
        name,
        Tensor.randn(x.shape, { seed: 77 + i, dtype: x.dtype, ...onGpu }),
      ]),
    ) as unknown as Inputs;
    for (const [name, x] of Object.entries(inputs)) x.copyFrom((next as Record<string, Tensor>)[name]!);
    for (const graph of graphs) graph.replay();
    for (const graph of graphs) graph.replay();
    for (const [i, operation] of recordable.entries()) {
      const wanted = tidy(() => call(operation));
      const found = graphs[i]!.output;
      const [a, b] = [await bitsOfAll(found), await bitsOfAll(wanted)];
      expect({ name: operation.name, different: Object.keys(b).filter((name) => a[name] !== b[name]) }).toEqual({
        name: operation.name,
        different: [],
      });
      disposeAll(found, wanted);
    }
    for (const graph of graphs) graph.dispose();
    disposeAll(inputs, next);
  });

  test('a training step at a size: a replay is the eager step, and its memory is bounded', async () => {
    const grid = new TileGrid({ tokens: [8, 16, 16] });
    const random = (seed: number) => Tensor.randn([1, grid.length, 8, 128], { seed, dtype: 'bfloat16', ...onGpu });
    const [q, k, v, gate, d] = [1, 2, 3, 4, 5].map(random) as [Tensor, Tensor, Tensor, Tensor, Tensor];
    const step = () => {
      const { output, saved } = videoSparseAttention.forward({ q, k, v, grid, topK: 4, coarse: { gate } });
      const grads = videoSparseAttention.backward(saved, { output: d });
      return { output, ...grads } as Record<string, Tensor>;
    };
    const [before, held] = [memory(), gpu.memory().heldBytes];
    const graph = gpu.graph(step);
    expect(memory()).toEqual({
      numTensors: before.numTensors + 5,
      numBytes: before.numBytes + 5 * q.byteLength,
    });
    expect(gpu.memory().heldBytes - held).toBeLessThan(40 * q.byteLength + 2 ** 25);
    for (let i = 0; i < 5; i++) {
      const next = random(100 + i);
      q.copyFrom(next);
      graph.replay();
      const wanted = tidy(step);
      expect(await bitsOfAll(graph.output)).toEqual(await bitsOfAll(wanted));
      disposeAll(wanted, { next });
    }
    disposeAll({ q, k, v, gate, d }, graph.output, { graph });
  });

  test('graphs that come and go leave no memory behind', async () => {
    using x = Tensor.zeros([1 << 22], onGpu);
    const cycle = async () => {
      const graph = gpu.graph(() => {
        const y = x.cast('bfloat16');
        return y.cast('float32');
      });
      graph.replay();
      graph.replay();
      graph.dispose();
      expect((await graph.output.data()).length).toBe(1 << 22);
      graph.output.dispose();
    };
    for (let i = 0; i < 3; i++) await cycle();
    const held = gpu.memory().heldBytes;
    for (let i = 0; i < 30; i++) await cycle();
    expect(gpu.memory().heldBytes).toBe(held);
  });

  test('replays in order with eager operations, writes and reads', async () => {
    using x = Tensor.zeros([100_003], onGpu);
    using total = Tensor.zeros([100_003], onGpu);
    using graph = gpu.graph(() => void total.copyFrom(x.cast('bfloat16').cast('float32')));
    const reads: Promise<unknown>[] = [];
    for (let i = 0; i < 50; i++) {
      if (i % 2 === 0) x.copyFrom(new Float32Array(100_003).fill(i));
      else tidy(() => void x.copyFrom(Tensor.full([100_003], i, onGpu)));
      graph.replay();
      using seen = total.clone();
      reads.push(seen.data().then((data) => [data[0], data[100_002]]));
    }
    expect(await Promise.all(reads)).toEqual(Array.from({ length: 50 }, (_, i) => [i, i]));
  });

  test('operations on the CPU run at once, those on the GPU do not', async () => {
    using x = Tensor.full([3], 2, onGpu);
    using onHost = Tensor.full([3], 5, onCpu);
    let host: Tensor | undefined;
    using graph = gpu.graph(() => {
      host = onHost.cast('int32');
      expect([...host.dataSync()]).toEqual([5, 5, 5]);
      expect(() => x.to('cpu')).toThrow(expect.objectContaining({ code: 'ERR_CAPTURE' }) as Error);
      expect(() => onHost.to(gpu)).toThrow(expect.objectContaining({ code: 'ERR_CAPTURE' }) as Error);
      x.copyFrom(Tensor.full([3], 9, onGpu));
      return [];
    });
    expect([...(await x.data())]).toEqual([2, 2, 2]);
    graph.replay();
    expect([host!.disposed, ...(await x.data())]).toEqual([true, 9, 9, 9]);
  });

  test('a graph of the CPU inside one of the GPU', async () => {
    using x = Tensor.full([3], 2, onGpu);
    using y = Tensor.full([3], 3, onCpu);
    using outer = gpu.graph(() => {
      const inner = onCpu.device.graph(() => void y.copyFrom(Tensor.full([3], 4, onCpu)));
      inner.replay();
      inner.dispose();
      x.copyFrom(Tensor.full([3], 5, onGpu));
    });
    expect([x.dataSync()[0], y.dataSync()[0]]).toEqual([2, 4]);
    outer.replay();
    expect((await x.data())[2]).toBe(5);
  });

  test('memory that is exhausted inside: a typed error, and the device goes on', async () => {
    using x = Tensor.full([3], 2, onGpu);
    const huge = gpu.memory().totalBytes / 2;
    const failure = await failureOf(() =>
      gpu.graph(() => {
        x.clone();
        Tensor.zeros([Math.ceil(huge)], onGpu);
      }),
    );
    expect(failure).toMatchObject({ name: 'OutOfMemoryError', code: 'ERR_OUT_OF_MEMORY' });
    using graph = gpu.graph(() => x.clone());
    using output = graph.output;
    graph.replay();
    expect([...(await output.data())]).toEqual([2, 2, 2]);
  });

  test('selected lists are an output of a graph, and of use to eager operations after replay', async () => {
    const grid = new TileGrid({ tokens: [8, 8, 8] });
    const inputs = [1, 2].map((seed) => Tensor.randn([1, 8, 2, 64], { seed, ...onGpu }));
    const [q, k] = inputs as [Tensor, Tensor];
    const select = () => tileSelection.forward({ q, k, grid, topK: 3 }).lists;
    const graph = gpu.graph(select);
    using lists = graph.output;
    expect(await failureOf(() => lists.toArrays())).toMatchObject({ code: 'ERR_CAPTURE' });
    for (const seed of [5, 6]) {
      tidy(() => void q.copyFrom(Tensor.randn(q.shape, { seed, ...onGpu })));
      graph.replay();
      using wanted = select();
      using transposed = lists.transpose();
      using wantedTransposed = wanted.transpose();
      expect(await lists.toArrays()).toEqual(await wanted.toArrays());
      expect(await transposed.toArrays()).toEqual(await wantedTransposed.toArrays());
    }
    graph.dispose();
    disposeAll(inputs);
  });

  // Their memory holds nothing yet, and that must not be taken for lists.
  test('lists of a graph that has not run: a typed error, no fault', async () => {
    const result = await runOnGpu(`
      const grid = new vsa.TileGrid({ tokens: [8, 8, 8] });
      const q = vsa.Tensor.randn([1, 8, 2, 64]);
      vsa.Tensor.full([1 << 20], 1e9, { dtype: 'int32' }).dispose(); // what the pool hands out holds no zeros
      const graph = gpu.graph(() => vsa.tileSelection.forward({ q, k: q, grid, topK: 3 }).lists);
      const x = vsa.Tensor.randn([1, 512, 2, 64]);
      const codes = [];
      const told = async (call) => {
        try { await (await call()).data(); codes.push('values'); } catch (error) { codes.push(error.code); }
      };
      await told(() => graph.output.bits());
      await told(() => vsa.blockSparseAttention.forward({ q: x, k: x, v: x, grid, lists: graph.output }).output);
      await told(() => graph.output.transpose().indices);
      graph.replay();
      await told(() => graph.output.bits());
      report(codes);`);
    const codes = result as string[];
    for (const code of codes.slice(0, 3)) expect(['ERR_CAPTURE', 'ERR_LISTS']).toContain(code);
    expect(codes[3]).toBe('values');
  });

  test('tiling and everything else recorded in one graph, replayed for other inputs', async () => {
    const grid = new TileGrid({ tokens: [5, 6, 9] });
    using x = Tensor.randn([2, grid.length, 3, 64], { seed: 1, dtype: 'float16', ...onGpu });
    const call = () => tile.forward({ x, grid }).output;
    using graph = gpu.graph(call);
    using output = graph.output;
    for (const seed of [2, 3]) {
      tidy(() => void x.copyFrom(Tensor.randn(x.shape, { seed, ...onGpu })));
      graph.replay();
      using wanted = tidy(call);
      expect((await bytesOf(output)).equals(await bytesOf(wanted))).toBe(true);
    }
    const inputs = makeInputs('bfloat16', gpu);
    const tensors = everything(inputs, 'grid'); // the device is as good as before
    disposeAll(inputs, tensors);
  });

  test('another thread computes eagerly while this one records, and records while this one computes', async () => {
    const result = await runOnGpu(`
      const thread = worker(\`async () => {
        const on = vsa.device('cuda');
        const grid = new vsa.TileGrid({ tokens: [8, 8, 8] });
        const q = vsa.Tensor.randn([1, 512, 2, 64], { seed: 1 });
        const attend = () => vsa.tidy(() => vsa.videoSparseAttention.forward({ q, k: q, v: q, grid, topK: 2 }).output);
        const wanted = Buffer.from(attend().dataSync().buffer).toString('hex');
        parentPort.postMessage('ready');
        let different = 0;
        for (let i = 0; i < 100; i++) {
          const graph = i % 5 === 0 ? on.graph(attend) : undefined;
          graph?.replay();
          const output = graph?.output ?? attend();
          if (Buffer.from((await output.data()).buffer).toString('hex') !== wanted) different++;
          output.dispose();
          graph?.dispose();
        }
        parentPort.postMessage(different);
      }\`);
      await message(thread);
      const done = message(thread);
      let running = true;
      done.then(() => (running = false));
      const x = vsa.Tensor.full([10_000], 2);
      let [graphs, wrong] = [0, 0];
      while (running) {
        const graph = gpu.graph(() => {
          let y = x.clone();
          for (let j = 0; j < 30; j++) { const next = y.clone(); y.dispose(); y = next; }
          return y;
        });
        graph.replay();
        if ((await graph.output.data())[9999] !== 2) wrong++;
        graph.output.dispose();
        graph.dispose();
        graphs++;
      }
      report({ different: await done, wrong, some: graphs > 3 });`);
    expect(result).toEqual({ different: 0, wrong: 0, some: true });
  });
});

describeGpu('lists inside of a graph', () => {
  leaveNothingBehind();
  const grid = new TileGrid({ tokens: [4, 4, 12] });
  const shape = { batch: 1, heads: 2, queryTiles: 3, keyTiles: 3 };

  test('overwritten between replays: each replay is told for itself', async () => {
    const { blockSparseAttention } = await import('../../lib/index.js');
    using lists = TileLists.from([[0], [1, 2], [], [0, 1], [2], [1]], shape, onGpu);
    using q = Tensor.randn([1, grid.length, 2, 64], { seed: 1, ...onGpu });
    const call = () => {
      const { output, saved } = blockSparseAttention.forward({ q, k: q, v: q, grid, lists });
      const grads = blockSparseAttention.backward(saved, { output: q });
      return { output, ...grads } as Record<string, Tensor>;
    };
    const graph = gpu.graph(call);
    const good = Int32Array.of(0, 1, 3, 3, 5, 6, 7);
    const others = [Int32Array.of(0, 1, 3, 3, 5, 6, 100_000), Int32Array.of(0, 3, 1, 3, 5, 6, 7), good];
    for (const offsets of [good, ...others]) {
      lists.offsets!.copyFrom(offsets);
      graph.replay();
      for (const tensor of Object.values(graph.output)) {
        if (offsets === good) await tensor.data();
        else await expect(tensor.data()).rejects.toMatchObject({ code: 'ERR_LISTS' });
      }
    }
    const wanted = tidy(call);
    expect(await bitsOfAll(graph.output)).toEqual(await bitsOfAll(wanted));
    disposeAll(wanted, graph.output, { graph });
  });

  // Lists that an operation made were trusted when the graph was recorded; at a replay they may hold anything.
  test('selected before, recorded, then overwritten: no fault, and who reads is told', async () => {
    const result = await runOnGpu(`
      const grid = new vsa.TileGrid({ tokens: [4, 4, 12] });
      const pooled = vsa.Tensor.randn([1, 3, 2, 64]);
      const { lists } = vsa.tileSelection.forward({ q: pooled, k: pooled, grid, topK: 2 });
      const q = vsa.Tensor.randn([1, grid.length, 2, 64], { seed: 1 });
      const graph = gpu.graph(() => {
        const { output, saved } = vsa.blockSparseAttention.forward({ q, k: q, v: q, grid, lists });
        return { output, ...vsa.blockSparseAttention.backward(saved, { output: q }), bits: lists.bits() };
      });
      const codes = [];
      const told = async () => {
        for (const tensor of Object.values(graph.output)) {
          codes.push(await tensor.data().then(() => 'values', (error) => error.code));
        }
      };
      graph.replay();
      await told();
      lists.indices.copyFrom(Int32Array.from({ length: 12 }, () => 2 ** 30));
      graph.replay();
      await told();
      report(codes);`);
    expect(result).toEqual([...new Array<string>(5).fill('values'), ...new Array<string>(5).fill('ERR_LISTS')]);
  });
});
