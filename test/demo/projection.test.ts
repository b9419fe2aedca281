import { HEAD_KINDS, contentOf, headKind, project } from '../../lib/demo/projection.js';
import type { NormalSource } from '../../lib/demo/projection.js';
import type { TokenShape } from '../../lib/demo/cells.js';
import { noiseBytes, sameBits } from './support.js';

/** Normal enough: sums of twelve uniform numbers. */
const normal: NormalSource = (count, stream) => {
  const bytes = noiseBytes(count * 12, 1000 + stream);
  const numbers = new Float32Array(count);
  for (let at = 0, from = 0; at < count; at++) {
    let sum = 0;
    for (const end = from + 12; from < end; from++) sum += (bytes[from]! + 0.5) / 256 - 0.5;
    numbers[at] = sum;
  }
  return numbers;
};

const shape: TokenShape = [5, 4, 6];
const length = 5 * 4 * 6;
const tokens = noiseBytes(length * 64, 3);

/** The logit of two tokens under a head: q of one times k of the other over sqrt(D). */
function logit(q: Float32Array, k: Float32Array, a: number, b: number, head: number, heads: number, D: number): number {
  let sum = 0;
  for (let d = 0; d < D; d++) sum += q[(a * heads + head) * D + d]! * k[(b * heads + head) * D + d]!;
  return sum / Math.sqrt(D);
}

test('is a linear map of content and place, summed as float64 sums it', async () => {
  const [heads, D] = [2, 64];
  const { q, v } = await project({ tokens, shape, heads, headDim: D, normal });
  const content = contentOf(tokens, length);
  for (let head = 0; head < heads; head++) {
    const weights = await normal(64 * D, head * 4 + 3);
    for (const token of [0, 17, length - 1]) {
      for (const d of [0, 31, 63]) {
        let sum = 0;
        for (let f = 0; f < 64; f++) sum += content[token * 64 + f]! * (weights[f * D + d]! / 8);
        expect(v[(token * heads + head) * D + d]).toBeCloseTo(sum, 5);
      }
    }
  }
  // q: the content head ignores place, so equal content at two places gives equal queries.
  const twice = tokens.slice();
  twice.copyWithin(64 * 50, 0, 64);
  const same = await project({ tokens: twice, shape, heads, headDim: D, normal });
  const row = (token: number, head: number) => [
    ...same.q.subarray((token * heads + head) * D, (token * heads + head + 1) * D),
  ];
  expect(row(0, 0)).toEqual(row(50, 0));
  expect(row(0, 1)).not.toEqual(row(50, 1));
  expect(q).toHaveLength(length * heads * D);
});

test('tokens attract each other by content and nearness, as the head’s kind says', async () => {
  const [heads, D] = [4, 128];
  const { q, k } = await project({ tokens, shape, heads, headDim: D, normal });
  HEAD_KINDS.forEach((kind, head) => {
    const full = kind.content + kind.place.reduce((sum, weight) => sum + weight, 0);
    let own = 0;
    let others = 0;
    for (let token = 0; token < length; token++) {
      own += logit(q, k, token, token, head, heads, D) / length;
      others += logit(q, k, token, (token + 61) % length, head, heads, D) / length;
    }
    // A token's logit with itself is the sum of all weights, up to the randomness of 128 dimensions.
    expect(Math.abs(own / full - 1)).toBeLessThan(0.2);
    expect(others).toBeLessThan(own * 0.6);
  });
});

test('gives the same for the same stream, other heads other numbers, and no gaps with an odd token count', async () => {
  const odd: TokenShape = [1, 3, 3];
  const options = { tokens: tokens.subarray(0, 9 * 64), shape: odd, heads: 5, headDim: 96, normal };
  const [one, other] = [await project(options), await project(options)];
  for (const name of ['q', 'k', 'v'] as const) expect(sameBits(one[name], other[name])).toBe(true);
  const head = (at: number) => [...one.q.subarray(at * 96, (at + 1) * 96)];
  expect(headKind(4)).toBe(headKind(0));
  expect(head(4)).not.toEqual(head(0));
  const last = one.q.subarray(8 * 5 * 96);
  expect(last.every((value) => Number.isFinite(value) && value !== 0)).toBe(true);
});

test('standardises features over the clip, and copes with one that never changes', () => {
  const content = contentOf(tokens, length);
  for (let f = 0; f < 64; f++) {
    const values = Array.from({ length }, (_, token) => content[token * 64 + f]!);
    const mean = values.reduce((sum, value) => sum + value, 0) / length;
    expect(mean).toBeCloseTo(0, 9);
    expect(values.reduce((sum, value) => sum + value * value, 0) / length).toBeCloseTo(1, 9);
  }
  expect(contentOf(new Uint8Array(length * 64).fill(90), length).every((value) => value === 0)).toBe(true);
});

test('a clip of one colour gives finite numbers', async () => {
  const grey = new Uint8Array(length * 64).fill(90);
  const { q, k, v } = await project({ tokens: grey, shape, heads: 4, headDim: 64, normal });
  for (const values of [q, k]) expect(values.every(Number.isFinite)).toBe(true);
  expect(v.every((value) => value === 0)).toBe(true);
});

test('tells its progress head by head', async () => {
  const heads: number[] = [];
  await project({ tokens, shape, heads: 3, headDim: 64, normal, onHead: (head) => heads.push(head) });
  expect(heads).toEqual([0, 1, 2]);
});
