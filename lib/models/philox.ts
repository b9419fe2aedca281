/** Random numbers of a training step, on the host: the same for the same seed, stream, step and index, in any order. */

// By name: a look-up of the global in every step of an inner loop is slow in sandboxes, Jest's among them.
const { floor, imul } = Math;

export type FourWords = readonly [number, number, number, number];

const ROUNDS = 10;
const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57] as const;
/** Added to the key from round to round. */
const WEYL = [0x9e3779b9, 0xbb67ae85] as const;

/** The upper 32 bits of a product of two 32-bit words. */
function high(a: number, b: number): number {
  const [aLow, aHigh, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + floor((aLow * bLow) / 2 ** 16);
  const other = aLow * bHigh + (middle % 2 ** 16);
  return aHigh * bHigh + floor(middle / 2 ** 16) + floor(other / 2 ** 16);
}

/**
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds on four 32-bit
 * words, under a key of two.
 */
export function philox4x32(counter: FourWords, key: readonly [number, number]): FourWords {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    [c0, c1, c2, c3] = [
      (high(MULTIPLIERS[1], c2) ^ c1 ^ k0) >>> 0,
      imul(MULTIPLIERS[1], c2) >>> 0,
      (high(MULTIPLIERS[0], c0) ^ c3 ^ k1) >>> 0,
      imul(MULTIPLIERS[0], c0) >>> 0,
    ];
    k0 = (k0 + WEYL[0]) >>> 0;
    k1 = (k1 + WEYL[1]) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * A standard normal number by Box-Muller, of a seed, a stream, a step and an index below 2^32. `Tensor.randn` counts
 * its blocks in the words that index and stream have here: with streams of at least 1 the two never meet.
 */
export function normalAt(seed: bigint, stream: number, step: number, index: number): number {
  const key = [Number(seed & 0xffffffffn), Number(seed >> 32n)] as const;
  const [first, second] = philox4x32([index, stream, step >>> 0, floor(step / 2 ** 32)], key);
  const u1 = (first + 0.5) / 2 ** 32;
  const u2 = (second + 0.5) / 2 ** 32;
  return Math.sqrt(-2 * Math.log(u1)) * Math.cos(2 * Math.PI * u2);
}
