/**
 * The generator of `Tensor.randn` and `Tensor.randbits`, written again from its definition: Philox4x32-10 (Salmon et
 * al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and the Box-Muller transform, in float64.
 */

export type FourWords = readonly [number, number, number, number];
export type Key = readonly [number, number];

const ROUNDS = 10;
const MULTIPLIERS = [0xd2511f53n, 0xcd9e8d57n] as const;
/** Added to the key from round to round. */
const WEYL = [0x9e3779b9, 0xbb67ae85] as const;
const WORD = 0xffffffffn;

/** Ten rounds on four 32-bit words, under a key of two. */
export function philox4x32(counter: FourWords, key: Key): FourWords {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const product0 = MULTIPLIERS[0] * BigInt(c0);
    const product1 = MULTIPLIERS[1] * BigInt(c2);
    [c0, c1, c2, c3] = [high(product1) ^ c1 ^ k0, low(product1), high(product0) ^ c3 ^ k1, low(product0)];
    [c0, c2] = [c0 >>> 0, c2 >>> 0];
    [k0, k1] = [(k0 + WEYL[0]) >>> 0, (k1 + WEYL[1]) >>> 0];
  }
  return [c0, c1, c2, c3];
}

function high(product: bigint): number {
  return Number(product >> 32n);
}

function low(product: bigint): number {
  return Number(product & WORD);
}

/** The first `count` words of a 64-bit seed: block n has the counter (n, 0) of 64 bits each and gives four. */
export function philoxWords(seed: bigint, count: number): Uint32Array {
  const key: Key = [Number(seed & WORD), Number(seed >> 32n)];
  const words = new Uint32Array(Math.ceil(count / 4) * 4);
  for (let block = 0; block < words.length / 4; block++) {
    words.set(philox4x32([block >>> 0, Math.floor(block / 2 ** 32), 0, 0], key), 4 * block);
  }
  return words.subarray(0, count);
}

/** `count` numbers mean + std * z, two standard normals z from every two words. */
export function philoxNormals(seed: bigint, count: number, mean: number, std: number): Float64Array {
  const words = philoxWords(seed, Math.ceil(count / 2) * 2);
  const normals = new Float64Array(words.length);
  for (let i = 0; i < words.length; i += 2) {
    const u1 = (words[i]! + 0.5) / 2 ** 32;
    const u2 = (words[i + 1]! + 0.5) / 2 ** 32;
    const radius = Math.sqrt(-2 * Math.log(u1));
    normals[i] = mean + std * radius * Math.cos(2 * Math.PI * u2);
    normals[i + 1] = mean + std * radius * Math.sin(2 * Math.PI * u2);
  }
  return normals.subarray(0, count);
}

/** Whole numbers from 0 to below `n`, one a call: for lists and the like, where bias by 2^-32 does not matter. */
export function philoxIntegers(seed: bigint): (n: number) => number {
  const key: Key = [Number(seed & WORD), Number(seed >> 32n)];
  let counter = 0;
  let words: FourWords = [0, 0, 0, 0];
  return (n) => {
    if (counter % 4 === 0) words = philox4x32([counter / 4, 0, 0, 0], key);
    return Math.floor((words[counter++ % 4]! / 2 ** 32) * n);
  };
}
