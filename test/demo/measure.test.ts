import { TileGrid, memory, topK } from '../../lib/index.js';
import { compareOutputs, measure } from '../../lib/demo/measure.js';
import type { Measurement } from '../../lib/demo/measure.js';
import { heldByBest, massCurve } from '../../lib/attention/mass.js';
import { createProgress } from '../../lib/demo/progress.js';
import { here } from '../under-test.js';
import { memoryIo, noiseBytes } from './support.js';

const grid = new TileGrid({ tokens: [5, 6, 9] }); // partial along every dim
const [L, N, heads, headDim] = [grid.length, grid.tileCount, 2, 64];
const K = 4;
const scale = 1 / Math.sqrt(headDim);

function noise(seed: number): Float32Array {
  return Float32Array.from(noiseBytes(L * heads * headDim, seed), (value) => (value - 128) / 70);
}
const projections = { q: noise(1), k: noise(2), v: noise(3) };

function run(topKTiles: number, dtype: 'float32' | 'bfloat16' = 'float32'): Promise<Measurement> {
  const progress = createProgress(memoryIo().io);
  const options = {
    projections,
    grid,
    heads,
    headDim,
    dtype,
    device: here,
    topK: topKTiles,
    seed: 5,
    progress,
  };
  return measure(options, () => 0.2);
}

/** Tile of a token, straight from the definition. */
function tileOf(token: number): number {
  const [t, y, x] = [Math.floor(token / 54), Math.floor(token / 9) % 6, token % 9];
  return (Math.floor(t / 4) * 2 + Math.floor(y / 4)) * 3 + Math.floor(x / 4);
}

/** Softmax weights of a query token over all keys, in float64. */
function weights(head: number, query: number): Float64Array {
  const row = (x: Float32Array, token: number) =>
    x.subarray((token * heads + head) * headDim, (token * heads + head + 1) * headDim);
  const q = row(projections.q, query);
  const logits = Float64Array.from({ length: L }, (_, key) =>
    row(projections.k, key).reduce((sum, value, d) => sum + value * q[d]! * scale, 0),
  );
  const top = Math.max(...logits);
  const exps = logits.map((value) => Math.exp(value - top));
  const sum = exps.reduce((a, b) => a + b, 0);
  return exps.map((value) => value / sum);
}

/** Dense attention's mass from tile to tile, [H, N, N], in float64. */
function massByDefinition(): Float64Array {
  const mass = new Float64Array(heads * N * N);
  for (let head = 0; head < heads; head++) {
    for (let query = 0; query < L; query++) {
      const i = tileOf(query);
      weights(head, query).forEach((weight, key) => {
        const at = (head * N + i) * N + tileOf(key);
        mass[at] = mass[at]! + weight / grid.valid(i);
      });
    }
  }
  return mass;
}

let result: Measurement;
let before: ReturnType<typeof memory>;
beforeAll(async () => {
  before = memory();
  result = await run(K);
});

test('leaves no tensor behind', () => {
  expect(memory()).toEqual(before);
});

test('the mass map is that of the definition, and its rows sum to 1', () => {
  const wanted = massByDefinition();
  expect(result.mass).toHaveLength(wanted.length);
  const off = wanted.map((share, at) => Math.abs(result.mass[at]! - share));
  expect(Math.max(...off)).toBeLessThan(2e-6);
  for (let row = 0; row < heads * N; row++) {
    expect(result.mass.slice(row * N, (row + 1) * N).reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 4);
  }
});

test('the mass held by the selection is the sum of the map over its lists', () => {
  for (let row = 0; row < heads * N; row++) {
    const list = [...result.lists.subarray(row * K, (row + 1) * K)];
    expect(list).toEqual([...new Set(list)].sort((a, b) => a - b));
    const sum = list.reduce((total, tile) => total + result.mass[row * N + tile]!, 0);
    expect(result.vsa.held[row]).toBeCloseTo(sum, 4);
  }
});

test('no choice holds more than the best, and heads are means over tokens', () => {
  for (let row = 0; row < heads * N; row++) {
    expect(result.best.held[row]).toBeGreaterThan(result.vsa.held[row]! - 1e-5);
    expect(result.best.held[row]).toBeGreaterThan(result.random.held[row]! - 1e-5);
  }
  for (let head = 0; head < heads; head++) {
    let sum = 0;
    for (let token = 0; token < L; token++) sum += result.vsa.held[head * N + tileOf(token)]!;
    expect(result.vsa.heldByHead[head]).toBeCloseTo(sum / L, 6);
  }
});

test('the curve passes through what the selection and the best choice hold', () => {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  expect(result.curve.ranked).toHaveLength(N + 1);
  expect(result.curve.ranked[K]).toBeCloseTo(mean(result.vsa.heldByHead), 4);
  expect(result.curve.best[K]).toBeCloseTo(mean(result.best.heldByHead), 4);
  expect([result.curve.ranked[0], result.curve.best[0]]).toEqual([0, 0]);
  expect(result.curve.ranked[N]).toBeCloseTo(1, 4);
  expect(result.curve.best[N]).toBeCloseTo(1, 4);
});

test('operations are counted from the lists, partial tiles with their valid tokens', () => {
  let pairs = 0;
  for (let row = 0; row < heads * N; row++) {
    for (const key of result.lists.subarray(row * K, (row + 1) * K)) pairs += grid.valid(row % N) * grid.valid(key);
  }
  expect(result.flops).toEqual({ dense: 4 * heads * headDim * L * L, vsa: 4 * headDim * pairs });
});

test('everything was timed, and q, k, v and the output were alive', () => {
  for (const { ms, runs } of Object.values(result.times)) {
    expect(ms).toBeGreaterThan(0);
    expect(runs).toBeGreaterThanOrEqual(1);
  }
  expect(result.memory.numBytes).toBeGreaterThan(4 * L * heads * headDim * 4);
});

test('with all tiles kept VSA is dense attention', async () => {
  const all = await run(N);
  for (const head of [0, 1]) {
    expect(all.vsa.heldByHead[head]).toBeCloseTo(1, 5);
    expect(all.random.heldByHead[head]).toBeCloseTo(1, 5);
    expect(all.vsa.errors[head]!.relative).toBeLessThan(1e-5);
  }
  expect(all.flops.vsa).toBe(all.flops.dense);
});

test('16-bit inputs give nearly the same', async () => {
  const half = await run(K, 'bfloat16');
  for (const head of [0, 1]) expect(half.best.heldByHead[head]).toBeCloseTo(result.best.heldByHead[head]!, 2);
});

test('leaves no tensor behind when it fails', async () => {
  await expect(run(N + 1)).rejects.toMatchObject({ code: 'ERR_TOP_K' });
  expect(memory()).toEqual(before);
});

test('topK of the demo’s defaults', () => {
  expect(topK(new TileGrid({ tokens: '21x30x52' }), { sparsity: 0.9 })).toBe(63);
});

test('errors by head: relative L2 and the largest difference', () => {
  const dense = Float32Array.from([3, 4, 1, 0]); // one token, two heads of 2
  const output = Float32Array.from([3, 4.5, 1, 0]);
  const [first, second] = compareOutputs(output, dense, 2, 2);
  expect(first).toEqual({ relative: 0.1, max: 0.5 });
  expect(second).toEqual({ relative: 0, max: 0 });
  expect(compareOutputs(new Float32Array(2), new Float32Array(2), 1, 2)).toEqual([{ relative: 0, max: 0 }]);
});

test('the best tiles are the heaviest', () => {
  const mass = Float32Array.from([0.5, 0.125, 0.375, 0.25, 0.5, 0.25, 0, 0, 1]);
  expect([...heldByBest(mass, 3, 2)]).toEqual([0.875, 0.75, 1]);
});

test('the curve ranks by score, ties to the lowest tile', () => {
  const two = new TileGrid({ tokens: [4, 4, 8] });
  const mass = Float32Array.from([0.25, 0.75, 0.5, 0.5]);
  const scores = Float32Array.from([1, 1, 0, 2]);
  const { ranked, best } = massCurve(two, mass, scores);
  expect(ranked).toEqual([0, 0.375, 1]);
  expect(best).toEqual([0, 0.625, 1]);
});
