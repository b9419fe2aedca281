import * as fc from 'fast-check';

import { ClipOrder } from '../../lib/data/order.js';

const START = { epoch: 0, index: 0 };
const counts = fc.integer({ min: 1, max: 60 });
const sizes = fc.integer({ min: 1, max: 130 });

/** The clips of the first `batches` batches, and the position after them. */
function run(order: ClipOrder, batches: number, size: number, from = START) {
  let position = from;
  const clips: number[] = [];
  for (let i = 0; i < batches; i++) {
    const { clips: some, next } = order.take(position, size);
    clips.push(...some);
    position = next;
  }
  return { clips, position };
}

test('every epoch has every clip once, whatever the size of a batch', () => {
  fc.assert(
    fc.property(counts, sizes, fc.nat(), fc.boolean(), (count, size, seed, shuffle) => {
      const batches = Math.ceil((3 * count) / size);
      const { clips } = run(new ClipOrder(count, seed, shuffle), batches, size);
      for (let epoch = 0; epoch < 3; epoch++) {
        const sorted = clips.slice(epoch * count, (epoch + 1) * count).sort((a, b) => a - b);
        if (!sorted.every((clip, i) => clip === i)) return false;
      }
      return clips.length === batches * size;
    }),
  );
});

test('going on from any position, with batches of any size, gives the same clips', () => {
  fc.assert(
    fc.property(counts, sizes, sizes, fc.nat({ max: 5 }), fc.nat(), (count, size, other, before, seed) => {
      const { position } = run(new ClipOrder(count, seed, true), before, size);
      const whole = run(new ClipOrder(count, seed, true), 1, before * size + 2 * other).clips;
      const rest = run(new ClipOrder(count, seed, true), 2, other, position).clips;
      return rest.every((clip, i) => clip === whole[before * size + i]);
    }),
  );
});

test('epochs and seeds have orders of their own', () => {
  const orders = [0, 1].flatMap((seed) => {
    const { clips } = run(new ClipOrder(40, seed, true), 2, 40);
    return [clips.slice(0, 40).join(), clips.slice(40).join()];
  });
  expect(new Set([...orders, Array.from({ length: 40 }, (_, i) => i).join()]).size).toBe(5);
});

test('the position counts clips of an epoch', () => {
  const order = new ClipOrder(5, 1, true);
  expect(order.take(START, 3).next).toEqual({ epoch: 0, index: 3 });
  expect(order.take(START, 5).next).toEqual({ epoch: 1, index: 0 });
  expect(order.take({ epoch: 4, index: 4 }, 12).next).toEqual({ epoch: 7, index: 1 });
});

test('a source without end has one epoch, in order', () => {
  expect(new ClipOrder(Infinity, 1, true).take({ epoch: 0, index: 2 ** 40 }, 3)).toEqual({
    clips: [2 ** 40, 2 ** 40 + 1, 2 ** 40 + 2],
    next: { epoch: 0, index: 2 ** 40 + 3 },
  });
});
