/** The generator of randn and randbits, written from its definition with whole numbers of any size. */

const MASK = 0xffffffffn;

/** Philox4x32-10 (Salmon et al., SC 2011): block n of a seed, counter (n, 0). */
export function philoxBlock(n: bigint, seed: bigint): [bigint, bigint, bigint, bigint] {
  let counter: [bigint, bigint, bigint, bigint] = [n & MASK, n >> 32n, 0n, 0n];
  let key: [bigint, bigint] = [seed & MASK, seed >> 32n];
  for (let round = 0; round < 10; round++) {
    const left = 0xd2511f53n * counter[0];
    const right = 0xcd9e8d57n * counter[2];
    counter = [(right >> 32n) ^ counter[1] ^ key[0], right & MASK, (left >> 32n) ^ counter[3] ^ key[1], left & MASK];
    key = [(key[0] + 0x9e3779b9n) & MASK, (key[1] + 0xbb67ae85n) & MASK];
  }
  return counter;
}

/** The first `count` words. */
export function philoxWords(count: number, seed: bigint): number[] {
  const words: number[] = [];
  for (let n = 0n; words.length < count; n++) words.push(...philoxBlock(n, seed).map(Number));
  return words.slice(0, count);
}

/** The first `count` standard normals, float64: Box-Muller of every two words. */
export function normals(count: number, seed: bigint): number[] {
  const words = philoxWords(count + (count % 2), seed);
  const values = words.map((_, i) => {
    const radius = Math.sqrt(-2 * Math.log((words[i - (i % 2)]! + 0.5) / 2 ** 32));
    const angle = (2 * Math.PI * (words[i - (i % 2) + 1]! + 0.5)) / 2 ** 32;
    return radius * (i % 2 === 0 ? Math.cos(angle) : Math.sin(angle));
  });
  return values.slice(0, count);
}
