/** A GPU and the CPU compute the same: to the bit where nothing is summed, within the error rule where it is. */

import { CHECK_CASES, type CheckCase, CHECKED_OPS } from '../../lib/check/cases.js';
import { type DType, type Order, Tensor, tidy } from '../../lib/index.js';
import { CaseContext, type CheckBackend, valuesOf } from '../../lib/check/values.js';
import { bitsOfAll, expectRows, useGuardedMemory } from '../attention/support.js';
import { everything, makeInputs } from '../attention/every-operation.js';
import { bytesOf, cpu, describeGpu, gpu, onCpu, onGpu } from './support.js';

const DTYPES: readonly DType[] = ['float32', 'bfloat16', 'float16', 'int32'];
const FLOATS = ['float32', 'bfloat16', 'float16'] as const;
const SIZES = [0, 1, 2, 3, 5, 63, 255, 1023, 4097, 16_385, 1_000_003];

/** The same call on both devices gives the same bits. */
async function expectSame(make: (on: { device: typeof gpu }) => Tensor): Promise<void> {
  using onOne = make(onGpu);
  using onOther = make(onCpu);
  expect([onOne.device, onOne.dtype, onOne.shape]).toEqual([gpu, onOther.dtype, onOther.shape]);
  const [got, wanted] = [await bytesOf(onOne), await bytesOf(onOther)];
  if (got.equals(wanted)) return;
  const at = got.findIndex((byte, i) => byte !== wanted[i]);
  const size = onOne.byteLength / onOne.size;
  const element = (bytes: Buffer) => bytes.subarray(at - (at % size), at - (at % size) + size).toString('hex');
  throw new Error(
    `${String(onOne)}: element ${Math.floor(at / size)} is ${element(got)}, on the CPU ${element(wanted)}`,
  );
}

describeGpu('to the bit', () => {
  useGuardedMemory();

  test.each(SIZES)('randbits and randn of %i elements', async (count) => {
    for (const seed of [0n, 5n, 2n ** 32n, 2n ** 64n - 1n]) {
      await expectSame((on) => Tensor.randbits([count], { seed, ...on }));
      for (const dtype of FLOATS) await expectSame((on) => Tensor.randn([count], { seed, dtype, ...on }));
      await expectSame((on) => Tensor.randn([count], { seed, mean: -100, std: 0.3, ...on }));
    }
  });

  test.each(DTYPES)('full and zeros of %s', async (dtype) => {
    const values = [0, -0, 0.1, -1 / 3, 65519.99, 65520, 1e300, -Infinity, NaN, 2 ** 31, -(2 ** 31) - 1, 2 ** -150];
    for (const value of values) await expectSame((on) => Tensor.full([77], value, { dtype, ...on }));
    for (const count of SIZES) {
      await expectSame((on) => Tensor.full([count], -2.5, { dtype, ...on }));
      await expectSame((on) => Tensor.zeros([count], { dtype, ...on }));
    }
  });

  const pairs = DTYPES.flatMap((from) => DTYPES.map((to) => [from, to] as const));
  test.each(pairs)('cast of %s to %s, of every size and of any bits', async (from, to) => {
    for (const count of SIZES) {
      await expectSame((on) =>
        tidy(() => {
          const bits = Tensor.randbits([count], { seed: count, ...on });
          const source = from === 'int32' ? bits : Tensor.randn([count], { seed: count, std: 1e6, dtype: from, ...on });
          return to === from ? source.clone() : source.cast(to);
        }),
      );
    }
  });

  // Every 16-bit pattern; and float32 with random bits, NaN with payloads among them.
  test.each(['bfloat16', 'float16'] as const)('every pattern of %s, to every dtype', async (dtype) => {
    const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const to of DTYPES) {
      using onOne = tidy(() => Tensor.from(patterns, undefined, { dtype, ...onGpu }).cast(to));
      using onOther = tidy(() => Tensor.from(patterns, undefined, { dtype, ...onCpu }).cast(to));
      // The payload of a NaN is nobody's promise.
      expect(await valuesOf(onOne)).toEqual(await valuesOf(onOther));
    }
  });

  test.each(DTYPES.filter((dtype) => dtype !== 'float32'))('random bits as float32, to %s', async (to) => {
    using bits = Tensor.randbits([200_003], { seed: 9, ...onCpu });
    const floats = new Float32Array(bits.dataSync().buffer);
    using onOne = tidy(() => Tensor.from(floats, undefined, onGpu).cast(to));
    using onOther = tidy(() => Tensor.from(floats, undefined, onCpu).cast(to));
    expect(await valuesOf(onOne)).toEqual(await valuesOf(onOther));
  });
});

describeGpu('within the error rule', () => {
  useGuardedMemory();

  async function expectCases(cases: readonly CheckCase[], backend: CheckBackend): Promise<void> {
    expect(cases.length).toBeGreaterThan(0);
    for (const [i, c] of cases.entries()) {
      const context = new CaseContext(gpu, BigInt(300 + i) << 20n, backend);
      expectRows(await c.run(context));
      context.dispose();
    }
  }

  // All of them are `vsa check --device cuda`: most of that time is the oracle's.
  test.each(CHECKED_OPS)(
    'every fourth case of %s',
    async (op) => {
      const cases = CHECK_CASES.filter((c) => c.op === op);
      await expectCases(
        cases.filter((_, i) => i % 4 === 0),
        'auto',
      );
    },
    120_000,
  );

  // Where Hopper's own kernels are there, nothing else runs the portable ones.
  test.each(['blockSparseAttention', 'denseAttention', 'videoSparseAttention'])(
    'every fourth 16-bit case of %s on the portable kernels',
    async (op) => {
      const cases = CHECK_CASES.filter((c) => c.op === op && /float16/.test(c.name));
      await expectCases(
        cases.filter((_, i) => i % 4 === 1),
        'cuda',
      );
    },
    120_000,
  );

  /** Largest difference, relative to the largest value. What was selected on one device is the same on the other. */
  test.each([
    ['float32', 'auto', 1e-5],
    ['bfloat16', 'auto', 2 ** -7],
    ['bfloat16', 'cuda', 2 ** -7],
    ['float16', 'auto', 2 ** -9],
    ['float16', 'cuda', 2 ** -9],
  ] as const)('every operation on both devices, %s, backend %s', async (dtype, backend, tolerance) => {
    const results = await Promise.all(
      [gpu, cpu].map(async (on) => {
        const inputs = makeInputs(dtype, on);
        const tensors = everything(inputs, 'grid', on === cpu ? 'cpu' : backend);
        const values = Object.fromEntries(
          await Promise.all(Object.entries(tensors).map(async ([name, x]) => [name, await valuesOf(x)] as const)),
        );
        for (const tensor of [...Object.values(inputs), ...Object.values(tensors)]) tensor.dispose();
        return values;
      }),
    );
    const [onGpuValues, onCpuValues] = results as [Record<string, Float64Array>, Record<string, Float64Array>];
    expect(Object.keys(onGpuValues)).toEqual(Object.keys(onCpuValues));
    const far = Object.entries(onCpuValues).flatMap(([name, wanted]) => {
      const got = onGpuValues[name]!;
      let [largest, error] = [0, 0];
      wanted.forEach((value, i) => {
        if (Object.is(value, got[i]) || value === got[i]) return;
        const difference = Math.abs(value - got[i]!);
        error = Math.max(error, Number.isNaN(difference) ? Infinity : difference);
      });
      for (const value of wanted) if (Number.isFinite(value)) largest = Math.max(largest, Math.abs(value));
      const exact = /lists|offsets|indices/.test(name);
      return error <= (exact ? 0 : tolerance * largest) ? [] : [{ name, error, largest }];
    });
    expect(far).toEqual([]);
  });
});

describeGpu('repeatability', () => {
  useGuardedMemory();

  test.each<[DType, Order, CheckBackend]>([
    ['float32', 'grid', 'auto'],
    ['bfloat16', 'tiled', 'auto'],
    ['float16', 'grid', 'auto'],
    ['bfloat16', 'grid', 'cuda'],
    ['float16', 'tiled', 'cuda'],
  ])('the same bits in 20 runs of every forward and backward: %s, %s order, %s', async (dtype, order, backend) => {
    const inputs = makeInputs(dtype, gpu);
    const run = async () => {
      const tensors = everything(inputs, order, backend);
      const bits = await bitsOfAll(tensors);
      for (const tensor of Object.values(tensors)) tensor.dispose();
      return bits;
    };
    const first = await run();
    expect(Object.keys(first).length).toBeGreaterThan(30);
    for (let i = 1; i < 20; i++) {
      const bits = await run();
      expect(Object.keys(first).filter((name) => bits[name] !== first[name])).toEqual([]);
    }
    for (const tensor of Object.values(inputs)) tensor.dispose();
  });
});
