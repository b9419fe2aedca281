import '../../lib/autograd/index.js';
import { cpuThreads, setCpuThreads, Tensor, tidy } from '../../lib/index.js';
import { valuesOf } from '../../lib/check/values.js';
import * as functional from '../../lib/nn/functional-arithmetic.js';
import { AdamW, type AdamWOptions, gradientNorm } from '../../lib/nn/optim/index.js';
import { roundingStep } from '../../lib/oracle/index.js';
import { disposed, elsewhere, expectError, NO_TENSORS } from '../attention/misuse.js';
import { bitsOf, useGuardedMemory } from '../attention/support.js';
import { fresh, here } from '../under-test.js';
import { disposeWhatIsOwned, expectClose, expectExact, given, own, random } from './numbers.js';

disposeWhatIsOwned();
useGuardedMemory();

/** Algorithm 2 of arXiv 1711.05101 with a schedule multiplier of 1 and decay scaled by the rate, in float64. */
class Reference {
  /** The largest magnitude that each value has had. */
  readonly largest: Float64Array;
  readonly #m: Float64Array;
  readonly #v: Float64Array;
  #t = 0;

  constructor(
    readonly values: Float64Array,
    readonly beta1: number,
    readonly beta2: number,
    readonly eps: number,
    readonly weightDecay: number,
  ) {
    this.largest = values.map(Math.abs);
    this.#m = new Float64Array(values.length);
    this.#v = new Float64Array(values.length);
  }

  step(gradient: Float64Array, rate: number, factor = 1): void {
    const { values, beta1, beta2, eps, weightDecay } = this;
    this.#t += 1;
    for (const [i, given] of gradient.entries()) {
      const g = given * factor;
      this.#m[i] = beta1 * this.#m[i]! + (1 - beta1) * g;
      this.#v[i] = beta2 * this.#v[i]! + (1 - beta2) * g ** 2;
      const mean = this.#m[i] / (1 - beta1 ** this.#t);
      const square = this.#v[i] / (1 - beta2 ** this.#t);
      values[i]! -= rate * (mean / (Math.sqrt(square) + eps) + weightDecay * values[i]!);
      this.largest[i] = Math.max(this.largest[i]!, Math.abs(values[i]!));
    }
  }
}

/** Gives a parameter this gradient, and no other. */
function setGrad(parameter: Tensor, gradient: Tensor): void {
  parameter.requiresGrad = true;
  parameter.zeroGrad();
  parameter.backward(gradient);
}

const SHAPES = { weight: [17, 3], bias: [17], gain: [1], large: [3, 301], scalar: [], empty: [0, 4] };
const OPTIONS = { learningRate: 3e-3, betas: [0.9, 0.95] as const, eps: 1e-8, weightDecay: 0.1 };

function makeParameters(seed: number): Map<string, Tensor> {
  return new Map(Object.entries(SHAPES).map(([name, shape], i) => [name, random(shape, 'float32', seed + i).tensor]));
}

function makeAdamW(parameters: Map<string, Tensor> | Iterable<Tensor>, options: AdamWOptions = OPTIONS): AdamW {
  return own(new AdamW(parameters, options));
}

function setGrads(parameters: Map<string, Tensor>, seed: number): void {
  let next = seed;
  for (const tensor of parameters.values()) setGrad(tensor, random(tensor.shape, 'float32', (next += 1)).tensor);
}

test('100 steps are those of the paper in float64, within a few float32 ulps', async () => {
  const parameters = makeParameters(1);
  const references = new Map<string, Reference>();
  for (const [name, tensor] of parameters) {
    const decay = tensor.rank >= 2 ? OPTIONS.weightDecay : 0;
    references.set(name, new Reference(await valuesOf(tensor), ...OPTIONS.betas, OPTIONS.eps, decay));
  }
  const adamW = makeAdamW(parameters);
  for (let step = 0; step < 100; step++) {
    const learningRate = 3e-3 / (1 + step / 50);
    let seed = 1000 * step;
    for (const [name, tensor] of parameters) {
      // Gradients of all sizes, some of them 0 for a while.
      const gradient = random(tensor.shape, 'float32', (seed += 1)).values.map((g, i) => g * 10 ** ((i % 9) - 6));
      if (step < 10) gradient.forEach((_, i) => i % 4 === 0 && (gradient[i] = 0));
      const { tensor: held, values } = given(gradient, tensor.shape);
      setGrad(tensor, held);
      references.get(name)!.step(values, learningRate);
      held.dispose();
    }
    adamW.step({ learningRate });
  }
  const ulps: number[] = [];
  for (const [name, tensor] of parameters) {
    const [got, { values: wanted, largest }] = [await valuesOf(tensor), references.get(name)!];
    // An ulp of the largest magnitude on the way: there the roundings were.
    got.forEach((value, i) => {
      ulps.push(Math.abs(value - wanted[i]!) / roundingStep('float32', largest[i]!));
    });
    tensor.zeroGrad();
  }
  const rms = Math.sqrt(ulps.reduce((sum, ulp) => sum + ulp ** 2, 0) / ulps.length);
  expect(rms).toBeLessThan(3); // 100 roundings of up to half an ulp: 2.9 if they are independent
  expect(Math.max(...ulps)).toBeLessThan(15);
});

test('parameters that are cut into work items', async () => {
  const parameters = [[16_384], [3], [2, 16_390], [0], [1]].map((shape, i) => random(shape, 'float32', 1 + i));
  const tensors = parameters.map(({ tensor }) => tensor);
  const adamW = makeAdamW(tensors, { learningRate: 0.1, weightDecay: 0.1, decays: () => true });
  const gradients = parameters.map(({ shape }, i) => random(shape, 'float32', 10 + i));
  for (const [i, tensor] of tensors.entries()) setGrad(tensor, gradients[i]!.tensor);
  adamW.step();
  adamW.zeroGrad();
  for (const [i, { tensor, values }] of parameters.entries()) {
    const reference = new Reference(values.slice(), 0.9, 0.999, 1e-8, 0.1);
    reference.step(gradients[i]!.values, 0.1);
    await expectClose(tensor, reference.values, 'float32', { steps: 1, least: 1e-7 });
  }
});

test('what decays: rank 2 and more, or what is chosen', async () => {
  const decayed = async (options: AdamWOptions) => {
    const parameters = new Map([
      ['matrix', given([1, 1], [1, 2]).tensor],
      ['vector', given([1], [1]).tensor],
    ]);
    const adamW = makeAdamW(parameters, { learningRate: 0.5, weightDecay: 0.5, ...options });
    for (const tensor of parameters.values()) setGrad(tensor, own(fresh.zeros(tensor.shape)));
    adamW.step();
    adamW.zeroGrad();
    const names = [];
    for (const [name, tensor] of parameters) if ((await valuesOf(tensor))[0] === 0.75) names.push(name);
    return names;
  };
  expect(await decayed({})).toEqual(['matrix']);
  expect(await decayed({ decays: (name) => name === 'vector' })).toEqual(['vector']);
  expect(await decayed({ decays: (_, { size }) => size > 0 })).toEqual(['matrix', 'vector']);
  expect(await decayed({ weightDecay: 0 })).toEqual([]);
});

test('a parameter without a gradient is left alone, and goes on where it was', async () => {
  const values = random([5], 'float32', 1).values;
  const [always, sometimes] = [given(values, [5]).tensor, given(values, [5]).tensor];
  const reference = new Reference(values.slice(), 0.9, 0.999, 1e-8, 0);
  const adamW = makeAdamW(new Map(Object.entries({ always, sometimes })), { learningRate: 0.1 });
  for (let step = 0; step < 6; step++) {
    const gradient = random([5], 'float32', 10 + step);
    for (const tensor of [always, sometimes]) tensor.zeroGrad();
    setGrad(always, gradient.tensor);
    const before = [await bitsOf(sometimes), await stateBits(adamW, 'sometimes')];
    if (step % 2 === 1) {
      setGrad(sometimes, gradient.tensor);
      reference.step(gradient.values, 0.1);
    }
    adamW.step();
    const after = [await bitsOf(sometimes), await stateBits(adamW, 'sometimes')];
    if (step % 2 === 0) expect(after).toEqual(before);
  }
  adamW.zeroGrad();
  // Its bias corrections are of its own three steps, not of the optimizer's six.
  const got = await valuesOf(sometimes);
  got.forEach((value, i) => expect(Math.abs(value - reference.values[i]!)).toBeLessThan(1e-6));
  const state = adamW.state();
  expect([...state.get('steps')!.dataSync()]).toEqual([6, 3]);
  for (const tensor of state.values()) tensor.dispose();
  adamW.step(); // nothing has a gradient: nothing happens
  await expectExact(sometimes, got);
});

async function stateBits(adamW: AdamW, prefix = ''): Promise<string[]> {
  const bits = [];
  for (const [name, tensor] of adamW.state()) {
    if (name.startsWith(prefix)) bits.push(await bitsOf(tensor));
    tensor.dispose();
  }
  return bits;
}

test('state() and loadState() go on bit for bit', async () => {
  const finish = async (parameters: Map<string, Tensor>, adamW: AdamW) => {
    for (let step = 5; step < 9; step++) {
      setGrads(parameters, 100 * step);
      adamW.step({ learningRate: 1e-2 / step });
    }
    adamW.zeroGrad();
    const bits = [];
    for (const tensor of parameters.values()) bits.push(await bitsOf(tensor));
    return [...bits, ...(await stateBits(adamW))];
  };
  const parameters = makeParameters(1);
  const adamW = makeAdamW(parameters);
  for (let step = 0; step < 5; step++) {
    setGrads(parameters, 100 * step);
    if (step === 2) parameters.get('bias')!.zeroGrad(); // so that counts differ
    adamW.step({ learningRate: 1e-2 });
  }
  const copies = new Map([...parameters].map(([name, tensor]) => [name, own(own(tensor.detach()).clone())]));
  const state = new Map(
    [...adamW.state()].map(([name, tensor]) => {
      const copy = own(tensor.clone());
      tensor.dispose();
      return [name, copy];
    }),
  );
  expect([...state.keys()]).toEqual([
    ...Object.keys(SHAPES).flatMap((name) => [`${name}.first`, `${name}.second`]),
    'steps',
  ]);
  const through = await finish(parameters, adamW);
  const resumed = makeAdamW(copies);
  setGrads(copies, 7); // what its state was is forgotten
  resumed.step({ learningRate: 0 });
  resumed.loadState(state);
  expect(await finish(copies, resumed)).toEqual(through);
});

describe('gradientScale', () => {
  test.each([
    ['[]', (factor: number) => given([factor], []).tensor, 0.25],
    ['[1]', (factor: number) => given([factor], [1]).tensor, 0.25],
    ['the second of [2]', (factor: number) => given([9, factor], [2]).tensor, 0.25],
  ])('%s', async (_, make, factor) => {
    const { tensor, values } = random([3, 5], 'float32', 1);
    const reference = new Reference(values.slice(), 0.9, 0.999, 1, 0);
    const adamW = makeAdamW([tensor], { learningRate: 0.1, eps: 1, weightDecay: 0 }); // with an eps that scales count for
    const gradient = random([3, 5], 'float32', 2);
    setGrad(tensor, gradient.tensor);
    adamW.step({ gradientScale: make(factor) });
    adamW.zeroGrad();
    reference.step(gradient.values, 0.1, factor);
    const got = await valuesOf(tensor);
    got.forEach((value, i) => expect(Math.abs(value - reference.values[i]!)).toBeLessThan(3e-7));
  });

  test('of a gradient that is NaN makes every parameter NaN', async () => {
    const [a, b] = [given([1, 2], [2]).tensor, given([3], [1]).tensor];
    const adamW = makeAdamW([a, b]);
    setGrad(a, given([1, NaN], [2]).tensor);
    setGrad(b, given([1], [1]).tensor);
    adamW.step({ gradientScale: own(gradientNorm([a, b], { maxNorm: 1 })) });
    adamW.zeroGrad();
    expect([...(await valuesOf(a)), ...(await valuesOf(b))]).toEqual([NaN, NaN, NaN]);
  });
});

test('the tape knows that parameters are overwritten', () => {
  const { tensor: a } = given([1, 2], [2]);
  const adamW = makeAdamW([a]);
  setGrad(a, given([1, 1], [2]).tensor);
  const output = own(functional.multiply({ a, b: a }));
  adamW.step();
  adamW.zeroGrad();
  expect(() => output.backward(given([1, 1], [2]).tensor)).toThrow('multiply needs was overwritten');
});

test('a recorded step, replayed with new rates, is the same as steps', async () => {
  const run = async (recorded: boolean) => {
    const { tensor: a } = random([4, 3], 'float32', 1);
    const { tensor: target } = random([4, 3], 'float32', 2);
    const { tensor: free } = random([2], 'float32', 3);
    const adamW = makeAdamW(new Map(Object.entries({ a, free })), OPTIONS);
    a.requiresGrad = true;
    const once = (learningRate: number) => {
      adamW.zeroGrad();
      tidy(() => {
        functional.meanSquaredError({ prediction: a, target }).backward();
        adamW.step({ learningRate, gradientScale: gradientNorm([a], { maxNorm: 0.1 }) });
      });
    };
    once(0.1);
    const graph = recorded ? own(here.graph(() => once(0.5))) : undefined; // its rate is that of the replays
    for (const learningRate of [0.3, 0.2, 0.1]) {
      if (graph === undefined) once(learningRate);
      else {
        adamW.prepareReplay({ learningRate });
        graph.replay();
      }
    }
    const bits = [await bitsOf(a), await bitsOf(free), ...(await stateBits(adamW))];
    adamW.zeroGrad();
    return bits;
  };
  expect(await run(true)).toEqual(await run(false));
});

test('a replay is refused where nothing was recorded, or what was is no longer so', () => {
  const [a, b] = [given([1], [1]).tensor, given([2], [1]).tensor];
  const adamW = makeAdamW([a, b]);
  for (const tensor of [a, b]) setGrad(tensor, given([1], [1]).tensor);
  expectError(() => adamW.prepareReplay(), 'ERR_CAPTURE', 'this', 'without a recorded step');
  own(here.graph(() => adamW.step()));
  adamW.prepareReplay();
  b.zeroGrad();
  adamW.step();
  expectError(() => adamW.prepareReplay(), 'ERR_CAPTURE', 'this', 'the same parameters with gradients');
  for (const tensor of [a, b]) setGrad(tensor, given([1], [1]).tensor);
  expect(() => here.graph(() => adamW.step())).toThrow('a step before it is recorded');
  adamW.zeroGrad();
});

test('memory: two moments a parameter, kept through tidy, given back by dispose', () => {
  const { tensor } = random([3, 5], 'float32', 1);
  const adamW = tidy(() => {
    const optimizer = new AdamW([tensor]);
    return { optimizer };
  }).optimizer;
  setGrad(tensor, random([3, 5], 'float32', 2).tensor);
  tidy(() => {
    adamW.step();
  });
  adamW.step();
  adamW.zeroGrad();
  adamW.dispose();
  adamW.dispose();
  expect(adamW.disposed).toBe(true);
  for (const call of [
    () => adamW.step(),
    () => adamW.prepareReplay(),
    () => adamW.state(),
    () => adamW.loadState(new Map()),
  ]) {
    expectError(call, 'ERR_DISPOSED', 'this', 'a disposed AdamW');
  }
});

test('the same bits whatever the number of threads', async () => {
  const before = cpuThreads();
  const found = new Set<string>();
  for (const threads of [1, 2, 5]) {
    setCpuThreads(threads);
    const { tensor } = random([40_001], 'float32', 1);
    const adamW = makeAdamW([tensor]);
    setGrad(tensor, random([40_001], 'float32', 2).tensor);
    adamW.step();
    adamW.zeroGrad();
    found.add(await bitsOf(tensor));
  }
  setCpuThreads(before);
  expect(found.size).toBe(1);
});

describe('wrong calls', () => {
  test('parameters', () => {
    const { tensor: a } = given([1], [1]);
    const make = (parameters: unknown) => () => new AdamW(parameters as Tensor[]);
    for (const none of [undefined, null, 5, {}, 'a']) expectError(make(none), 'ERR_ARGUMENT', 'parameters', 'a Map');
    for (const none of [[], new Map()]) expectError(make(none), 'ERR_ARGUMENT', 'parameters', 'at least one');
    for (const value of NO_TENSORS) expectError(make([a, value]), 'ERR_ARGUMENT', 'parameters.1', 'a Tensor');
    expectError(make(new Map([[3, a]])), 'ERR_ARGUMENT', 'parameters', 'names that are strings');
    const [gone, half, alias, there] = [
      own(disposed(a)),
      given([1], [1], 'bfloat16').tensor,
      own(a.reshape([])),
      own(elsewhere(given([1], [1]).tensor)),
    ];
    expectError(make([gone]), 'ERR_DISPOSED', 'parameters.0');
    expectError(make([half]), 'ERR_DTYPE', 'parameters.0', 'float32');
    expectError(
      make(
        new Map([
          ['a', a],
          ['b', alias],
        ]),
      ),
      'ERR_ARGUMENT',
      'parameters.b',
      'the memory of parameters.a again',
    );
    expectError(make([a, there]), 'ERR_DEVICE', 'parameters.1');
  });

  test('options', () => {
    const { tensor: a } = given([1], [1]);
    const make = (options: object) => () => new AdamW([a], options);
    for (const learningRate of [-1, NaN, Infinity, 1e39, '1'])
      expectError(make({ learningRate }), 'ERR_ARGUMENT', 'learningRate');
    for (const betas of [[0.9], 0.9, [0.9, 0.9, 0.9], 'ab']) expectError(make({ betas }), 'ERR_ARGUMENT', 'betas');
    for (const beta of [-0.1, 1, NaN]) {
      expectError(make({ betas: [beta, 0.9] }), 'ERR_ARGUMENT', 'betas[0]');
      expectError(make({ betas: [0.9, beta] }), 'ERR_ARGUMENT', 'betas[1]');
    }
    for (const eps of [-1, NaN]) expectError(make({ eps }), 'ERR_ARGUMENT', 'eps');
    for (const weightDecay of [-1, NaN]) expectError(make({ weightDecay }), 'ERR_ARGUMENT', 'weightDecay');
    expectError(make({ decays: true }), 'ERR_ARGUMENT', 'decays', 'a function');
    expectError(make({ decays: () => 1 }), 'ERR_ARGUMENT', 'decays', 'true or false');
    expectError(make({ lr: 1 }), 'ERR_ARGUMENT', 'options', "'lr'");
  });

  test('step', async () => {
    const { tensor: a } = given([1], [1]);
    const gone = given([1], [1]).tensor;
    const adamW = makeAdamW(new Map(Object.entries({ a, gone })));
    for (const tensor of [a, gone]) setGrad(tensor, given([1], [1]).tensor);
    const [long, half, there] = [
      given([1, 2, 3], [3]).tensor,
      given([1], [], 'float16').tensor,
      own(elsewhere(own(a.detach()))),
    ];
    for (const learningRate of [-1, NaN, '1']) {
      expectError(() => adamW.step({ learningRate: learningRate as number }), 'ERR_ARGUMENT', 'learningRate');
    }
    for (const value of NO_TENSORS.slice(1)) {
      expectError(() => adamW.step({ gradientScale: value as Tensor }), 'ERR_ARGUMENT', 'gradientScale');
    }
    expectError(() => adamW.step({ gradientScale: long }), 'ERR_SHAPE', 'gradientScale', 'what gradientNorm returned');
    expectError(() => adamW.step({ gradientScale: half }), 'ERR_DTYPE', 'gradientScale');
    expectError(() => adamW.step({ gradientScale: there }), 'ERR_DEVICE', 'gradientScale');
    gone.dispose();
    expectError(() => adamW.step(), 'ERR_DISPOSED', 'parameters.gone');
    await expectExact(a, Float64Array.of(1)); // nothing has changed
    a.zeroGrad();
  });

  test('loadState', async () => {
    const { tensor: a } = given([1, 2], [2]);
    const adamW = makeAdamW(new Map([['a', a]]));
    const before = await stateBits(adamW);
    const valid = { 'a.first': given([1, 2], [2]).tensor, 'a.second': given([3, 4], [2]).tensor };
    const steps = own(Tensor.from(Int32Array.of(1), undefined, { device: 'cpu' }));
    const load = (state: object) => () => adamW.loadState(new Map(Object.entries({ ...valid, steps, ...state })));
    const [longer, half, gone] = [given([1], [1]).tensor, given([1, 2], [2], 'float16').tensor, own(disposed(a))];
    for (const state of [undefined, {}, []]) {
      expectError(() => adamW.loadState(state as never), 'ERR_ARGUMENT', 'state', 'a Map');
    }
    expectError(load({ 'b.first': longer }), 'ERR_ARGUMENT', 'state', "the unknown name 'b.first'");
    expectError(load({ 'a.second': undefined }), 'ERR_ARGUMENT', 'state.a.second', 'a Tensor');
    expectError(load({ 'a.second': longer }), 'ERR_SHAPE', 'state.a.second');
    expectError(load({ 'a.second': half }), 'ERR_DTYPE', 'state.a.second');
    expectError(load({ 'a.first': gone }), 'ERR_DISPOSED', 'state.a.first');
    expectError(load({ steps: longer }), 'ERR_DTYPE', 'state.steps');
    const negative = own(Tensor.from(Int32Array.of(-1), undefined, { device: 'cpu' }));
    expectError(load({ steps: negative }), 'ERR_ARGUMENT', 'state.steps', 'at least 0');
    expect(await stateBits(adamW)).toEqual(before);
  });
});
