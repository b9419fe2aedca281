/**
 * q, k and v of a clip without a model: fixed, seeded random projections of what a token shows (its 64 features) and of
 * where it is. Queries and keys of a head share most of their projection, so tokens that look alike or lie close attract
 * each other, as they do in trained video models; the heads differ on purpose in how much each of the two counts.
 */
import { TOKEN_FEATURES, TOKEN_QUADRANTS, quadrantFeatures } from './cells.js';
import type { TokenShape } from './cells.js';

/** What a head goes by: logit = content * cos(content) + sum over axes of place[axis] * bump(distance / reach[axis]). */
export interface HeadKind {
  readonly name: string;
  readonly description: string;
  /** Logit between tokens of the same content. */
  readonly content: number;
  /** Logit between tokens of the same place along t, y, x; 0: the head does not see that axis. */
  readonly place: readonly [t: number, y: number, x: number];
  /** Standard deviation of the attraction: along t in clip lengths, along y and x in frame heights. */
  readonly reach: readonly [t: number, y: number, x: number];
}

/** Head h is of kind h % 4. Logits are set so that dense attention is as peaked as in trained models. */
export const HEAD_KINDS: readonly HeadKind[] = [
  {
    name: 'content',
    description: 'looks for the same content, anywhere in the clip',
    content: 16,
    place: [0, 0, 0],
    reach: [1, 1, 1],
  },
  {
    name: 'local',
    description: 'looks at the neighbourhood in space and time',
    content: 4,
    place: [4, 5, 5],
    reach: [0.14, 0.16, 0.16],
  },
  {
    name: 'temporal',
    description: 'looks at the same place through the whole clip',
    content: 5,
    place: [0, 7, 7],
    reach: [1, 0.14, 0.14],
  },
  {
    name: 'mixed',
    description: 'looks for the same content, rather near than far',
    content: 11,
    place: [2, 3, 3],
    reach: [0.3, 0.35, 0.35],
  },
];

export function headKind(head: number): HeadKind {
  return HEAD_KINDS[head % HEAD_KINDS.length]!;
}

/** Frequencies per axis; each gives a cosine and a sine. */
const FREQUENCIES = 8;
const AXIS_FEATURES = 2 * FREQUENCIES;
/** Features that q and k are projected from: content, then place along t, y, x. */
const FEATURES = TOKEN_FEATURES + 3 * AXIS_FEATURES;
/** How far q's and k's own projections differ from the one that they share. */
const OWN_SHARE = 0.15;
/** Streams of random numbers that a head uses: shared, own of q, own of k, of v. */
const STREAMS = 4;

/** `count` standard normal numbers; the same for the same stream, on every machine. */
export type NormalSource = (count: number, stream: number) => Float32Array | Promise<Float32Array>;

export interface ProjectionOptions {
  /** uint8 features, [T, Y, X, 64]. */
  tokens: Uint8Array;
  shape: TokenShape;
  heads: number;
  headDim: number;
  normal: NormalSource;
  /** Called after each head. */
  onHead?: (head: number) => void;
}

export interface Projections {
  /** float32, [L, H, D] each, with L = T * Y * X. */
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
}

/** Projects a clip's tokens to queries, keys and values. Pure arithmetic: about L * 64 * 3 D products a head. */
export async function project(options: ProjectionOptions): Promise<Projections> {
  const { tokens, shape, heads, headDim, normal, onHead } = options;
  const length = shape[0] * shape[1] * shape[2];
  const content = contentOf(tokens, length);
  const direction = unitRows(content, length);
  const q = new Float32Array(length * heads * headDim);
  const k = new Float32Array(length * heads * headDim);
  const v = new Float32Array(length * heads * headDim);
  for (let head = 0; head < heads; head++) {
    const kind = headKind(head);
    const stream = head * STREAMS;
    const shared = await normal(FEATURES * headDim, stream);
    const ownQ = await normal(FEATURES * headDim, stream + 1);
    const ownK = await normal(FEATURES * headDim, stream + 2);
    const weightV = await normal(TOKEN_FEATURES * headDim, stream + 3);
    // The operator divides logits by sqrt(D); weights of variance 1 / D keep the inner products of the features.
    const size = Math.sqrt(Math.sqrt(headDim) / headDim);
    const to = { heads, head, headDim, length };
    for (const [own, output] of [
      [ownQ, q],
      [ownK, k],
    ] as const) {
      const weights = Float64Array.from(shared, (weight, at) => (weight + OWN_SHARE * own[at]!) * size);
      const contentWeights = weights.subarray(0, TOKEN_FEATURES * headDim).map((w) => w * Math.sqrt(kind.content));
      multiply(direction, contentWeights, output, to);
      addPlace(shape, kind, weights.subarray(TOKEN_FEATURES * headDim), output, to);
    }
    multiply(
      content,
      Float64Array.from(weightV, (weight) => weight / Math.sqrt(TOKEN_FEATURES)),
      v,
      to,
    );
    onHead?.(head);
    await new Promise((resume) => setImmediate(resume)); // a head takes up to a second: let progress be drawn
  }
  return { q, k, v };
}

/**
 * What tokens show, [L, 64]: luma, two colour differences and the square root of the change of every quadrant, each with
 * mean 0 and variance 1 over the clip; one that never changes is 0. Without the differences light would drown colour.
 */
export function contentOf(tokens: Uint8Array, length: number): Float64Array {
  const content = new Float64Array(length * TOKEN_FEATURES);
  const sum = new Float64Array(TOKEN_FEATURES);
  const squares = new Float64Array(TOKEN_FEATURES);
  for (let quadrant = 0; quadrant < TOKEN_QUADRANTS * TOKEN_QUADRANTS; quadrant++) {
    const { color, change } = quadrantFeatures(Math.floor(quadrant / TOKEN_QUADRANTS), quadrant % TOKEN_QUADRANTS);
    const to = quadrant * 4;
    for (let token = 0; token < length * TOKEN_FEATURES; token += TOKEN_FEATURES) {
      const red = tokens[token + color]!;
      const green = tokens[token + color + 1]!;
      const blue = tokens[token + color + 2]!;
      const luma = 0.299 * red + 0.587 * green + 0.114 * blue;
      content[token + to] = luma;
      content[token + to + 1] = red - luma;
      content[token + to + 2] = blue - luma;
      content[token + to + 3] = Math.sqrt(tokens[token + change]!);
      for (let f = to; f < to + 4; f++) {
        const value = content[token + f]!;
        sum[f] = sum[f]! + value;
        squares[f] = squares[f]! + value * value;
      }
    }
  }
  for (let feature = 0; feature < TOKEN_FEATURES; feature++) {
    const mean = sum[feature]! / length;
    const variance = squares[feature]! / length - mean * mean;
    const scale = variance > 1e-6 ? 1 / Math.sqrt(variance) : 0;
    for (let at = feature; at < content.length; at += TOKEN_FEATURES) content[at] = (content[at]! - mean) * scale;
  }
  return content;
}

/** Rows of `content` scaled to length 1, so that no token attracts all others by sheer contrast. */
function unitRows(content: Float64Array, length: number): Float64Array {
  const result = new Float64Array(content.length);
  for (let token = 0; token < length; token++) {
    const from = token * TOKEN_FEATURES;
    let squares = 0;
    for (let at = from; at < from + TOKEN_FEATURES; at++) squares += content[at]! * content[at]!;
    const scale = squares > 0 ? 1 / Math.sqrt(squares) : 0;
    for (let at = from; at < from + TOKEN_FEATURES; at++) result[at] = content[at]! * scale;
  }
  return result;
}

/** Quantiles of a half-normal distribution: frequencies in radians per reach. */
const ANGULAR_FREQUENCIES = Array.from({ length: FREQUENCIES }, (_, r) =>
  normalQuantile(0.5 + (r + 0.5) / (2 * FREQUENCIES)),
);

/**
 * Fourier features of the places 0..count-1 of an axis, [count, 16], each times `scale`. The frequencies are quantiles
 * of a normal distribution, so that the mean of their cosines, which an inner product of two rows takes, is a Gaussian
 * bump with standard deviation `reach`.
 */
function fourier(count: number, reach: number, scale: number): Float64Array {
  const table = new Float64Array(count * AXIS_FEATURES);
  for (let index = 0; index < count; index++) {
    for (let r = 0; r < FREQUENCIES; r++) {
      const angle = (index * ANGULAR_FREQUENCIES[r]!) / reach;
      table[(index * FREQUENCIES + r) * 2] = Math.cos(angle) * scale;
      table[(index * FREQUENCIES + r) * 2 + 1] = Math.sin(angle) * scale;
    }
  }
  return table;
}

interface Head {
  heads: number;
  head: number;
  headDim: number;
  /** Tokens. */
  length: number;
}

/** output[:, head, :] = rows [L, 64] times weights [64, D], summed in float64. */
function multiply(rows: Float64Array, weights: Float64Array, output: Float32Array, to: Head): void {
  const { heads, head, headDim, length } = to;
  // Two tokens by four channels at a time: eight sums stay in registers. D is a multiple of 4.
  for (let token = 0; token < length; token += 2) {
    const row0 = token * TOKEN_FEATURES;
    const row1 = token + 1 < length ? row0 + TOKEN_FEATURES : row0; // the last of an odd count twice
    const out0 = (token * heads + head) * headDim;
    const out1 = row1 === row0 ? out0 : out0 + heads * headDim;
    for (let d = 0; d < headDim; d += 4) {
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0; // prettier-ignore
      let b0 = 0, b1 = 0, b2 = 0, b3 = 0; // prettier-ignore
      for (let f = 0, w = d; f < TOKEN_FEATURES; f++, w += headDim) {
        const a = rows[row0 + f]!;
        const b = rows[row1 + f]!;
        a0 += a * weights[w]!;
        a1 += a * weights[w + 1]!;
        a2 += a * weights[w + 2]!;
        a3 += a * weights[w + 3]!;
        b0 += b * weights[w]!;
        b1 += b * weights[w + 1]!;
        b2 += b * weights[w + 2]!;
        b3 += b * weights[w + 3]!;
      }
      output[out0 + d] = a0;
      output[out0 + d + 1] = a1;
      output[out0 + d + 2] = a2;
      output[out0 + d + 3] = a3;
      output[out1 + d] = b0;
      output[out1 + d + 1] = b1;
      output[out1 + d + 2] = b2;
      output[out1 + d + 3] = b3;
    }
  }
}

/** Adds the projected place of every token: a vector for its t, one for its y and one for its x. */
function addPlace(shape: TokenShape, kind: HeadKind, weights: Float64Array, output: Float32Array, to: Head): void {
  const [T, Y, X] = shape;
  const { heads, head, headDim } = to;
  const units = [T, Y, Y]; // reach along t counts in clip lengths, along y and x in frame heights
  const vectors = shape.map((count, axis) => {
    const strength = Math.sqrt(kind.place[axis]! / FREQUENCIES);
    const table = fourier(count, kind.reach[axis]! * units[axis]!, strength);
    const result = new Float64Array(count * headDim);
    for (let at = 0; at < table.length; at++) {
      const from = (axis * AXIS_FEATURES + (at % AXIS_FEATURES)) * headDim;
      const row = Math.floor(at / AXIS_FEATURES) * headDim;
      for (let d = 0; d < headDim; d++) result[row + d] = result[row + d]! + table[at]! * weights[from + d]!;
    }
    return result;
  });
  const [alongT, alongY, alongX] = vectors as [Float64Array, Float64Array, Float64Array];
  for (let t = 0, out = head * headDim; t < T; t++) {
    for (let y = 0; y < Y; y++) {
      for (let x = 0; x < X; x++, out += heads * headDim) {
        for (let d = 0; d < headDim; d++) {
          const place = alongT[t * headDim + d]! + alongY[y * headDim + d]! + alongX[x * headDim + d]!;
          output[out + d] = output[out + d]! + place;
        }
      }
    }
  }
}

/** Inverse of the standard normal distribution function, by bisection on a series of the error function. */
function normalQuantile(probability: number): number {
  let low = -8;
  let high = 8;
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (normalDistribution(middle) < probability) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** P(Z <= z) by Marsaglia's series, which converges fast for |z| < 7. */
function normalDistribution(z: number): number {
  let sum = z;
  let term = z;
  for (let i = 3; Math.abs(term) > 1e-17 && i < 400; i += 2) {
    term *= (z * z) / i;
    sum += term;
  }
  return 0.5 + (sum * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI);
}
