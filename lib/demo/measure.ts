/** Runs VSA, dense attention and a random choice of tiles on the same q, k, v, and compares them. */
import { blockSparseAttention, denseAttention } from '../attention/fine.js';
import type { TileGrid } from '../attention/grid.js';
import { TileLists } from '../attention/lists.js';
import { tilePooling } from '../attention/pooling.js';
import { tileSelection } from '../attention/selection.js';
import { videoSparseAttention } from '../attention/vsa.js';
import type { Device } from '../device/device.js';
import { memory } from '../device/device.js';
import { tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import { headMeans, heldByBest, heldByTile, massCurve, massMap, validTokens } from '../attention/mass.js';
import type { MassCurve } from '../attention/mass.js';
import type { Progress } from './progress.js';
import type { Projections } from './projection.js';

export interface MeasureOptions {
  /** float32 on the host; given away, so that their memory can go once they are on the device. */
  projections: Projections;
  grid: TileGrid;
  heads: number;
  headDim: number;
  dtype: 'float32' | 'bfloat16' | 'float16';
  device: Device;
  /** K: tiles kept for each query tile. */
  topK: number;
  seed: number;
  progress: Progress;
}

/** Distance of an output from dense attention's. */
export interface OutputError {
  /** |output - dense| / |dense|, in L2. */
  relative: number;
  /** Largest absolute difference of an element. */
  max: number;
}

/** Milliseconds of one call; the median where several were made. */
export interface Timing {
  ms: number;
  runs: number;
}

/** What a way to choose tiles comes to, by head. */
export interface ChoiceResult {
  /** Share of dense attention's mass on the chosen tiles, [H, N]: by query tile. */
  held: Float32Array;
  /** The same by head, over query tokens. */
  heldByHead: number[];
  /** Output against dense attention's, by head; undefined where nothing was attended to. */
  errors?: OutputError[];
}

export interface Measurement {
  vsa: Required<ChoiceResult>;
  random: Required<ChoiceResult>;
  /** The K heaviest tiles of each query tile, which only dense attention knows. */
  best: ChoiceResult;
  /** Key tiles of every query tile, ascending, [H, N, K]. */
  lists: Int32Array;
  /** Dense attention's mass from query tile to key tile, [H, N, N]. */
  mass: Float32Array;
  curve: MassCurve;
  times: {
    dense: Timing;
    /** All of VSA's forward: pooling, selection, fine attention. */
    vsa: Timing;
    /** Pooling and selection alone. */
    selection: Timing;
    /** Fine attention over random lists. */
    random: Timing;
    /** VSA's forward and backward. */
    vsaWithBackward: Timing;
  };
  /** Of one forward, counted from the actual lists: 4 D (valid queries x selected valid keys). */
  flops: { dense: number; vsa: number };
  /** Tensors alive after VSA's forward: q, k, v, output and what is saved for the backward. */
  memory: { numTensors: number; numBytes: number };
}

/** Work of the stages in units of one dense forward, for the progress bar. Few calls are fast enough to be repeated. */
export function measureStages(sparsity: number): Record<Stage, number> {
  const fine = 1 - sparsity;
  return { vsa: 0.05 + 2 * fine, dense: 1.2, random: 2 * fine, mass: 1.4, backward: 0.05 + 4 * fine };
}
type Stage = 'vsa' | 'dense' | 'random' | 'mass' | 'backward';

const STAGE_NAMES: Record<Stage, string> = {
  vsa: 'video sparse attention',
  dense: 'dense attention',
  random: 'random tiles',
  mass: 'where dense attention looks',
  backward: 'forward and backward',
};

/** Runs everything; on return all tensors are disposed, also when it throws. `share(stage)` is for the progress. */
export async function measure(options: MeasureOptions, share: (stage: Stage) => number): Promise<Measurement> {
  const { projections, grid, heads, headDim, dtype, device, topK, seed, progress } = options;
  const N = grid.tileCount;
  const scope = new Scope();
  const enter = (stage: Stage) => progress.stage(STAGE_NAMES[stage], share(stage));
  try {
    const shape = [1, grid.length, heads, headDim];
    const upload = (data: Float32Array) => scope.own(Tensor.from(data, shape, { dtype, device }));
    const inputs = { q: upload(projections.q), k: upload(projections.k), v: upload(projections.v) };

    enter('vsa');
    const vsa = await timed(
      device,
      () => videoSparseAttention.forward({ ...inputs, grid, topK, coarse: 'skip' }),
      scope,
    );
    const alive = memory();
    const lists = Int32Array.from((await vsa.result.saved.lists.toArrays()).flat());
    const vsaOutput = await vsa.result.output.toFloat32();
    const vsaLse = (await vsa.result.saved.lse.data()) as Float32Array;
    scope.release(vsa.owned);
    const selection = await select(options, inputs, scope);

    enter('dense');
    const dense = await timed(device, () => denseAttention.forward(inputs), scope);
    const denseOutput = await dense.result.output.toFloat32();
    const denseLse = (await dense.result.saved.lse.data()) as Float32Array;
    scope.release(dense.owned);
    const choice = (output: Float32Array, lse: Float32Array): Required<ChoiceResult> => {
      const held = heldByTile(grid, heads, { some: lse, all: denseLse });
      const errors = compareOutputs(output, denseOutput, heads, headDim);
      return { held, heldByHead: headMeans(grid, heads, held), errors };
    };

    enter('random');
    const randomIndices = await randomLists(heads * N, N, topK, seed);
    const offsets = Int32Array.from({ length: heads * N + 1 }, (_, row) => row * topK);
    const listsShape = { batch: 1, heads, queryTiles: N, keyTiles: N };
    const chosen = scope.own(TileLists.from({ offsets, indices: randomIndices }, listsShape, { device }));
    const random = await timed(device, () => blockSparseAttention.forward({ ...inputs, grid, lists: chosen }), scope);
    const randomOutput = await random.result.output.toFloat32();
    const randomLse = (await random.result.saved.lse.data()) as Float32Array;
    scope.release(random.owned);

    enter('mass');
    const mass = await massMap({ ...inputs, grid, dense: denseLse, onTile: () => progress.advance(1 / N) });
    const bestHeld = heldByBest(mass, N, topK);

    enter('backward');
    const vsaWithBackward = await timeBackward(options, inputs, scope);

    return {
      vsa: choice(vsaOutput, vsaLse),
      random: choice(randomOutput, randomLse),
      best: { held: bestHeld, heldByHead: headMeans(grid, heads, bestHeld) },
      lists,
      mass,
      curve: massCurve(grid, mass, selection.scores),
      times: {
        dense: dense.timing,
        vsa: vsa.timing,
        selection: selection.timing,
        random: random.timing,
        vsaWithBackward,
      },
      flops: { dense: 4 * heads * headDim * grid.length ** 2, vsa: fineFlops(grid, lists, headDim, topK) },
      memory: alive,
    };
  } finally {
    scope.dispose();
  }
}

interface Inputs {
  q: Tensor;
  k: Tensor;
  v: Tensor;
}

/** Pooling and selection by themselves: their time, and the scores that were ranked, [H, N, N]. */
async function select(
  { grid, device, topK }: MeasureOptions,
  { q, k }: Inputs,
  scope: Scope,
): Promise<{ timing: Timing; scores: Float32Array }> {
  const run = (returnScores: boolean) =>
    tidy(() => {
      const pool = (x: Tensor) => tilePooling.forward({ x, grid }).output;
      return tileSelection.forward({ q: pool(q), k: pool(k), grid, topK, returnScores });
    });
  const { timing, owned } = await timed(device, () => run(false), scope);
  scope.release(owned);
  const ranked = run(true);
  const rankedOwned = disposables(ranked).map((value) => scope.own(value));
  const scores = (await ranked.scores!.data()) as Float32Array;
  scope.release(rankedOwned);
  return { timing, scores };
}

/** One forward and backward, with the gradient of a random linear loss. */
async function timeBackward(options: MeasureOptions, inputs: Inputs, scope: Scope): Promise<Timing> {
  const { grid, device, dtype, topK, seed } = options;
  const gradient = scope.own(Tensor.randn(inputs.q.shape, { dtype, device, seed: streamSeed(seed, GRADIENT_STREAM) }));
  const { timing, owned } = await timed(
    device,
    () =>
      tidy(() => {
        const { saved } = videoSparseAttention.forward({ ...inputs, grid, topK, coarse: 'skip' });
        return videoSparseAttention.backward(saved, { output: gradient });
      }),
    scope,
  );
  scope.release([...owned, gradient]);
  return timing;
}

/** Longer calls than this, in milliseconds, are made once. */
const SLOW = 1500;
/** Fast calls are repeated after a first one that warms up, until they have taken this long together. */
const ENOUGH = 1000;
const MOST_RUNS = 7;

/** Times a call that queues work on the device; the clock stops when the device is done. Keeps the last result. */
async function timed<T extends object>(
  device: Device,
  run: () => T,
  scope: Scope,
): Promise<{ result: T; owned: Disposable[]; timing: Timing }> {
  await device.synchronize();
  const samples: number[] = [];
  let total = 0;
  let warm = false;
  for (;;) {
    const start = performance.now();
    const result = run();
    const owned = disposables(result).map((value) => scope.own(value));
    await device.synchronize();
    const ms = performance.now() - start;
    if (warm || ms >= SLOW) {
      samples.push(ms);
      total += ms;
    }
    warm = true;
    if (ms >= SLOW || total >= ENOUGH || samples.length === MOST_RUNS) {
      return { result, owned, timing: { ms: median(samples), runs: samples.length } };
    }
    scope.release(owned);
  }
}

function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The values of a result that own memory. */
function disposables(result: object): Disposable[] {
  return Object.values(result).filter(
    (value): value is Disposable => typeof value === 'object' && value !== null && Symbol.dispose in value,
  );
}

/** Owns tensors across awaits, where a tidy cannot. */
class Scope {
  readonly #owned = new Set<Disposable>();

  own<T extends Disposable>(value: T): T {
    this.#owned.add(value);
    return value;
  }

  /** Disposes some early. */
  release(values: readonly Disposable[]): void {
    for (const value of values) {
      value[Symbol.dispose]();
      this.#owned.delete(value);
    }
  }

  dispose(): void {
    this.release([...this.#owned]);
  }
}

/** Streams of the seed that heads do not use. */
const LISTS_STREAM = 65_534;
const GRADIENT_STREAM = 65_535;

/** A seed of its own for each use, from the user's 32-bit one. */
export function streamSeed(seed: number, stream: number): bigint {
  return BigInt(seed) * 65_536n + BigInt(stream);
}

/** `rows` lists of `count` different tiles of N, ascending; every choice equally likely. */
async function randomLists(rows: number, N: number, count: number, seed: number): Promise<Int32Array> {
  const words = Tensor.randbits([rows * count], { seed: streamSeed(seed, LISTS_STREAM), device: 'cpu' });
  const bits = Uint32Array.from(await words.data());
  words.dispose();
  const result = new Int32Array(rows * count);
  const deck = Int32Array.from({ length: N }, (_, tile) => tile);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < count; i++) {
      const pick = i + Math.floor((bits[row * count + i]! / 2 ** 32) * (N - i));
      const tile = deck[pick]!;
      deck[pick] = deck[i]!;
      deck[i] = tile;
    }
    result.set(deck.slice(0, count).sort(), row * count);
  }
  return result;
}

/** Errors of an output [L, H, D] by head. */
export function compareOutputs(
  output: Float32Array,
  dense: Float32Array,
  heads: number,
  headDim: number,
): OutputError[] {
  return Array.from({ length: heads }, (_, head) => {
    let difference = 0;
    let size = 0;
    let max = 0;
    for (let row = head * headDim; row < dense.length; row += heads * headDim) {
      for (let at = row; at < row + headDim; at++) {
        const delta = output[at]! - dense[at]!;
        difference += delta * delta;
        size += dense[at]! * dense[at]!;
        max = Math.max(max, Math.abs(delta));
      }
    }
    return { relative: difference === 0 ? 0 : Math.sqrt(difference / size), max };
  });
}

function fineFlops(grid: TileGrid, lists: Int32Array, headDim: number, topK: number): number {
  const valid = validTokens(grid);
  let pairs = 0;
  lists.forEach((key, at) => {
    pairs += valid[Math.floor(at / topK) % valid.length]! * valid[key]!;
  });
  return 4 * headDim * pairs;
}
