/**
 * Random numbers for data: a stream for every key, so that clip i needs nothing of the clips before it. Integers and
 * exact arithmetic only: the same numbers on every machine and in every version of Node.
 */

const { imul } = Math;

/** A bijection of 32 bits that mixes them well (the end of MurmurHash3). */
function mix(word: number): number {
  let h = word | 0;
  h = imul(h ^ (h >>> 16), 0x85ebca6b);
  h = imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/** sfc32 (PractRand's small fast counting generator), its state hashed from a key. */
export class Random {
  #a = 0x243f6a88; // pi's first bits
  #b = 0x85a308d3;
  #c = 0x13198a2e;
  #counter = 1;

  /** @param key Whole numbers below 2^53; their order matters. */
  constructor(...key: number[]) {
    for (const part of key) {
      for (const word of [part >>> 0, Math.floor(part / 2 ** 32)]) {
        this.#a = mix(this.#a ^ word);
        this.#b = mix((this.#b + this.#a) | 0);
        this.#c = mix((this.#c ^ this.#b) + word);
      }
    }
    for (let i = 0; i < 12; i++) this.bits();
  }

  /** 32 bits, 0 up to 2^32. */
  bits(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** Uniform in [from, to). */
  between(from: number, to: number): number {
    return from + (to - from) * (this.bits() / 2 ** 32);
  }

  /** Uniform whole number in [0, count); `count` at most 2^32. */
  below(count: number): number {
    // Bits past the last whole multiple of count would favour small numbers.
    const limit = 2 ** 32 - (2 ** 32 % count);
    let bits = this.bits();
    while (bits >= limit) bits = this.bits();
    return bits % count;
  }

  sign(): 1 | -1 {
    return this.bits() & 1 ? 1 : -1;
  }

  /** One of a list that is not empty. */
  of<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }
}

/** A uniform order of 0..count - 1 (Fisher and Yates). */
export function permutation(count: number, random: Random): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let last = count - 1; last > 0; last--) {
    const other = random.below(last + 1);
    const moved = order[last]!;
    order[last] = order[other]!;
    order[other] = moved;
  }
  return order;
}
