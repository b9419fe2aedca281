import { checkpoint, noGrad } from '../../lib/autograd/index.js';
import { memory, type Tensor, tidy } from '../../lib/index.js';
import { expectError } from '../attention/misuse.js';
import { useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import { add, leaf, multiply, numbers, scale, sum, watched } from './support.js';

useGuardedMemory();

/** x^2 w + x */
const block = (w: Tensor) => (x: Tensor) => add({ a: multiply({ a: multiply({ a: x, b: x }), b: w }), b: x });

test('the same gradients as without, also of a leaf that the function uses freely', async () => {
  const run = async (call: (fn: (x: Tensor) => Tensor, x: Tensor) => Tensor) => {
    const [x, w] = [leaf([1, 2]), leaf([3, -1])];
    tidy(() => {
      const outside = scale({ x: w, by: 2 });
      const y = call(block(w), call(block(w), x));
      sum({ x: multiply({ a: y, b: outside }) }).backward();
    });
    const grads = [await numbers(x.grad), await numbers(w.grad)];
    for (const tensor of [x, w]) tensor.dispose();
    return grads;
  };
  const plain = await run((fn, x) => fn(x));
  expect(await run((fn, x) => checkpoint(fn, x))).toEqual(plain);
  // Nested: a checkpoint within one.
  expect(await run((fn, x) => checkpoint((y) => scale({ x: checkpoint(fn, y), by: 1 }), x))).toEqual(plain);
});

test('several inputs, one of which wants no gradient', async () => {
  const [a, b] = [leaf([2, 3]), fresh.from([5, 7])];
  tidy(() => sum({ x: checkpoint((x, y) => multiply({ a: x, b: y }), a, b) }).backward());
  expect([await numbers(a.grad), b.grad]).toEqual([[5, 7], undefined]);
  for (const tensor of [a, b]) tensor.dispose();
});

test('an input that comes in twice, and is used outside as well', async () => {
  const x = leaf([2, 3]);
  tidy(() => {
    const y = scale({ x, by: 3 });
    const inside = checkpoint((p, q) => multiply({ a: p, b: q }), y, y);
    sum({ x: add({ a: inside, b: y }) }).backward();
  });
  expect(await numbers(x.grad)).toEqual([39, 57]); // 9 x^2 + 3 x
  x.dispose();
});

test('a function that returns its input, or a leaf', async () => {
  const [x, w] = [leaf([2]), leaf([3])];
  tidy(() => {
    const y = checkpoint((p) => p, x);
    const z = checkpoint((_) => w, x);
    expect([y === x, z === w]).toEqual([false, false]);
    multiply({ a: y, b: z }).backward();
  });
  expect([await numbers(x.grad), await numbers(w.grad)]).toEqual([[3], [2]]);
  for (const tensor of [x, w]) tensor.dispose();
});

test('nothing that wants a gradient, and nothing recorded in noGrad', async () => {
  const [x, w] = [fresh.from([2]), leaf([3])];
  tidy(() => {
    const y = checkpoint((p) => scale({ x: p, by: 2 }), x);
    multiply({ a: y, b: w }).backward();
    expect(noGrad(() => checkpoint(block(w), x)).requiresGrad).toBe(false);
  });
  expect([await numbers(w.grad), x.grad]).toEqual([[4], undefined]);
  for (const tensor of [x, w]) tensor.dispose();
});

test('retainGraph: the function runs again for every backward', async () => {
  const [x, w] = [leaf([2]), leaf([3])];
  let runs = 0;
  const y = checkpoint((p) => {
    runs += 1;
    return multiply({ a: p, b: w });
  }, x);
  y.backward(undefined, { retainGraph: true });
  y.backward();
  expect([runs, await numbers(x.grad), await numbers(w.grad)]).toEqual([3, [6], [4]]);
  expectError(() => y.backward(), 'ERR_GRADIENT', 'this', 'checkpoint is freed');
  for (const tensor of [x, w, y]) tensor.dispose();
});

test('an input that was overwritten', () => {
  const x = leaf([2]);
  const y = checkpoint((p) => scale({ x: p, by: 2 }), x);
  x.copyFrom(Float32Array.of(3));
  expectError(() => y.backward(), 'ERR_GRADIENT', 'this', /checkpoint needs was overwritten/);
  for (const tensor of [x, y]) tensor.dispose();
});

test('memory is that of one block at a time, forward and backward', () => {
  const SIZE = 1024;
  const held = (depth: number) => {
    const x = fresh.full([SIZE], 1);
    x.requiresGrad = true;
    let most = 0;
    const look = watched(() => {
      most = Math.max(most, memory().numBytes);
    });
    // Ten activations a block, of which one is kept.
    const inside = (p: Tensor) => {
      let y = look({ x: p });
      for (let i = 0; i < 9; i++) y = multiply({ a: y, b: y });
      return look({ x: y });
    };
    const before = memory().numBytes;
    tidy(() => {
      let y = x;
      for (let i = 0; i < depth; i++) y = checkpoint(inside, y);
      const kept = memory().numBytes - before;
      expect(kept).toBeLessThanOrEqual((depth + 1) * SIZE * 4);
      sum({ x: y }).backward();
    });
    x.dispose();
    return most / (SIZE * 4);
  };
  // Each block more may keep its input and its output; what is computed again is given back block by block.
  expect(held(12) - held(2)).toBeLessThanOrEqual(20);
});

test('an exception inside leaves no gradient, not even of what had run', () => {
  const [x, w] = [leaf([2]), leaf([3])];
  const fail = watched(() => {
    throw new Error('no gradient today');
  });
  const y = tidy(() => checkpoint(block(w), fail({ x })));
  expect(() => y.backward()).toThrow('no gradient today');
  expect([x.grad, w.grad]).toEqual([undefined, undefined]);
  const z = checkpoint((p) => fail({ x: multiply({ a: p, b: w }) }), x);
  expect(() => z.backward()).toThrow('no gradient today');
  let calls = 0;
  const unsteady = checkpoint((p) => {
    calls += 1;
    if (calls > 1) throw new Error('not again');
    return multiply({ a: p, b: w });
  }, x);
  expect(() => unsteady.backward()).toThrow('not again');
  expect([x.grad, w.grad]).toEqual([undefined, undefined]);
  for (const tensor of [x, w, y, z, unsteady]) tensor.dispose();
});

test('functions that give no tensor, or another one the second time', () => {
  const x = leaf([2]);
  for (const fn of [() => undefined, () => [x], () => 3]) {
    expectError(() => checkpoint(fn as never, x), 'ERR_ARGUMENT', 'fn', 'a function that returns');
  }
  let calls = 0;
  const y = checkpoint((p) => {
    calls += 1;
    return calls === 1 ? scale({ x: p, by: 2 }) : scale({ x: p.reshape([1, 1]), by: 2 });
  }, x);
  expectError(() => y.backward(), 'ERR_SHAPE', 'gradient', '[1]');
  for (const tensor of [x, y]) tensor.dispose();
});
