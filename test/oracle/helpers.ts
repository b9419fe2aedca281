/** Seeded numbers, finite differences, and a second, still plainer definition of the operator's forward. */
import type { OracleGrid, VsaInputs } from '../../lib/oracle/index.js';

/** Numbers in [0, 1), the same for the same seed. */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** n normally distributed numbers. */
export function normal(n: number, seed: number): Float64Array {
  const next = uniform(seed);
  return Float64Array.from({ length: n }, () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
}

/** Whether two arrays hold the same values, NaN and the sign of zero included (Jest's toEqual takes seconds). */
export function same(a: Float64Array, b: Float64Array): boolean {
  const { is } = Object;
  return a.length === b.length && a.every((value, i) => is(value, b[i]));
}

export function inner(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}

/**
 * Checks `gradient` of the scalar function `loss` at `x` by central differences: along three random directions of
 * length 1 and along `elements` single elements, among them the first and the last.
 */
export function expectGradient(
  loss: (x: Float64Array) => number,
  x: Float64Array,
  gradient: Float64Array,
  { elements = 6, seed = 1 } = {},
): void {
  expect(gradient.length).toBe(x.length);
  const step = 1e-5;
  const slope = (direction: Float64Array) => {
    const at = (h: number) => loss(x.map((value, i) => value + h * direction[i]!));
    return (at(step) - at(-step)) / (2 * step);
  };
  const check = (direction: Float64Array) => {
    const [measured, claimed] = [slope(direction), inner(gradient, direction)];
    expect(Math.abs(measured - claimed)).toBeLessThanOrEqual(1e-6 * Math.abs(measured) + 2e-8);
  };
  for (let trial = 0; trial < 3; trial++) {
    const direction = normal(x.length, seed + trial);
    const norm = Math.sqrt(inner(direction, direction));
    check(direction.map((value) => value / norm));
  }
  const next = uniform(seed);
  for (let trial = 0; trial < elements; trial++) {
    const index = trial === 0 ? 0 : trial === 1 ? x.length - 1 : Math.floor(next() * x.length);
    const unit = new Float64Array(x.length);
    unit[index] = 1;
    check(unit);
  }
}

interface Named {
  readonly tokens: readonly number[]; // of the tile
}

/** The tiles of a grid as token sets, found by walking tile by tile (the oracle walks token by token). */
export function tilesOf(grid: OracleGrid): Named[] {
  const { tokens, tile, prefix = 0 } = grid;
  const volume = tile[0] * tile[1] * tile[2];
  const tiles: Named[] = [];
  for (let start = 0; start < prefix; start += volume) {
    tiles.push({ tokens: Array.from({ length: Math.min(volume, prefix - start) }, (_, e) => start + e) });
  }
  for (let t0 = 0; t0 < tokens[0]; t0 += tile[0]) {
    for (let y0 = 0; y0 < tokens[1]; y0 += tile[1]) {
      for (let x0 = 0; x0 < tokens[2]; x0 += tile[2]) {
        const inside: number[] = [];
        for (let t = t0; t < Math.min(t0 + tile[0], tokens[0]); t++) {
          for (let y = y0; y < Math.min(y0 + tile[1], tokens[1]); y++) {
            for (let x = x0; x < Math.min(x0 + tile[2], tokens[2]); x++) {
              inside.push(prefix + (t * tokens[1] + y) * tokens[2] + x);
            }
          }
        }
        tiles.push({ tokens: inside });
      }
    }
  }
  return tiles;
}

/** Softmax attention of one query over rows of keys, and its log-sum-exp. */
export function attend(q: number[], keys: number[][], values: number[][], scale: number) {
  const scores = keys.map((key) => scale * key.reduce((sum, value, d) => sum + value * q[d]!, 0));
  const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
  const output = q.map((_, d) => scores.reduce((sum, s, j) => sum + (Math.exp(s) / total) * values[j]![d]!, 0));
  return { scores, output: keys.length === 0 ? q.map(() => 0) : output, lse: Math.log(total) };
}

/** The operator by its definition, vector by vector; small inputs only. */
export function plainVsa(inputs: VsaInputs) {
  const { batch, heads, kvHeads = heads, headDim, grid, keyGrid = grid, choice, coarse = 'skip' } = inputs;
  const scale = inputs.scale ?? headDim ** -0.5;
  const length = (of: OracleGrid) => (of.prefix ?? 0) + of.tokens[0] * of.tokens[1] * of.tokens[2];
  const vectors = (x: Float64Array, rows: number, H: number, b: number, h: number) =>
    Array.from({ length: rows }, (_, n) => [
      ...x.subarray(((b * rows + n) * H + h) * headDim, ((b * rows + n) * H + h + 1) * headDim),
    ]);
  const mean = (rows: number[][], tokens: readonly number[]) =>
    rows[0]!.map((_, d) => tokens.reduce((sum, n) => sum + rows[n]![d]!, 0) / tokens.length);
  const [queryTiles, keyTiles] = [tilesOf(grid), tilesOf(keyGrid)];
  const queryPrefix = queryTiles.length - tilesOf({ ...grid, prefix: 0 }).length;
  const keyPrefix = keyTiles.length - tilesOf({ ...keyGrid, prefix: 0 }).length;

  const L = length(grid);
  const output = new Float64Array(inputs.q.length);
  const lse = new Float64Array(batch * heads * L);
  const lists: number[][] = [];
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const g = Math.trunc((h * kvHeads) / heads);
      const q = vectors(inputs.q, L, heads, b, h);
      const k = vectors(inputs.k, length(keyGrid), kvHeads, b, g);
      const v = vectors(inputs.v, length(keyGrid), kvHeads, b, g);
      const [kc, vc] = [keyTiles.map((tile) => mean(k, tile.tokens)), keyTiles.map((tile) => mean(v, tile.tokens))];
      queryTiles.forEach((tile, i) => {
        const pooled = attend(mean(q, tile.tokens), kc, vc, scale);
        let list: number[];
        if ('lists' in choice) {
          list = [...choice.lists[(b * heads + h) * queryTiles.length + i]!];
        } else if (i < queryPrefix) {
          list = keyTiles.map((_, j) => j);
        } else {
          const compete = choice.prefix === 'compete';
          const chosen = new Set<number>(choice.includeSelf ? [i] : []);
          while (chosen.size < choice.topK + (compete ? keyPrefix : 0)) {
            let best = -1;
            for (let j = compete ? 0 : keyPrefix; j < keyTiles.length; j++) {
              if (!chosen.has(j) && (best < 0 || pooled.scores[j]! > pooled.scores[best]!)) best = j;
            }
            chosen.add(best);
          }
          if (!compete) for (let j = 0; j < keyPrefix; j++) chosen.add(j);
          list = keyTiles.map((_, j) => j).filter((j) => chosen.has(j));
        }
        lists.push(list);
        const picked = list.flatMap((j) => keyTiles[j]!.tokens);
        for (const n of tile.tokens) {
          const fine = attend(
            q[n]!,
            picked.map((m) => k[m]!),
            picked.map((m) => v[m]!),
            scale,
          );
          lse[(b * heads + h) * L + n] = fine.lse;
          for (let d = 0; d < headDim; d++) {
            const at = ((b * L + n) * heads + h) * headDim + d;
            const coarseGate = coarse === 'skip' ? 0 : coarse === 'add' ? 1 : coarse.gate[at]!;
            output[at] = coarseGate * pooled.output[d]! + (inputs.fine?.gate[at] ?? 1) * fine.output[d]!;
          }
        }
      });
    }
  }
  return { output, lse, lists };
}

/** Sizes of a case of the whole operator; random values are made for it. */
export type Case = Omit<VsaInputs, 'q' | 'k' | 'v' | 'coarse' | 'fine'> & {
  readonly name: string;
  readonly coarse?: 'skip' | 'add' | 'gate';
  readonly fineGate?: boolean;
};

/** Random inputs of a case. */
export function inputsOf({ name: _, coarse = 'skip', fineGate = false, ...sizes }: Case, seed: number): VsaInputs {
  const { batch, heads, kvHeads = heads, headDim, grid, keyGrid = grid } = sizes;
  const length = (of: OracleGrid) => tilesOf(of).reduce((sum, tile) => sum + tile.tokens.length, 0);
  const queries = batch * length(grid) * heads * headDim;
  const keys = batch * length(keyGrid) * kvHeads * headDim;
  return {
    ...sizes,
    q: normal(queries, seed),
    k: normal(keys, seed + 1),
    v: normal(keys, seed + 2),
    coarse: coarse === 'gate' ? { gate: normal(queries, seed + 3) } : coarse,
    ...(fineGate ? { fine: { gate: normal(queries, seed + 4) } } : {}),
  };
}

/** Every option of the operator, and the ways in which they meet. */
export const CASES: readonly Case[] = [
  {
    name: 'whole tiles, fine stage only',
    batch: 1,
    heads: 2,
    headDim: 4,
    grid: { tokens: [2, 4, 4], tile: [1, 2, 2] },
    choice: { topK: 3 },
  },
  {
    name: 'partial tiles along every dimension, coarse added',
    batch: 1,
    heads: 2,
    headDim: 3,
    grid: { tokens: [3, 3, 5], tile: [2, 2, 2] },
    choice: { topK: 4 },
    coarse: 'add',
  },
  {
    name: 'both gates, grouped heads, batch 2',
    batch: 2,
    heads: 4,
    kvHeads: 2,
    headDim: 4,
    grid: { tokens: [2, 3, 4], tile: [1, 2, 2] },
    choice: { topK: 2 },
    coarse: 'gate',
    fineGate: true,
  },
  {
    name: 'exempt prefix with a partial tile, coarse gate, own tile kept',
    batch: 1,
    heads: 2,
    headDim: 4,
    grid: { tokens: [1, 5, 4], tile: [1, 2, 2], prefix: 7 },
    choice: { topK: 2, includeSelf: true },
    coarse: 'gate',
  },
  {
    name: 'competing prefix, fine gate only, one kv head, batch 2',
    batch: 2,
    heads: 3,
    kvHeads: 1,
    headDim: 2,
    grid: { tokens: [1, 4, 6], tile: [1, 2, 2], prefix: 9 },
    choice: { topK: 2, prefix: 'compete' },
    fineGate: true,
  },
  {
    name: 'competing prefix, own tile kept, scale 0.7',
    batch: 1,
    heads: 1,
    headDim: 4,
    grid: { tokens: [1, 4, 6], tile: [1, 2, 2], prefix: 3 },
    choice: { topK: 1, prefix: 'compete', includeSelf: true },
    coarse: 'add',
    scale: 0.7,
  },
  {
    name: 'different query and key grids with prefixes of their own',
    batch: 2,
    heads: 2,
    kvHeads: 1,
    headDim: 3,
    grid: { tokens: [2, 2, 3], tile: [1, 2, 2], prefix: 5 },
    keyGrid: { tokens: [1, 5, 3], tile: [1, 2, 2], prefix: 2 },
    choice: { topK: 3 },
    coarse: 'gate',
    fineGate: true,
  },
  {
    name: 'lists of the caller, some empty, keys never selected',
    batch: 1,
    heads: 2,
    headDim: 4,
    grid: { tokens: [1, 4, 5], tile: [1, 2, 2] },
    choice: { lists: [[], [0], [1, 2], [0, 1, 3], [], [4], [0, 1, 2, 3, 4], [2], [], [0, 4], [1], []] },
    coarse: 'gate',
  },
  {
    name: 'tiles of 64 tokens with a prefix of two tiles',
    batch: 1,
    heads: 1,
    headDim: 4,
    grid: { tokens: [5, 4, 6], tile: [4, 4, 4], prefix: 66 },
    choice: { topK: 2 },
    coarse: 'gate',
    fineGate: true,
  },
];
