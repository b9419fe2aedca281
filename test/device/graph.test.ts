/** Recorded work, on the device under test: what is recorded, what a replay does, and what cannot be recorded. */

import {
  coarseAttention,
  denseAttention,
  gatedCombination,
  Graph,
  memory,
  Tensor,
  tidy,
  tile,
  TileGrid,
  TileLists,
  tilePooling,
  tileSelection,
  videoSparseAttention,
} from '../../lib/index.js';
import { bitsOfAll } from '../attention/support.js';
import { runProgram } from '../binding/node.js';
import { failureOf, leaveNothingBehind } from '../tensor/support.js';
import { fresh, here } from '../under-test.js';

leaveNothingBehind();

const GRID = new TileGrid({ tokens: [5, 6, 9], prefix: 3 });
const PLAIN = new TileGrid({ tokens: [8, 8, 8] });
const SHAPE = [1, GRID.length, 2, 64] as const;
const NAMES = ['q', 'k', 'v', 'gate', 'dOutput'] as const;
type Inputs = Record<(typeof NAMES)[number], Tensor>;

function inputs(seed: number): Inputs {
  const random = (i: number) => fresh.randn(SHAPE, { seed: seed + i, dtype: 'bfloat16' });
  return Object.fromEntries(NAMES.map((name, i) => [name, random(i)])) as Inputs;
}

/** A training step: a forward, its backward, and what they give. */
function step({ q, k, v, gate, dOutput }: Inputs): Record<string, Tensor> {
  const { output, saved } = videoSparseAttention.forward({ q, k, v, grid: GRID, topK: 3, coarse: { gate } });
  const { q: dq, k: dk, v: dv, coarseGate } = videoSparseAttention.backward(saved, { output: dOutput });
  return { output, dq, dk, dv, dGate: coarseGate!, lse: saved.lse, lists: saved.lists.indices! };
}

const disposeAll = (...groups: Record<string, Tensor>[]) => {
  for (const group of groups) for (const tensor of Object.values(group)) tensor.dispose();
};

test('nothing runs until replay, and then as often as that is called', async () => {
  using x = fresh.full([3], 2);
  using sum = fresh.zeros([3]);
  const graph = here.graph(() => {
    sum.copyFrom(x);
    return x.cast('int32');
  });
  expect(graph).toBeInstanceOf(Graph);
  expect([...(await sum.data())]).toEqual([0, 0, 0]);
  for (const value of [5, -7.5]) {
    x.copyFrom(Float32Array.of(value, value, value));
    graph.replay();
    expect([...(await sum.data()), (await graph.output.data())[2]]).toEqual([value, value, value, Math.trunc(value)]);
  }
  graph.output.dispose();
  graph.dispose();
});

test.each(['forward', 'training step'])('a %s: replays are the eager calls, bit for bit', async (what) => {
  const all = inputs(1);
  const call = (): Record<string, Tensor> => {
    const results = step(all);
    return what === 'forward' ? { output: results['output']! } : results;
  };
  const graph = here.graph(call);
  for (const seed of [100, 200, 300]) {
    const next = inputs(seed);
    for (const name of NAMES) {
      if (seed === 200) all[name].copyFrom(next[name].dataSync());
      else all[name].copyFrom(next[name]);
    }
    graph.replay();
    const wanted = tidy(call);
    expect(await bitsOfAll(graph.output)).toEqual(await bitsOfAll(wanted));
    disposeAll(next, wanted);
  }
  disposeAll(all, graph.output);
  graph.dispose();
});

test('random numbers, casts, fills and clones are recorded too', async () => {
  using x = fresh.full([1001], 1.5, { dtype: 'float16' });
  const call = () => ({
    normal: Tensor.randn([1001], { seed: 7, device: here }),
    bits: Tensor.randbits([1001], { seed: 8, device: here }),
    full: Tensor.full([1001], 0.1, { dtype: 'bfloat16', device: here }),
    cast: x.cast('int32'),
    clone: x.clone(),
    shared: x.reshape([7, -1]),
  });
  using graph = here.graph(call);
  graph.replay();
  const wanted = call();
  expect(await bitsOfAll(graph.output)).toEqual(await bitsOfAll(wanted));
  disposeAll(graph.output, wanted);
});

test('values of one replay are read before the next overwrites them', async () => {
  using x = fresh.zeros([70_000]);
  const graph = here.graph(() => x.clone());
  const reads: Promise<unknown>[] = [];
  for (let i = 0; i < 20; i++) {
    using value = fresh.full([70_000], i);
    x.copyFrom(value);
    graph.replay();
    reads.push(graph.output.data().then((data) => [data[0], data[69_999]]));
  }
  expect(await Promise.all(reads)).toEqual(Array.from({ length: 20 }, (_, i) => [i, i]));
  graph.output.dispose();
  graph.dispose();
});

test('what is made inside and not returned is disposed; dispose inside works', () => {
  using x = fresh.zeros([64]);
  const before = memory().numTensors;
  let inside: Tensor | undefined;
  const graph = here.graph(() => {
    const a = x.cast('bfloat16');
    inside = a.cast('float16');
    a.dispose();
    return { deep: [inside.clone()], other: 5 };
  });
  expect(inside?.disposed).toBe(true);
  expect(graph.output.other).toBe(5);
  expect(memory().numTensors - before).toBe(1);
  graph.output.deep[0]!.dispose();
  graph.dispose();
});

test('outputs outlive the graph, inputs are kept by it', async () => {
  const x = fresh.full([5000], 3);
  const graph = here.graph(() => x.cast('float16').cast('float32'));
  x.dispose();
  using other = fresh.full([5000], 9); // would take the memory, were it free
  graph.replay();
  const { output } = graph;
  graph.dispose();
  using more = fresh.full([5000], 11);
  expect([(await output.data()).every((value) => value === 3), other.dataSync()[0], more.dataSync()[0]]).toEqual([
    true,
    9,
    11,
  ]);
  output.dispose();
});

test('lifetime: dispose twice, by using, and after its outputs', async () => {
  using x = fresh.zeros([2]);
  const graph = here.graph(() => x.clone());
  graph.output.dispose();
  graph.replay();
  expect(graph.disposed).toBe(false);
  graph.dispose();
  graph.dispose();
  expect(graph.disposed).toBe(true);
  const failure = await failureOf(() => graph.replay());
  expect(failure).toMatchObject({ name: 'VsaTypeError', code: 'ERR_DISPOSED', argument: 'this' });
  let held: Graph<void>;
  {
    using scoped = here.graph(() => undefined);
    scoped.replay();
    held = scoped;
  }
  expect(held.disposed).toBe(true);
  await here.synchronize();
});

test('disposed right after replay: the work runs to its end', async () => {
  using x = fresh.randn([1 << 20], { seed: 3 });
  using target = fresh.zeros([1 << 20]);
  const graph = here.graph(() => void target.copyFrom(x.cast('bfloat16')));
  graph.replay();
  graph.dispose();
  using wanted = fresh.randn([1 << 20], { seed: 3, dtype: 'bfloat16' });
  using wide = wanted.cast('float32');
  expect(await bitsOfAll({ values: target })).toEqual(await bitsOfAll({ values: wide }));
});

describe('values inside', () => {
  const capture = { code: 'ERR_CAPTURE', name: 'VsaError' };
  const uses: [string, (x: Tensor) => unknown][] = [
    ['dataSync', (x) => x.dataSync()],
    ['item', (x) => x.item()],
    ['copyFrom numbers', (x) => x.copyFrom(Float32Array.of(1))],
    ['copyFrom numbers that are cast', (x) => x.copyFrom(Float64Array.of(0.1))],
    ['Tensor.from', () => Tensor.from([1, 2], [2], { device: here })],
    [
      'TileLists.from',
      () => TileLists.from([[0]], { batch: 1, heads: 1, queryTiles: 1, keyTiles: 1 }, { device: here }),
    ],
    ['graph', () => here.graph(() => undefined)],
  ];
  test.each(uses)('%s throws, the recording is forgotten, and the device goes on', async (_, use) => {
    using x = fresh.full([1], 4);
    const before = memory();
    expect(await failureOf(() => here.graph(() => void use(x)))).toMatchObject(capture);
    expect(memory()).toEqual(before);
    expect(await x.data()).toEqual(Float32Array.of(4));
    using graph = here.graph(() => x.copyFrom(Tensor.full([1], 6, { device: here })));
    graph.replay();
    expect(x.item()).toBe(6);
  });

  test.each<[string, (x: Tensor) => Promise<unknown>]>([
    ['data', (x) => x.data()],
    ['toFloat32', (x) => x.toFloat32()],
    ['synchronize', () => here.synchronize()],
  ])('%s rejects, and the rest is recorded', async (_, use) => {
    using x = fresh.full([1], 4, { dtype: 'bfloat16' });
    let promise: Promise<unknown> | undefined;
    using graph = here.graph(() => {
      promise = use(x);
      promise.catch(() => undefined);
      return x.cast('float32');
    });
    await expect(promise).rejects.toMatchObject(capture);
    graph.replay();
    expect(graph.output.item()).toBe(4);
    graph.output.dispose();
  });

  test('replay of another graph throws', async () => {
    using x = fresh.full([1], 4);
    using one = here.graph(() => void x.copyFrom(Tensor.full([1], 5, { device: here })));
    expect(await failureOf(() => here.graph(() => one.replay()))).toMatchObject(capture);
    expect(x.item()).toBe(4);
  });

  test.each<[string, (x: Tensor) => unknown]>([
    ['data', (x) => x.data()],
    ['dataSync', (x) => x.dataSync()],
    ['toFloat32', (x) => x.toFloat32()],
    ['item', (x) => x.item()],
  ])('%s of an output before the first replay is an error, after it is not', async (_, use) => {
    using x = fresh.full([1], 4, { dtype: 'bfloat16' });
    using graph = here.graph(() => x.clone());
    using output = graph.output;
    expect(await failureOf(() => use(output))).toMatchObject(capture);
    graph.replay();
    await use(output);
    expect(output.item()).toBe(4);
  });
});

test('an eager operation on an output that holds nothing yet: ERR_CAPTURE, and nothing is left behind', async () => {
  const all = inputs(1);
  using graph = here.graph(() => ({ q: all.q.clone(), pooled: Tensor.zeros([1, 8, 2, 64], { device: here }) }));
  const { q, pooled } = graph.output;
  using target = fresh.zeros(SHAPE);
  const calls: [string, () => unknown][] = [
    ['cast', () => q.cast('float32')],
    ['clone', () => q.clone()],
    ['copyFrom', () => target.copyFrom(q)],
    ['tile', () => tile.forward({ x: q, grid: GRID })],
    ['tilePooling', () => tilePooling.forward({ x: q, grid: GRID })],
    ['coarseAttention', () => coarseAttention.forward({ q: pooled, k: pooled, v: pooled })],
    ['tileSelection', () => tileSelection.forward({ q: pooled, k: pooled, grid: PLAIN, topK: 2 })],
    ['denseAttention', () => denseAttention.forward({ q: all.k, k: q, v: all.v })],
    ['gatedCombination', () => gatedCombination.forward({ fine: all.q, fineGate: q, grid: GRID })],
    ['videoSparseAttention', () => step({ ...all, v: q })],
  ];
  for (const [name, call] of calls) {
    const before = memory();
    const failure = await failureOf(call);
    expect([name, (failure as { code?: string }).code, memory()]).toEqual([name, 'ERR_CAPTURE', before]);
  }
  graph.replay();
  disposeAll(all, graph.output);
});

describe('what is no recording', () => {
  test('a function that throws: its error, nothing left, and the device goes on', async () => {
    const mine = new Error('mine');
    using x = fresh.full([9], 2);
    const before = memory();
    const failing = () =>
      here.graph(() => {
        x.cast('bfloat16');
        x.copyFrom(Tensor.zeros([9], { device: here }));
        throw mine;
      });
    expect(failing).toThrow(mine);
    expect(memory()).toEqual(before);
    expect([...(await x.data())]).toEqual(new Array(9).fill(2));
  });

  test.each([
    ['no function', 5],
    ['nothing', undefined],
    ['a function that returns a promise', () => Promise.resolve()],
  ])('%s is ERR_ARGUMENT', async (_, fn) => {
    const error = await failureOf(() => here.graph(fn as () => void));
    expect(error).toMatchObject({ name: 'VsaTypeError', code: 'ERR_ARGUMENT', argument: 'fn' });
    using after = fresh.full([2], 1);
    expect(await after.data()).toEqual(Float32Array.of(1, 1));
  });

  test('a nested graph that is caught: the outer one is recorded', () => {
    using x = fresh.full([1], 1);
    using graph = here.graph(() => {
      expect(() => here.graph(() => 5)).toThrow('graph: got a call inside of graph()');
      x.copyFrom(Tensor.full([1], 8, { device: here }));
    });
    expect(x.item()).toBe(1);
    graph.replay();
    expect(x.item()).toBe(8);
  });
});

test('an output is an input like any other: of eager operations, and of another graph', async () => {
  using x = fresh.full([300], 1.25);
  using first = here.graph(() => x.cast('bfloat16'));
  using second = here.graph(() => first.output.cast('float32'));
  for (const value of [1.25, -3]) {
    x.copyFrom(new Float32Array(300).fill(value));
    first.replay();
    second.replay();
    using eager = tidy(() => first.output.cast('float16').cast('float32'));
    expect([(await second.output.data())[299], (await eager.data())[299]]).toEqual([value, value]);
  }
  disposeAll({ a: first.output, b: second.output });
});

test('memory of a recording is bounded: what is disposed inside is used again', () => {
  using x = fresh.zeros([1 << 20]);
  const before = here.memory().heldBytes;
  using graph = here.graph(() => {
    let last = x.clone();
    for (let i = 0; i < 100; i++) {
      const next = last.clone();
      last.dispose();
      last = next;
    }
    return last;
  });
  expect(memory().numBytes).toBe(2 * x.byteLength);
  // On the CPU what is recorded holds all of it: 100 tensors. A GPU takes a few blocks.
  if (here.type === 'cuda') expect(here.memory().heldBytes - before).toBeLessThan(2 ** 26);
  graph.output.dispose();
});

test('another thread computes while this one records', async () => {
  const result = await runProgram(`
    const thread = worker(\`async () => {
      const x = vsa.Tensor.full([1000], 3);
      for (let i = 0; i < 50; i++) {
        const y = x.cast('bfloat16').cast('float32');
        if ((await y.data())[999] !== 3) throw new Error('a wrong value');
        y.dispose();
        if (i === 0) parentPort.postMessage('ready');
      }
      parentPort.postMessage('done');
    }\`);
    await message(thread);
    const done = message(thread);
    const on = vsa.device();
    const x = vsa.Tensor.full([1000], 2);
    const values = [];
    for (let i = 0; i < 20; i++) {
      const graph = on.graph(() => {
        let y = x.clone();
        for (let j = 0; j < 50; j++) y = y.clone();
        return y;
      });
      graph.replay();
      values.push((await graph.output.data())[999]);
      graph.output.dispose();
      graph.dispose();
    }
    report([await done, ...new Set(values)]);`);
  expect(result).toEqual(['done', 2]);
});
