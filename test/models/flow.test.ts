import '../../lib/autograd/index.js';
import { valuesOf } from '../../lib/check/values.js';
import { type DType, memory, type Tensor } from '../../lib/index.js';
import {
  eulerSample,
  type EulerSampleOptions,
  type EulerStep,
  interpolate,
  samplingTimes,
  shiftTime,
  trainingTimes,
  type Velocity,
} from '../../lib/models/flow.js';
import { scale } from '../../lib/nn/functional-arithmetic.js';
import { normals } from '../tensor/philox.js';
import { disposed, elsewhere, expectError, NO_TENSORS } from '../attention/misuse.js';
import { useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import { disposeWhatIsOwned, expectClose, expectExact, FORMATS, given, own, random } from '../nn/numbers.js';

disposeWhatIsOwned();
useGuardedMemory();

describe('trainingTimes', () => {
  const logit = (t: number) => Math.log(t / (1 - t));

  test('are of the seed, the step and the place alone', () => {
    const all = trainingTimes({ count: 8, seed: 7, step: 3 });
    expect(trainingTimes({ count: 8, seed: 7n, step: 3 })).toEqual(all);
    expect(trainingTimes({ count: 3, seed: 7, step: 3 })).toEqual(all.slice(0, 3));
    const others = [
      ...trainingTimes({ count: 8, seed: 7, step: 4 }),
      ...trainingTimes({ count: 8, seed: 8, step: 3 }),
      ...trainingTimes({ count: 8, seed: 7, step: 3 + 2 ** 32 }),
    ];
    expect(new Set([...all, ...others]).size).toBe(32);
    for (const time of all) expect(Math.fround(time)).toBe(time);
    // Not the numbers that randn gives the noise of the same seed.
    const noise = new Set(normals(64, 7n).map((z) => Math.fround(1 / (1 + Math.exp(-z)))));
    expect(trainingTimes({ count: 64, seed: 7, step: 0 }).some((time) => noise.has(time))).toBe(false);
  });

  test('are logit-normal', () => {
    const z = Array.from({ length: 400 }, (_, step) => trainingTimes({ count: 50, seed: 1, step }).map(logit)).flat();
    const moment = (power: number) => z.reduce((sum, value) => sum + value ** power, 0) / z.length;
    // Standard errors of 20,000: 0.007, 0.01, 0.027, 0.07.
    expect(Math.abs(moment(1))).toBeLessThan(0.028);
    expect(Math.abs(moment(2) - 1)).toBeLessThan(0.04);
    expect(Math.abs(moment(3))).toBeLessThan(0.11);
    expect(Math.abs(moment(4) - 3)).toBeLessThan(0.28);
  });

  test('are shifted', () => {
    const options = { count: 20, seed: 5, step: 9 };
    const wanted = trainingTimes(options).map((time) => shiftTime(time, 3));
    trainingTimes({ ...options, shift: 3 }).forEach((time, i) => expect(time).toBeCloseTo(wanted[i]!, 6));
  });

  test('wrong calls', () => {
    const call = (options: object) => () => trainingTimes({ count: 1, seed: 1, step: 1, ...options });
    for (const count of [-1, 0.5, undefined]) expectError(call({ count }), 'ERR_ARGUMENT', 'count');
    for (const seed of [-1, 0.5, '1', 2n ** 64n]) expectError(call({ seed }), 'ERR_ARGUMENT', 'seed');
    for (const step of [-1, 0.5, undefined]) expectError(call({ step }), 'ERR_ARGUMENT', 'step');
    for (const shift of [0, -1, NaN, Infinity]) expectError(call({ shift }), 'ERR_ARGUMENT', 'shift');
    expectError(call({ mean: 1 }), 'ERR_ARGUMENT', 'options', "'mean'");
    expect(trainingTimes({ count: 0, seed: 1, step: 1 })).toEqual([]);
  });
});

test('shiftTime and samplingTimes are those of Wan2.1', () => {
  expect([0, 0.5, 1].map((time) => shiftTime(time, 5))).toEqual([0, 2.5 / 3, 1]);
  expect([0, 0.3, 1].map((time) => shiftTime(time, 1))).toEqual([0, 0.3, 1]);
  expect(samplingTimes(4)).toEqual([1, 0.75, 0.5, 0.25, 0]);
  // np.linspace(1, 0, 5)[:4] by 3 t / (1 + 2 t), and 0.
  expect(samplingTimes(4, 3)).toEqual([1, 0.9, 0.75, 0.5, 0].map(Math.fround));
  for (const time of [-0.1, 1.1, NaN, '1']) expectError(() => shiftTime(time as number, 2), 'ERR_ARGUMENT', 'time');
  for (const shift of [0, NaN]) expectError(() => shiftTime(0.5, shift), 'ERR_ARGUMENT', 'shift');
  for (const steps of [0, 1.5, NaN]) expectError(() => samplingTimes(steps), 'ERR_ARGUMENT', 'steps');
});

describe('interpolate', () => {
  test.each(FORMATS)('%s', async (format) => {
    const shape = [4, 5, 3];
    const [data, noise] = [random(shape, format, 1), random(shape, format, 2)];
    const times = [0, 0.3, Math.fround(0.9), 1];
    const { noisy, target } = interpolate({ data: data.tensor, noise: noise.tensor, times });
    [noisy, target].forEach(own);
    const time = (i: number) => times[Math.floor(i / 15)]!;
    const wanted = data.values.map((x, i) => (1 - time(i)) * x + time(i) * noise.values[i]!);
    await expectClose(noisy, wanted, format, { steps: 1, least: 2e-7 });
    const got = await valuesOf(noisy);
    expect(got.slice(0, 15)).toEqual(data.values.slice(0, 15)); // at 0 the data itself, at 1 the noise
    expect(got.slice(45)).toEqual(noise.values.slice(45));
    await expectClose(
      target,
      noise.values.map((x, i) => x - data.values[i]!),
      format,
      { steps: 1, least: 2e-7 },
    );
    expect([noisy.shape, target.shape]).toEqual([shape, shape]);
  });

  test('records nothing, and takes an empty batch', () => {
    const { tensor: data } = given([1, 2], [1, 2]);
    data.requiresGrad = true;
    const made = Object.values(interpolate({ data, noise: data, times: [0.5] })).map(own);
    expect(made.map(({ requiresGrad }) => requiresGrad)).toEqual([false, false]);
    const { tensor: none } = given([], [0, 2]);
    for (const tensor of Object.values(interpolate({ data: none, noise: none, times: [] }))) {
      expect(own(tensor).shape).toEqual([0, 2]);
    }
  });

  test('wrong calls', () => {
    const zeros = (shape: number[], dtype: DType = 'float32') => own(fresh.zeros(shape, { dtype }));
    const valid = { data: zeros([2, 3]), noise: zeros([2, 3]), times: [0.1, 0.2] };
    const call = (options: object) => () => interpolate({ ...valid, ...options });
    const [gone, half, other, scalar] = [own(disposed(valid.data)), zeros([2, 3], 'float16'), zeros([3, 2]), zeros([])];
    const [integers, there] = [zeros([2, 3], 'int32'), own(elsewhere(valid.data))];
    for (const argument of ['data', 'noise']) {
      for (const value of NO_TENSORS) expectError(call({ [argument]: value }), 'ERR_ARGUMENT', argument, 'a Tensor');
      expectError(call({ [argument]: gone }), 'ERR_DISPOSED', argument);
      expectError(call({ [argument]: integers }), 'ERR_DTYPE', argument);
    }
    expectError(call({ noise: half }), 'ERR_DTYPE', 'noise', 'as data has');
    expectError(call({ noise: other }), 'ERR_SHAPE', 'noise', 'as data has');
    expectError(call({ data: scalar, noise: scalar }), 'ERR_SHAPE', 'data', 'rank 1 or more');
    expectError(call({ noise: there }), 'ERR_DEVICE', 'noise');
    for (const times of [undefined, [], [0.5], [0, 0, 0], 0.5]) expectError(call({ times }), 'ERR_SHAPE', 'times');
    for (const time of [-0.1, 1.1, NaN, '0']) expectError(call({ times: [0, time] }), 'ERR_ARGUMENT', 'times[1]');
    expectError(call({ t: 1 }), 'ERR_ARGUMENT', 'options', "'t'");
  });
});

describe('eulerSample', () => {
  /** x at time 0 in float64, of a velocity for each element. */
  function reference(x: Float64Array, velocity: (x: number, t: number) => number, steps: number, shift = 1) {
    const times = samplingTimes(steps, shift);
    for (const [i, t] of times.slice(0, -1).entries()) {
      x = x.map((value) => value + (times[i + 1]! - t) * velocity(value, t));
    }
    return x;
  }
  const itself: Velocity = (x) => scale({ x, by: 1 });

  test.each([1, 3, 8])('a constant velocity is integrated exactly: %i steps', async (steps) => {
    const [noise, v] = [given([3, -1, 0.5, 8], [2, 2]), given([1, 2, -4, 0.25], [2, 2])];
    for (const shift of [1, 5]) {
      const sample = own(eulerSample({ velocity: () => v.tensor, noise: noise.tensor, steps, shift }));
      const wanted = noise.values.map((x, i) => x - v.values[i]!);
      if (steps === 8 && shift === 1) await expectExact(sample, wanted);
      await expectClose(sample, wanted, 'float32', { steps: 2, least: 1e-6 });
    }
    await expectExact(noise.tensor, noise.values);
    v.tensor.toString(); // what a velocity gives that was made before is its owner's, and living
    expect(v.tensor.disposed).toBe(false);
  });

  test('a linear one converges at first order', async () => {
    const noise = given([1, -2, 0.5], [1, 3]);
    const errors: number[] = [];
    for (const steps of [8, 16, 32, 64]) {
      const sample = own(eulerSample({ velocity: itself, noise: noise.tensor, steps }));
      await expectClose(
        sample,
        reference(noise.values, (x) => x, steps),
        'float32',
        { steps: 8 },
      );
      errors.push(Math.abs((await valuesOf(sample))[0]! - Math.exp(-1))); // dx/dt = x
    }
    const ratios = errors.slice(1).map((error, i) => errors[i]! / error);
    for (const ratio of ratios) expect(Math.abs(ratio - 2)).toBeLessThan(0.1);
  });

  test('the velocity is asked at the times of the schedule, one a batch entry', async () => {
    const noise = given([1, 2], [2, 1]);
    const asked: (readonly number[])[] = [];
    const velocity: Velocity = (x, times) => {
      asked.push([...times]);
      return scale({ x, by: times[0]! });
    };
    const sample = own(eulerSample({ velocity, noise: noise.tensor, steps: 5, shift: 3 }));
    expect(asked).toEqual(
      samplingTimes(5, 3)
        .slice(0, -1)
        .map((time) => [time, time]),
    );
    await expectClose(
      sample,
      reference(noise.values, (x, t) => x * t, 5, 3),
      'float32',
      { steps: 4 },
    );
  });

  test('guidance goes away from the unconditional velocity', async () => {
    const noise = given([1, -1], [1, 2]);
    const unconditional: Velocity = (x) => scale({ x, by: -0.5 });
    const guided = (guide: number) =>
      own(eulerSample({ velocity: itself, noise: noise.tensor, steps: 4, guidance: { scale: guide, unconditional } }));
    await expectClose(
      guided(3),
      reference(noise.values, (x) => -0.5 * x + 3 * (x + 0.5 * x), 4),
      'float32',
      { steps: 8 },
    );
    await expectExact(guided(1), await valuesOf(own(eulerSample({ velocity: itself, noise: noise.tensor, steps: 4 }))));
    await expectClose(
      guided(0),
      reference(noise.values, (x) => -0.5 * x, 4),
      'float32',
      { steps: 4 },
    );
  });

  test('a velocity of another float dtype is taken in that of the noise', async () => {
    const noise = given([1, -2], [1, 2]);
    const velocity: Velocity = (x) => x.cast('bfloat16');
    const sample = own(eulerSample({ velocity, noise: noise.tensor, steps: 2 }));
    await expectExact(sample, Float64Array.of(0.25, -0.5));
  });

  test('tells every step', () => {
    const told: Omit<EulerStep, 'x'>[] = [];
    const values: number[] = [];
    const onStep = ({ x, ...rest }: EulerStep) => {
      told.push(rest);
      values.push(x.item());
    };
    own(eulerSample({ velocity: itself, noise: given([8], [1]).tensor, steps: 3, onStep }));
    expect(told).toEqual([1, 2, 3].map((step) => ({ step, steps: 3, time: samplingTimes(3)[step] })));
    for (const [i, value] of values.entries()) expect(value).toBeCloseTo(8 * (2 / 3) ** (i + 1), 5);
  });

  test('memory is bounded by a step, and nothing is left behind where a function throws', () => {
    const noise = given(new Float64Array(256), [1, 256]);
    noise.tensor.requiresGrad = true;
    const before = memory().numBytes;
    const held: number[] = [];
    const velocity: Velocity = (x) => {
      held.push(memory().numBytes - before);
      return scale({ x: scale({ x, by: 2 }), by: 0.5 });
    };
    const sample = own(eulerSample({ velocity, noise: noise.tensor, steps: 6 }));
    expect(held).toEqual([0, 1024, 1024, 1024, 1024, 1024]);
    expect(sample.requiresGrad).toBe(false);
    const fail = () => {
      throw new Error('enough');
    };
    const after = memory();
    expect(() => eulerSample({ velocity, noise: noise.tensor, steps: 6, onStep: fail })).toThrow('enough');
    expect(() => eulerSample({ velocity: fail, noise: noise.tensor, steps: 6 })).toThrow('enough');
    expect(memory()).toEqual(after);
  });

  test('wrong calls', () => {
    const { tensor: noise } = given([1, 2], [1, 2]);
    const valid: EulerSampleOptions = { velocity: itself, noise, steps: 2 };
    const call = (options: object) => () => eulerSample({ ...valid, ...options });
    const [gone, scalar, there] = [own(disposed(noise)), given([1], []).tensor, own(elsewhere(noise))];
    const [other, integers] = [given([1], [1, 1]).tensor, own(fresh.zeros([1, 2], { dtype: 'int32' }))];
    for (const value of NO_TENSORS) {
      expectError(call({ noise: value }), 'ERR_ARGUMENT', 'noise', 'a Tensor');
      expectError(call({ velocity: () => value }), 'ERR_ARGUMENT', 'velocity', 'a Tensor');
      const guidance = { scale: 2, unconditional: () => value as Tensor };
      expectError(call({ guidance }), 'ERR_ARGUMENT', 'guidance.unconditional', 'a Tensor');
    }
    expectError(call({ noise: gone }), 'ERR_DISPOSED', 'noise');
    expectError(call({ noise: scalar }), 'ERR_SHAPE', 'noise', 'rank 1 or more');
    expectError(call({ noise: integers }), 'ERR_DTYPE', 'noise');
    expectError(call({ velocity: () => gone }), 'ERR_DISPOSED', 'velocity');
    expectError(call({ velocity: () => other }), 'ERR_SHAPE', 'velocity', 'as noise has');
    expectError(call({ velocity: () => integers }), 'ERR_DTYPE', 'velocity');
    expectError(call({ velocity: () => there }), 'ERR_DEVICE', 'velocity');
    for (const steps of [0, -1, 1.5, undefined]) expectError(call({ steps }), 'ERR_ARGUMENT', 'steps');
    for (const shift of [0, -1, NaN]) expectError(call({ shift }), 'ERR_ARGUMENT', 'shift');
    for (const none of [null, 5, {}]) {
      expectError(call({ velocity: none }), 'ERR_ARGUMENT', 'velocity', 'a function');
      expectError(call({ onStep: none }), 'ERR_ARGUMENT', 'onStep', 'a function');
      expectError(call({ guidance: { scale: 1, unconditional: none } }), 'ERR_ARGUMENT', 'guidance.unconditional');
    }
    for (const guide of [NaN, 1e39, '2']) {
      expectError(call({ guidance: { scale: guide, unconditional: itself } }), 'ERR_ARGUMENT', 'guidance.scale');
    }
    expectError(call({ guidance: { weight: 2 } }), 'ERR_ARGUMENT', 'guidance', "'weight'");
    expectError(call({ cfg: 5 }), 'ERR_ARGUMENT', 'options', "'cfg'");
  });
});
