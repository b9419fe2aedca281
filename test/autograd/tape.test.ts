import { differentiable, enableGrad, gradEnabled, noGrad } from '../../lib/autograd/index.js';
import { type Tensor, tidy } from '../../lib/index.js';
import { elsewhere, expectError } from '../attention/misuse.js';
import { useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import { add, leaf, multiply, numbers, scale, sum, watched } from './support.js';

useGuardedMemory();

describe('gradients', () => {
  test('of a product, by hand', async () => {
    const [a, b] = [leaf([1, 2, 3]), leaf([4, 5, 6])];
    tidy(() => {
      const loss = sum({ x: multiply({ a, b }) });
      expect([loss.requiresGrad, loss.item()]).toEqual([true, 32]);
      loss.backward();
    });
    expect(await numbers(a.grad)).toEqual([4, 5, 6]);
    expect(await numbers(b.grad)).toEqual([1, 2, 3]);
    for (const tensor of [a, b]) tensor.dispose();
  });

  test('an input used twice, and a diamond', async () => {
    const x = leaf([3, -2]);
    tidy(() => {
      const square = multiply({ a: x, b: x });
      const left = scale({ x: square, by: 10 });
      const right = add({ a: square, b: x });
      sum({ x: add({ a: left, b: right }) }).backward();
    });
    // 11 x^2 + x
    expect(await numbers(x.grad)).toEqual([67, -43]);
    x.dispose();
  });

  test('of what is not a leaf are not kept, and constants have none', async () => {
    const [x, constant] = [leaf([2]), fresh.from([5])];
    const product = multiply({ a: x, b: constant });
    const loss = scale({ x: product, by: 3 });
    loss.backward();
    expect([product.grad, loss.grad, constant.grad]).toEqual([undefined, undefined, undefined]);
    expect([product.requiresGrad, constant.requiresGrad]).toEqual([true, false]);
    expect(await numbers(x.grad)).toEqual([15]);
    for (const tensor of [x, constant, product, loss]) tensor.dispose();
  });

  test('two backwards add up, zeroGrad forgets', async () => {
    const x = leaf([1, 2]);
    for (let i = 1; i <= 3; i++) {
      tidy(() => sum({ x: multiply({ a: x, b: x }) }).backward());
      expect(await numbers(x.grad)).toEqual([2 * i, 4 * i]);
    }
    x.zeroGrad();
    expect(x.grad).toBeUndefined();
    x.zeroGrad();
    x.dispose();
  });

  test('a given gradient, and a leaf that is its own root', async () => {
    const [x, gradient] = [leaf([1, 2]), fresh.from([10, 100])];
    tidy(() => multiply({ a: x, b: x }).backward(gradient));
    x.backward(gradient);
    expect(await numbers(x.grad)).toEqual([30, 500]);
    const one = leaf([7]);
    one.backward();
    expect(await numbers(one.grad)).toEqual([1]);
    for (const tensor of [x, gradient, one]) tensor.dispose();
  });

  test('retainGraph allows another backward, without it the graph is freed', async () => {
    const x = leaf([3]);
    const loss = multiply({ a: x, b: x });
    loss.backward(undefined, { retainGraph: true });
    loss.backward(undefined, { retainGraph: true });
    loss.backward();
    expect(await numbers(x.grad)).toEqual([18]);
    expectError(() => loss.backward(), 'ERR_GRADIENT', 'this', /multiply is freed/);
    expect(await numbers(x.grad)).toEqual([18]);
    for (const tensor of [x, loss]) tensor.dispose();
  });

  test('a freed part behind a living one', async () => {
    const x = leaf([3]);
    const square = multiply({ a: x, b: x });
    const [first, second] = [scale({ x: square, by: 2 }), scale({ x: square, by: 3 })];
    first.backward();
    expectError(() => second.backward(), 'ERR_GRADIENT', 'this', /multiply is freed/);
    expect(await numbers(x.grad)).toEqual([12]);
    for (const tensor of [x, square, first, second]) tensor.dispose();
  });

  test('a chain of 5,000 calls', async () => {
    const x = leaf([1]);
    const again = tidy(() => {
      let y = x;
      for (let i = 0; i < 5000; i++) y = scale({ x: y, by: i % 2 === 0 ? 2 : 0.5 });
      return y;
    });
    again.backward();
    expect(await numbers(x.grad)).toEqual([1]);
    again.dispose();
    const unused = tidy(() => {
      let y = x;
      for (let i = 0; i < 5000; i++) y = multiply({ a: y, b: x });
      return y;
    });
    unused.dispose(); // gives back all 5,000 without a backward
    x.dispose();
  });

  test('16-bit gradients are of their input’s dtype', async () => {
    const x = fresh.from([1.5, -2], [2], { dtype: 'bfloat16' });
    x.requiresGrad = true;
    tidy(() => sum({ x: multiply({ a: x, b: x }) }).backward());
    expect([x.grad!.dtype, await numbers(x.grad)]).toEqual(['bfloat16', [3, -4]]);
    x.dispose();
  });
});

describe('recording', () => {
  test('noGrad leaves no history, enableGrad inside of it does', () => {
    const x = leaf([1]);
    expect(gradEnabled()).toBe(true);
    const [plain, inner] = noGrad(() => {
      expect(gradEnabled()).toBe(false);
      return [scale({ x, by: 2 }), enableGrad(() => scale({ x, by: 2 }))];
    });
    expect([plain.requiresGrad, inner.requiresGrad, gradEnabled()]).toEqual([false, true, true]);
    expectError(() => plain.backward(), 'ERR_GRADIENT', 'this', 'without history');
    for (const tensor of [x, plain, inner]) tensor.dispose();
  });

  test('noGrad ends when its function throws, and takes no promise', () => {
    expect(() =>
      noGrad(() => {
        throw new Error('inside');
      }),
    ).toThrow('inside');
    expect(gradEnabled()).toBe(true);
    expectError(() => noGrad(() => Promise.reject(new Error('nobody sees it'))), 'ERR_ARGUMENT', 'fn', 'promise');
    for (const fn of [undefined, null, 3, {}]) {
      for (const run of [noGrad, enableGrad]) expectError(() => run(fn as never), 'ERR_ARGUMENT', 'fn');
    }
    expect(gradEnabled()).toBe(true);
  });

  test('a function that returns its input as it is', async () => {
    const x = leaf([1, 2]);
    const identity = differentiable(
      'identity',
      {
        forward: ({ x }: { x: Tensor }) => ({ output: x, saved: { disposed: false, dispose: () => undefined } }),
        backward: (_saved, { output }) => ({ x: output }),
      },
      { x: (o) => o.x },
    );
    tidy(() => {
      const y = identity({ x });
      expect(y).not.toBe(x);
      sum({ x: multiply({ a: y, b: y }) }).backward();
    });
    expect(await numbers(x.grad)).toEqual([2, 4]);
    x.dispose();
  });
});

describe('misuse', () => {
  test('requiresGrad', () => {
    const whole = fresh.zeros([2], { dtype: 'int32' });
    expectError(() => (whole.requiresGrad = true), 'ERR_DTYPE', 'this', 'int32');
    whole.requiresGrad = false;
    const x = leaf([1]);
    for (const value of [1, 'yes', undefined]) {
      expectError(() => (x.requiresGrad = value as never), 'ERR_ARGUMENT', 'requiresGrad');
    }
    const y = scale({ x, by: 2 });
    y.requiresGrad = true;
    expectError(() => (y.requiresGrad = false), 'ERR_GRADIENT', 'requiresGrad', 'detach');
    for (const tensor of [whole, x, y]) tensor.dispose();
    expectError(() => (x.requiresGrad = true), 'ERR_DISPOSED', 'this');
    expect([x.requiresGrad, x.grad]).toEqual([true, undefined]);
  });

  test('backward', () => {
    const [x, constant] = [leaf([1, 2]), fresh.from([1, 2])];
    const y = scale({ x, by: 2 });
    expectError(() => constant.backward(), 'ERR_GRADIENT', 'this', 'without history');
    expectError(() => y.backward(), 'ERR_SHAPE', 'this', 'one element');
    const wrong = [
      [null, 'ERR_ARGUMENT'],
      [3, 'ERR_ARGUMENT'],
      [fresh.from([1, 2, 3]), 'ERR_SHAPE'],
      [fresh.from([1, 2], [2], { dtype: 'float16' }), 'ERR_DTYPE'],
      [elsewhere(constant), 'ERR_DEVICE'],
    ] as const;
    for (const [gradient, code] of wrong) {
      expectError(() => y.backward(gradient as never), code, 'gradient');
      if (gradient !== null && typeof gradient === 'object') gradient.dispose();
    }
    const gone = constant.clone();
    gone.dispose();
    expectError(() => y.backward(gone), 'ERR_DISPOSED', 'gradient');
    expectError(() => y.backward(constant, { retain: true } as never), 'ERR_ARGUMENT', 'options', "'retain'");
    expectError(() => y.backward(constant, { retainGraph: 1 } as never), 'ERR_ARGUMENT', 'retainGraph');
    expectError(() => y.backward(constant, null as never), 'ERR_ARGUMENT', 'options');
    y.backward(constant); // nothing above has used the graph up
    for (const tensor of [x, y, constant]) tensor.dispose();
    expectError(() => y.backward(constant), 'ERR_DISPOSED', 'this');
  });

  test('a value that the backward needs was overwritten', () => {
    const [x, b] = [leaf([1, 2]), fresh.from([3, 4])];
    const loss = tidy(() => sum({ x: multiply({ a: scale({ x, by: 2 }), b }) }));
    tidy(() => void b.reshape([1, 2]).copyFrom(Float32Array.of(5, 6))); // by another tensor of the same memory
    expect(() => loss.backward()).toThrow(/tensor \[2\] that multiply needs was overwritten/);
    expect(x.grad).toBeUndefined();
    for (const tensor of [x, b, loss]) tensor.dispose();
  });

  test('an overwritten value that nobody needs', async () => {
    const [x, b] = [leaf([1, 2]), fresh.from([3, 4])];
    const loss = tidy(() => sum({ x: add({ a: scale({ x, by: 2 }), b }) }));
    b.copyFrom(Float32Array.of(5, 6));
    x.copyFrom(Float32Array.of(7, 8));
    loss.backward();
    expect(await numbers(x.grad)).toEqual([2, 2]);
    for (const tensor of [x, b, loss]) tensor.dispose();
  });

  test('pairs that are none, and gradients that do not fit', () => {
    for (const pair of [undefined, null, {}, { forward: () => undefined }]) {
      expectError(() => differentiable('f', pair as never, {}), 'ERR_ARGUMENT', 'pair');
    }
    const x = leaf([1, 2]);
    const wrong: (() => unknown)[] = [
      () => fresh.from([1, 2, 3]),
      () => fresh.from([1, 2], [2], { dtype: 'float16' }),
      () => 3,
      () => {
        const gone = fresh.from([1, 2]);
        gone.dispose();
        return gone;
      },
    ];
    for (const give of wrong) {
      const y = watched(give)({ x });
      const gradient = fresh.from([1, 1]);
      expectError(() => y.backward(gradient), 'ERR_GRADIENT', 'gradient 0 of watched', '[2] float32');
      y.dispose();
      gradient.dispose();
    }
    expect(x.grad).toBeUndefined();
    x.dispose();
  });
});
