import fc from 'fast-check';
import { setCpuThreads, cpuThreads } from '../../lib/device/device.js';
import { randomTensor, tensorOf, valuesOf } from '../../lib/check/values.js';
import { type DType, type Tensor, tidy } from '../../lib/index.js';
import { linear, type LinearOptions } from '../../lib/nn/ops/linear.js';
import { type FloatFormat, linearBackward, linearForward, rounded, roundingStep } from '../../lib/oracle/index.js';
import { product } from '../../lib/validate.js';
import { bitsOfAll, holds, inContext, useGuardedMemory } from '../attention/support.js';
import { disposed, elsewhere, expectError, NO_TENSORS } from '../attention/misuse.js';
import { fresh, here } from '../under-test.js';

useGuardedMemory();

/**
 * Sums of so many products, in any order, in float32: the bound of every textbook, with the sum of the magnitudes; and
 * one rounding to the format of the result.
 */
function expectSums(
  got: Float64Array,
  { want, magnitude }: { want: Float64Array; magnitude: Float64Array },
  terms: number,
  format: DType,
): void {
  expect(got.length).toBe(want.length);
  const wrong: unknown[] = [];
  got.forEach((value, i) => {
    const sum = (terms + 2) * 2 ** -24 * magnitude[i]! + 2 ** -149;
    const step = roundingStep(format as FloatFormat, Math.abs(want[i]!) + sum);
    if (!(Math.abs(value - want[i]!) <= sum + step / 2)) wrong.push({ i, value, want: want[i] });
  });
  expect(wrong.slice(0, 5)).toEqual([]);
}

interface Case {
  dtype: FloatFormat;
  master: boolean;
  bias: boolean;
  batch: number[];
  K: number;
  N: number;
}

const abs = (values: Float64Array) => values.map(Math.abs);

/** Forward and gradients against the oracle, which is also given magnitudes to sum. */
async function checkCase({ dtype, master, bias: hasBias, batch, K, N }: Case, seed: number): Promise<void> {
  await inContext(seed, async (context) => {
    const weightDType = master ? 'float32' : dtype;
    const x = await randomTensor(context, [...batch, K], dtype);
    const weight = await randomTensor(context, [N, K], weightDType);
    const bias = hasBias ? await randomTensor(context, [N]) : undefined;
    const dy = await randomTensor(context, [...batch, N], dtype);
    const { output, saved } = linear.forward({
      ...{ x: x.tensor, weight: weight.tensor },
      ...(bias !== undefined && { bias: bias.tensor }),
    });
    context.ownAll(output, saved);
    const grads = linear.backward(saved, { output: dy.tensor });
    context.ownAll(grads.x, grads.weight, grads.bias);
    const like = ({ shape, dtype }: Tensor) => [shape, dtype];
    expect(Object.fromEntries(Object.entries({ output, ...grads }).map(([name, t]) => [name, like(t)]))).toEqual({
      output: [[...batch, N], dtype],
      x: [[...batch, K], dtype],
      weight: [[N, K], weightDType],
      ...(hasBias && { bias: [[N], 'float32'] }),
    });

    const rows = product(batch);
    const shape = { rows, inputs: K, outputs: N };
    // What cuBLASLt adds is of the output's dtype.
    const biasFormat = here.type === 'cuda' ? dtype : 'float32';
    const added = bias && rounded(bias.values, biasFormat);
    const inputs = { x: x.values, weight: rounded(weight.values, dtype), bias: added };
    const sizes = { x: abs(inputs.x), weight: abs(inputs.weight), bias: added && abs(added) };
    const want = { output: linearForward(inputs, shape), ...linearBackward(inputs, dy.values, shape) };
    const magnitude = { output: linearForward(sizes, shape), ...linearBackward(sizes, abs(dy.values), shape) };
    const check = async (name: keyof typeof want, tensor: Tensor, terms: number) => {
      expectSums(await valuesOf(tensor), { want: want[name], magnitude: magnitude[name] }, terms, tensor.dtype);
    };
    await check('output', output, K);
    await check('x', grads.x, N);
    await check('weight', grads.weight, rows);
    if (hasBias) await check('bias', grads.bias!, rows);
  });
}

const width = fc.oneof(fc.constantFrom(0, 1, 3, 16, 17, 32), fc.integer({ min: 1, max: 70 }));
const cases = fc.record({
  dtype: fc.constantFrom('float32' as const, 'bfloat16' as const, 'float16' as const),
  master: fc.boolean(),
  bias: fc.boolean(),
  batch: fc.constantFrom<number[][]>([], [0], [1], [3], [2, 5], [17], [2, 2, 11], [1, 70]),
  K: width,
  N: width,
});

test('output and gradients of any shape, dtype and bias', async () => {
  await holds(150, cases, (c) => checkCase(c, 1));
});

/** Runs with so many threads: the fewer, the larger the blocks. */
async function withThreads(count: number, run: () => Promise<void>): Promise<void> {
  const before = cpuThreads();
  setCpuThreads(count);
  try {
    await run();
  } finally {
    setCpuThreads(before);
  }
}

// Blocks end where the sizes do not: rows of 512 and 128, 128 columns, sums in steps of 256, bias in chunks of 256.
test.each([
  ['float32', [600], 300, 144],
  ['bfloat16', [2, 65], 257, 131],
  ['float16', [130], 40, 260],
  ['float32', [1], 520, 300],
] as const)('%s, rows %j, %i to %i channels', async (dtype, batch, K, N) => {
  await withThreads(1, () => checkCase({ dtype, master: true, bias: true, batch: [...batch], K, N }, 2));
});

test.each(['float32', 'bfloat16'] as const)('%s: the same bits whatever the number of threads', async (dtype) => {
  const bits: unknown[] = [];
  for (const threads of [1, 2, 5, 40]) {
    await withThreads(threads, async () => {
      const tensors = tidy(() => {
        const x = fresh.randn([600, 300], { dtype, seed: 1 });
        const weight = fresh.randn([150, 300], { seed: 2 });
        const { output, saved } = linear.forward({ x, weight, bias: fresh.randn([150], { seed: 3 }) });
        return { output, ...linear.backward(saved, { output }) };
      });
      bits.push(await bitsOfAll({ ...tensors }));
      for (const tensor of Object.values(tensors)) tensor.dispose();
    });
  }
  for (const other of bits.slice(1)) expect(other).toEqual(bits[0]);
});

test('by hand', async () => {
  const tensors = tidy(() => {
    const x = fresh.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
    const weight = fresh.from(new Float32Array([5, 6, 7, 8, 9, 10]), [3, 2]);
    const bias = fresh.from(new Float32Array([100, 200, 300]), [3]);
    const { output, saved } = linear.forward({ x, weight, bias });
    const dy = fresh.from(new Float32Array([1, 0, 2, 0, 3, 0]), [2, 3]);
    return { output, ...linear.backward(saved, { output: dy }) };
  });
  const found: Record<string, number[]> = {};
  for (const [name, tensor] of Object.entries(tensors)) {
    found[name] = [...(await valuesOf(tensor))];
    tensor.dispose();
  }
  expect(found).toEqual({
    output: [117, 223, 329, 139, 253, 367],
    x: [23, 26, 21, 24],
    weight: [1, 2, 9, 12, 2, 4],
    bias: [1, 3, 2],
  });
});

test('what is not finite stays in its row and its column', async () => {
  const [rows, K, N] = [11, 20, 19];
  const x = new Float64Array(rows * K).fill(1);
  x[4 * K + 3] = NaN;
  const weight = new Float64Array(N * K).fill(2);
  weight[7 * K + 1] = Infinity;
  for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
    const output = tidy(() => {
      const tensors = { x: tensorOf(x, [rows, K], dtype, here), weight: tensorOf(weight, [N, K], dtype, here) };
      return linear.forward(tensors).output;
    });
    const value = (row: number, column: number) => (row === 4 ? NaN : column === 7 ? Infinity : 2 * K);
    const want = Float64Array.from({ length: rows * N }, (_, i) => value(Math.floor(i / N), i % N));
    expect(await valuesOf(output)).toEqual(want);
    output.dispose();
  }
});

test('a master weight is rounded once, and its gradient never', async () => {
  const grads = tidy(() => {
    const x = fresh.full([3, 1], 1, { dtype: 'bfloat16' });
    const { output, saved } = linear.forward({ x, weight: fresh.full([1, 1], 1 + 2 ** -9) });
    const dy = fresh.from(new Float32Array([256, 1, 1]), [3, 1]).cast('bfloat16');
    return { output, ...linear.backward(saved, { output: dy }) };
  });
  expect(await valuesOf(grads.output)).toEqual(new Float64Array([1, 1, 1]));
  expect(await valuesOf(grads.weight)).toEqual(new Float64Array([258]));
  for (const tensor of [grads.output, grads.x, grads.weight]) tensor.dispose();
});

const valid = (): LinearOptions & { bias: Tensor } => ({
  ...{ x: fresh.randn([2, 3, 5], { dtype: 'bfloat16', seed: 1 }), weight: fresh.randn([4, 5], { seed: 2 }) },
  bias: fresh.randn([4], { seed: 3 }),
});

test('only the gradients that are wanted', () => {
  tidy(() => {
    const { output, saved } = linear.forward(valid());
    for (const names of [[], ['x'], ['weight'], ['bias'], ['x', 'bias'], ['weight', 'bias', 'x']]) {
      expect(Object.keys(linear.backward(saved, { output }, new Set(names))).sort()).toEqual([...names].sort());
    }
    const { x, weight } = valid();
    const withoutBias = linear.forward({ x, weight });
    expect(Object.keys(linear.backward(withoutBias.saved, { output: withoutBias.output }))).toEqual(['x', 'weight']);
  });
});

test('what is saved outlives the inputs, and a master weight that is updated', async () => {
  const once = async (change: (options: Required<LinearOptions>) => void) => {
    const grads = tidy(() => {
      const options = valid();
      const { output, saved } = linear.forward(options);
      change(options);
      return { ...linear.backward(saved, { output }) };
    });
    const bits = await bitsOfAll({ ...grads });
    for (const tensor of Object.values(grads)) tensor.dispose();
    return bits;
  };
  const want = await once(() => undefined);
  expect(await once((options) => Object.values(options).forEach((tensor) => tensor.dispose()))).toEqual(want);
  expect(await once(({ weight }) => weight.copyFrom(new Float32Array(20)))).toEqual(want);
});

describe('wrong calls', () => {
  test('forward', () => {
    tidy(() => {
      const options = valid();
      const { x, weight, bias } = options;
      const wrong = (change: object) => () => linear.forward({ ...options, ...change });
      for (const name of ['x', 'weight', 'bias']) {
        for (const value of NO_TENSORS) {
          if (name === 'bias' && value === undefined) continue;
          expectError(wrong({ [name]: value }), 'ERR_ARGUMENT', name, 'wanted a Tensor');
        }
        expectError(wrong({ [name]: disposed(x) }), 'ERR_DISPOSED', name);
        expectError(wrong({ [name]: fresh.zeros([4, 5], { dtype: 'int32' }) }), 'ERR_DTYPE', name);
      }
      expectError(() => linear.forward(undefined as never), 'ERR_ARGUMENT', 'options');
      expectError(wrong({ wieght: weight }), 'ERR_ARGUMENT', 'options', "the unknown option 'wieght'");
      expectError(wrong({ x: fresh.full([], 1) }), 'ERR_SHAPE', 'x', '[..., K]');
      for (const shape of [[5], [5, 4], [4, 5, 1], [4, 6]]) {
        expectError(wrong({ weight: fresh.zeros(shape) }), 'ERR_SHAPE', 'weight', '[any, 5] ([N, K]');
      }
      expectError(wrong({ weight: weight.cast('float16') }), 'ERR_DTYPE', 'weight', 'wanted bfloat16 or float32');
      expectError(wrong({ x: x.cast('float32'), weight: weight.cast('bfloat16') }), 'ERR_DTYPE', 'weight', 'float32');
      for (const shape of [[5], [1, 4], []]) {
        expectError(wrong({ bias: fresh.zeros(shape) }), 'ERR_SHAPE', 'bias', 'wanted [4] ([N])');
      }
      expectError(wrong({ bias: bias.cast('bfloat16') }), 'ERR_DTYPE', 'bias', 'wanted float32');
      for (const name of ['weight', 'bias'] as const) {
        expectError(wrong({ [name]: elsewhere(options[name]) }), 'ERR_DEVICE', name, 'cuda:7');
      }
    });
  });

  test('backward', () => {
    tidy(() => {
      const { output, saved } = linear.forward(valid());
      const backward =
        (grads: unknown, of: unknown = saved) =>
        () =>
          linear.backward(of as never, grads as never);
      for (const value of [undefined, null, {}, output]) {
        expectError(
          backward({ output }, value === undefined ? null : value),
          'ERR_ARGUMENT',
          'saved',
          'linear.forward',
        );
      }
      for (const value of [undefined, null, 3]) expectError(backward(value), 'ERR_ARGUMENT', 'grads');
      for (const value of NO_TENSORS) expectError(backward({ output: value }), 'ERR_ARGUMENT', 'grads.output');
      expectError(backward({ output, x: output }), 'ERR_ARGUMENT', 'grads', "the unknown option 'x'");
      expectError(backward({ output: disposed(output) }), 'ERR_DISPOSED', 'grads.output');
      expectError(backward({ output: output.cast('float32') }), 'ERR_DTYPE', 'grads.output', 'wanted bfloat16');
      expectError(backward({ output: output.reshape([6, 4]) }), 'ERR_SHAPE', 'grads.output', '[2, 3, 4]');
      expectError(backward({ output: elsewhere(output) }), 'ERR_DEVICE', 'grads.output', 'cuda:7');
      saved.dispose();
      expectError(backward({ output }), 'ERR_DISPOSED', 'saved');
    });
  });
});
