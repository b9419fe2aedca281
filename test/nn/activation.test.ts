import { cpuThreads, setCpuThreads, type Tensor, tidy } from '../../lib/index.js';
import * as functional from '../../lib/nn/functional.js';
import { geluTanh, silu } from '../../lib/nn/ops/activation.js';
import { bitsOfAll, useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import { dispose, expectBackwardMisuses, expectMisuses, FORMATS, notTensors, operand } from './pairs.js';
import { roundingStep } from '../../lib/oracle/index.js';

useGuardedMemory();

const STEP = 2 ** -23;

/** z of x * sigmoid(z), and its derivative. */
const KINDS = {
  silu: { pair: silu, f: functional.silu, z: (x: number) => x, slope: () => 1 },
  geluTanh: {
    pair: geluTanh,
    f: functional.geluTanh,
    z: (x: number) => 2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3),
    slope: (x: number) => 2 * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x ** 2),
  },
};

const sigmoid = (z: number) => 1 / (1 + Math.exp(-z));
const value = ({ z }: Pick<(typeof KINDS)['silu'], 'z'>, x: number) => x * sigmoid(z(x));
function derivative({ z, slope }: Pick<(typeof KINDS)['geluTanh'], 'z' | 'slope'>, x: number): number {
  // Far out the product is 0 times something large.
  if (Math.abs(x) > 1e3) return x > 0 ? 1 : 0;
  return sigmoid(z(x)) + x * slope(x) * sigmoid(z(x)) * sigmoid(-z(x));
}

test('the definitions, and the derivative by differences', () => {
  for (let x = -9; x <= 9; x += 0.37) {
    const gelu = 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
    expect(value(KINDS.geluTanh, x)).toBeCloseTo(gelu, 14);
    expect(value(KINDS.silu, x)).toBeCloseTo(x / (1 + Math.exp(-x)), 14);
    for (const kind of [KINDS.silu, KINDS.geluTanh]) {
      const difference = (value(kind, x + 1e-5) - value(kind, x - 1e-5)) / 2e-5;
      expect(derivative(kind, x)).toBeCloseTo(difference, 9);
    }
  }
});

/** Magnitudes of all sizes with both signs, and a fine grid where the functions bend. */
function inputs(): Float64Array {
  const magnitudes = Array.from({ length: 6001 }, (_, i) => 10 ** (-38 + (76 * i) / 6000));
  const grid = Array.from({ length: 30001 }, (_, i) => -15 + i / 1000);
  return Float64Array.from([...magnitudes, ...magnitudes.map((x) => -x), ...grid, 0, -0], Math.fround);
}

function run(pair: typeof silu, x: Tensor, gradient: Tensor): { output: Tensor; dx: Tensor } {
  return tidy(() => {
    const { output, saved } = pair.forward({ x });
    return { output, dx: pair.backward(saved, { output: gradient }).x! };
  });
}

describe.each(Object.entries(KINDS))('%s', (_, kind) => {
  test('float32: within a few roundings of float64, as a libm is', async () => {
    const values = inputs();
    const [x, ones] = [fresh.from(values, [values.length]), fresh.full([values.length], 1)];
    const results = run(kind.pair, x, ones);
    const [output, dx] = [await results.output.toFloat32(), await results.dx.toFloat32()];
    const worst = { output: 0, dx: 0 };
    for (let i = 0; i < values.length; i++) {
      const [y, dy] = [value(kind, values[i]!), derivative(kind, values[i]!)];
      // Where the sigmoid is no normal number it may be 0.
      const outputError = Math.max(0, Math.abs(output[i]! - y) - 1.1e-36) / roundingStep('float32', y);
      // The derivative's two terms are of this size, and cancel at its zero.
      const dxError = Math.abs(dx[i]! - dy) / (STEP * Math.max(Math.abs(dy), 0.25));
      worst.output = Math.max(worst.output, outputError);
      worst.dx = Math.max(worst.dx, dxError);
    }
    expect(worst.output).toBeLessThan(4);
    expect(worst.dx).toBeLessThan(4);
    dispose({ ...results, x, ones });
  });

  test.each(FORMATS)('%s: rounded once, the gradient multiplied', async (format) => {
    const x = operand([3, 17, 61], 1, format, { std: 3 });
    const gradient = operand([3, 17, 61], 2, format);
    const results = run(kind.pair, x.tensor, gradient.tensor);
    const expected = {
      output: x.values.map((v) => value(kind, v)),
      dx: x.values.map((v, i) => derivative(kind, v) * gradient.values[i]!),
    };
    for (const name of ['output', 'dx'] as const) {
      const got = await results[name].toFloat32();
      const wrong = [...got].findIndex((found, i) => {
        const wanted = expected[name][i]!;
        const rounding = 0.51 * roundingStep(format, wanted);
        return !(
          Math.abs(found - wanted) <=
          rounding + 4 * STEP * Math.abs(gradient.values[i]!) + 4 * STEP * Math.abs(wanted)
        );
      });
      expect({ name, wrong }).toEqual({ name, wrong: -1 });
    }
    dispose({ ...results, x: x.tensor, gradient: gradient.tensor });
  });

  test('infinities and NaN', async () => {
    const x = fresh.from([Infinity, -Infinity, NaN, -1e30, 1e30, -0], [6]);
    const ones = fresh.full([6], 1);
    const results = run(kind.pair, x, ones);
    // -inf * 0 is what the definition says.
    expect([...(await results.output.toFloat32())]).toEqual([Infinity, NaN, NaN, -0, Math.fround(1e30), -0]);
    expect([...(await results.dx.toFloat32())]).toEqual([1, 0, NaN, 0, 1, 0.5]);
    dispose({ ...results, x, ones });
  });

  test('any shape, and bits that depend neither on the place nor on the threads', async () => {
    const before = cpuThreads();
    const all = fresh.randn([20001], { seed: 3 });
    const reference = run(kind.pair, all, all);
    const expected = { output: await reference.output.toFloat32(), dx: await reference.dx.toFloat32() };
    const data = await all.toFloat32();
    setCpuThreads(3);
    for (const count of [0, 1, 3, 4, 7, 17, 1023, 1025, 16385]) {
      const start = 20001 - count;
      const x = fresh.from(data.slice(start), [1, count, 1]);
      const results = run(kind.pair, x, x);
      expect(results.output.shape).toEqual([1, count, 1]);
      expect(await results.output.toFloat32()).toEqual(expected.output.slice(start));
      expect(await results.dx.toFloat32()).toEqual(expected.dx.slice(start));
      dispose({ ...results, x });
    }
    setCpuThreads(before);
    const scalar = fresh.from([2], []);
    const results = run(kind.pair, scalar, scalar);
    expect(results.dx.shape).toEqual([]);
    dispose({ ...results, scalar });
    dispose({ ...reference, all });
  });

  test('as a function', async () => {
    const [x, gradient] = [fresh.randn([3, 5]), fresh.randn([3, 5], { seed: 1 })];
    x.requiresGrad = true;
    const output = kind.f({ x });
    output.backward(gradient);
    const expected = run(kind.pair, x, gradient);
    expect(await bitsOfAll({ output, dx: x.grad })).toEqual(await bitsOfAll(expected));
    dispose({ ...expected });
    dispose({ x, gradient, output });
  });

  test('bad input', () => {
    const x = fresh.zeros([2, 3]);
    const name = kind === KINDS.silu ? 'silu' : 'geluTanh';
    expectMisuses(kind.pair, () => ({ x: fresh.zeros([2, 3]) }), [
      ...notTensors('x', x),
      ['an unknown option', { y: 1 }, 'ERR_ARGUMENT', 'options', "'y'"],
    ]);
    const { output, saved } = kind.pair.forward({ x });
    expect(kind.pair.backward(saved, { output }, new Set())).toEqual({});
    const other = (kind === KINDS.silu ? geluTanh : silu).forward({ x });
    expect(() => kind.pair.backward(other.saved, { output })).toThrow(`what ${name}.forward returned`);
    expectBackwardMisuses(kind.pair, saved, output);
    dispose({ x, output });
    dispose(other);
  });
});
