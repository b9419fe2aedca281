import { normalAt, philox4x32 } from '../../lib/models/philox.js';
import { philoxBlock } from '../tensor/philox.js';

test.each([
  [
    [0, 0, 0, 0],
    [0, 0],
    [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
  ],
  [
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [0xffffffff, 0xffffffff],
    [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  ],
  [
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
] as const)('the known answers of Random123: %j under %j', (counter, key, wanted) => {
  expect(philox4x32(counter, key)).toEqual(wanted);
});

test('the same words as the definition in whole numbers of any size', () => {
  for (let n = 0; n < 200; n++) {
    const [block, seed] = [BigInt(n) ** 8n % 2n ** 64n, (BigInt(n) * 0x9e3779b97f4a7c15n) % 2n ** 64n];
    const low = (word: bigint) => Number(word & 0xffffffffn);
    const got = philox4x32([low(block), Number(block >> 32n), 0, 0], [low(seed), Number(seed >> 32n)]);
    expect(got).toEqual(philoxBlock(block, seed).map(Number));
  }
});

test('every seed, stream, step and index has a number of its own', () => {
  const calls: Parameters<typeof normalAt>[] = [
    [0n, 1, 0, 0],
    [1n, 1, 0, 0],
    [1n << 32n, 1, 0, 0],
    [0n, 2, 0, 0],
    [0n, 1, 1, 0],
    [0n, 1, 2 ** 32, 0],
    [0n, 1, 2 ** 40 + 1, 0],
    [0n, 1, 0, 1],
  ];
  expect(new Set(calls.map((call) => normalAt(...call))).size).toBe(calls.length);
});
