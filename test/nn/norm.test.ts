import { cpuThreads, setCpuThreads, type Tensor, tidy } from '../../lib/index.js';
import * as functional from '../../lib/nn/functional.js';
import { layerNorm, rmsNorm } from '../../lib/nn/ops/norm.js';
import { type Misuse } from '../attention/misuse.js';
import { bitsOfAll, useGuardedMemory } from '../attention/support.js';
import { fresh } from '../under-test.js';
import {
  away,
  count,
  dispose,
  expectBackwardMisuses,
  expectClose,
  expectGradients,
  expectMisuses,
  FORMATS,
  notTensors,
  operand,
  type Values,
} from './pairs.js';

useGuardedMemory();

interface Case {
  shape: number[];
  rms?: boolean;
  parameters: string[];
  eps?: number;
}

/** The definition, row by row. */
function reference({ shape, rms = false, eps = 1e-6 }: Case, { x, ...given }: Values): Float64Array {
  const width = shape.at(-1)!;
  const rowsOfBatch = count(shape) / width / shape[0]!;
  const output = new Float64Array(x!.length);
  for (let row = 0; row < x!.length / width; row++) {
    const values = x!.subarray(row * width, (row + 1) * width);
    const mean = rms ? 0 : values.reduce((sum, value) => sum + value, 0) / width;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
    const batch = Math.floor(row / rowsOfBatch) * width;
    for (let c = 0; c < width; c++) {
      const gain = (given['weight']?.[c] ?? 1) * (1 + (given['scale']?.[batch + c] ?? 0));
      const shift = (given['bias']?.[c] ?? 0) + (given['shift']?.[batch + c] ?? 0);
      output[row * width + c] = ((values[c]! - mean) / Math.sqrt(variance + eps)) * gain + shift;
    }
  }
  return output;
}

const modulation = ['scale', 'shift'];
const CASES: Case[] = [
  { shape: [2, 3, 17], parameters: [] },
  { shape: [5], parameters: ['weight', 'bias'] },
  { shape: [3, 1, 2, 7], parameters: ['weight', 'bias'], eps: 0.5 },
  { shape: [19, 3], parameters: ['weight'] },
  { shape: [19, 3], parameters: ['bias'] },
  { shape: [2, 37, 3], parameters: modulation },
  { shape: [3, 2, 2, 5], parameters: modulation, eps: 1e-3 },
  { shape: [4, 9], parameters: modulation },
  { shape: [2, 3, 4], parameters: ['scale'] },
  { shape: [2, 3, 4], parameters: ['shift'] },
  { shape: [2, 3, 17], rms: true, parameters: [] },
  { shape: [2, 19, 5], rms: true, parameters: ['weight'] },
  { shape: [33], rms: true, parameters: ['weight'], eps: 0.1 },
];

const named = CASES.map((c) => [`${c.rms === true ? 'rmsNorm' : 'layerNorm'} ${c.shape.join('x')}`, c] as const);

describe.each(FORMATS)('%s', (format) => {
  test.each(named)('%s and its gradients', async (_, c) => {
    const x = operand(c.shape, 1, format, { mean: 0.5, std: 2 });
    const shape = c.parameters.some((name) => modulation.includes(name))
      ? [c.shape[0]!, c.shape.at(-1)!]
      : c.shape.slice(-1);
    const made = c.parameters.map((name, i) => [name, operand(shape, 2 + i)] as const);
    const values: Values = { x: x.values, ...Object.fromEntries(made.map(([name, { values }]) => [name, values])) };
    const options = { x: x.tensor, ...Object.fromEntries(made.map(([name, { tensor }]) => [name, tensor])) };
    const eps = c.eps === undefined ? {} : { eps: c.eps };
    const gradient = operand(c.shape, 9, format);
    const { output, grads } = tidy(() => {
      const pair = c.rms === true ? rmsNorm : layerNorm;
      const forward = pair.forward({ ...options, ...eps });
      dispose(options); // what is saved is held
      return { output: forward.output, grads: pair.backward(forward.saved, { output: gradient.tensor }) };
    });
    await expectClose(output, reference(c, values), 'output');
    await expectGradients({ ...grads }, (inputs) => reference(c, inputs), values, gradient.values);
    dispose({ output, gradient: gradient.tensor });
  });
});

test.each([1, 300, 8192])('a mean of 1000 beside a deviation of 1, width %d', async (width) => {
  const x = operand([3, width], 4, 'float32', { mean: 1000 });
  const gradient = operand([3, width], 5);
  const { output, grads } = tidy(() => {
    const forward = layerNorm.forward({ x: x.tensor });
    return { output: forward.output, grads: layerNorm.backward(forward.saved, { output: gradient.tensor }) };
  });
  const c = { shape: [3, width], parameters: [] };
  await expectClose(output, reference(c, { x: x.values }), 'output');
  // dx = rstd (g - mean g - n mean(g n))
  const normal = reference(c, { x: x.values });
  const dx = new Float64Array(3 * width);
  for (let row = 0; row < 3; row++) {
    const mean = (f: (i: number) => number) => {
      let sum = 0;
      for (let i = row * width; i < (row + 1) * width; i++) sum += f(i);
      return sum / width;
    };
    const g = gradient.values;
    const center = mean((i) => x.values[i]!);
    const rstd = 1 / Math.sqrt(mean((i) => (x.values[i]! - center) ** 2) + 1e-6);
    const [average, along] = [mean((i) => g[i]!), mean((i) => g[i]! * normal[i]!)];
    for (let i = row * width; i < (row + 1) * width; i++) dx[i] = rstd * (g[i]! - average - normal[i]! * along);
  }
  await expectClose(grads.x!, dx, 'gradient of x');
  dispose({ x: x.tensor, gradient: gradient.tensor, output, dx: grads.x });
});

test('the same bits whatever the number of threads', async () => {
  const before = cpuThreads();
  const x = operand([2, 701, 67], 1);
  const [scale, shift] = [operand([2, 67], 2), operand([2, 67], 3)];
  const weight = operand([67], 4);
  const bits = [];
  for (const threads of [1, 2, 5]) {
    setCpuThreads(threads);
    const results = tidy(() => {
      const modulated = layerNorm.forward({ x: x.tensor, scale: scale.tensor, shift: shift.tensor });
      const rms = rmsNorm.forward({ x: x.tensor, weight: weight.tensor });
      const weightGradient = rmsNorm.backward(rms.saved, { output: x.tensor }).weight;
      return { output: modulated.output, ...layerNorm.backward(modulated.saved, { output: x.tensor }), weightGradient };
    });
    bits.push(await bitsOfAll(results));
    dispose(results);
  }
  setCpuThreads(before);
  expect(Object.keys(bits[0]!).sort()).toEqual(['output', 'scale', 'shift', 'weightGradient', 'x']);
  expect(bits[1]).toEqual(bits[0]);
  expect(bits[2]).toEqual(bits[0]);
  dispose({ x: x.tensor, scale: scale.tensor, shift: shift.tensor, weight: weight.tensor });
});

test.each([[[0, 3]], [[2, 0, 3]], [[3, 0]], [[0]], [[0, 2, 5]]])('empty %j', async (shape) => {
  const C = shape.at(-1)!;
  const modulated = shape.length > 1;
  const [gain, shift] = [fresh.zeros(modulated ? [shape[0]!, C] : [C]), fresh.zeros(modulated ? [shape[0]!, C] : [C])];
  const x = fresh.zeros(shape);
  const results = tidy(() => {
    const options = modulated ? { x, scale: gain, shift } : { x, weight: gain, bias: shift };
    const layer = layerNorm.forward(options);
    const rms = rmsNorm.forward({ x });
    const grads = layerNorm.backward(layer.saved, { output: x });
    return { ...grads, output: layer.output, rms: rms.output, rmsX: rmsNorm.backward(rms.saved, { output: x }).x };
  });
  for (const tensor of [results.x!, results.output, results.rms, results.rmsX!]) expect(tensor.shape).toEqual(shape);
  // A sum of no rows is 0.
  for (const tensor of [results.scale, results.shift, results.weight, results.bias]) {
    if (tensor !== undefined) expect(await tensor.toFloat32()).toEqual(new Float32Array(tensor.size));
  }
  dispose({ ...results, ...{ input: x, gain, given: shift } });
});

test('constant rows: the deviation is 0, and eps keeps it from dividing by that', async () => {
  const x = fresh.full([2, 33], 7);
  const results = tidy(() => {
    const forward = layerNorm.forward({ x });
    return { output: forward.output, ...layerNorm.backward(forward.saved, { output: x }) };
  });
  for (const tensor of Object.values(results)) expect(new Set(await tensor.toFloat32())).toEqual(new Set([0]));
  dispose({ ...results, input: x });
});

test('a backward gives what is wanted', () => {
  const x = fresh.full([2, 3, 4], 1);
  const [scale, shift, weight] = [fresh.zeros([2, 4]), fresh.zeros([2, 4]), fresh.zeros([4])];
  tidy(() => {
    const modulated = layerNorm.forward({ x, scale, shift });
    const rms = rmsNorm.forward({ x, weight });
    for (const wanted of [[], ['x'], ['scale'], ['shift', 'x']]) {
      const grads = layerNorm.backward(modulated.saved, { output: x }, new Set(wanted));
      expect(Object.keys(grads).sort()).toEqual([...wanted].sort());
    }
    for (const wanted of [[], ['x'], ['weight']]) {
      expect(Object.keys(rmsNorm.backward(rms.saved, { output: x }, new Set(wanted)))).toEqual(wanted);
    }
  });
  dispose({ x, scale, shift, weight });
});

test('as functions, with gradients in leaves', async () => {
  const made = { x: fresh.randn([2, 3, 8]), scale: fresh.randn([2, 8]), weight: fresh.randn([8], { seed: 4 }) };
  for (const leaf of Object.values(made)) leaf.requiresGrad = true;
  const { x, scale, weight } = made;
  const gradient = fresh.randn([2, 3, 8], { seed: 5 });
  tidy(() => functional.rmsNorm({ x: functional.layerNorm({ x, scale }), weight }).backward(gradient));
  const expected = tidy(() => {
    const layer = layerNorm.forward({ x, scale });
    const rms = rmsNorm.forward({ x: layer.output, weight });
    const outer = rmsNorm.backward(rms.saved, { output: gradient });
    return { ...layerNorm.backward(layer.saved, { output: outer.x! }), weight: outer.weight };
  });
  expect(await bitsOfAll({ x: x.grad, scale: scale.grad, weight: weight.grad })).toEqual(await bitsOfAll(expected));
  dispose({ ...made, gradient });
  dispose(expected);
});

describe('bad input', () => {
  const shape = [2, 3, 4];
  const rank0 = () => fresh.zeros([]);
  const common = (x: Tensor): Misuse[] => [
    ...notTensors('x', x),
    ['rank 0', { x: rank0() }, 'ERR_SHAPE', 'x', 'rank'],
    ['eps below 0', { eps: -1 }, 'ERR_ARGUMENT', 'eps'],
    ['eps beyond float32', { eps: 1e39 }, 'ERR_ARGUMENT', 'eps'],
    ['eps NaN', { eps: NaN }, 'ERR_ARGUMENT', 'eps'],
    ['eps a text', { eps: '1e-6' }, 'ERR_ARGUMENT', 'eps'],
    ['an unknown option', { epsilon: 1 }, 'ERR_ARGUMENT', 'options', 'epsilon'],
  ];
  const parameter = (name: string, right: number[]): Misuse[] => {
    const example = fresh.zeros(right);
    const misuses: Misuse[] = [
      ...notTensors(name, example, { optional: true }),
      [`${name} of 16 bits`, { [name]: fresh.zeros(right, { dtype: 'bfloat16' }) }, 'ERR_DTYPE', name, 'float32'],
      [`${name} too long`, { [name]: fresh.zeros([...right.slice(0, -1), 5]) }, 'ERR_SHAPE', name],
      [`${name} of another rank`, { [name]: fresh.zeros([1, ...right]) }, 'ERR_SHAPE', name],
      away(name, example),
    ];
    example.dispose();
    return misuses;
  };

  test('layerNorm', () => {
    const x = fresh.zeros(shape);
    const valid = () => ({ x: fresh.zeros(shape), weight: fresh.zeros([4]), bias: fresh.zeros([4]) });
    expectMisuses(layerNorm, valid, [
      ...common(x),
      ...parameter('weight', [4]),
      ...parameter('bias', [4]),
      ['a modulation beside weights', { scale: fresh.zeros([2, 4]) }, 'ERR_ARGUMENT', 'weight', 'not both'],
    ]);
    const modulated = () => ({ x: fresh.zeros(shape), scale: fresh.zeros([2, 4]), shift: fresh.zeros([2, 4]) });
    expectMisuses(layerNorm, modulated, [
      ...parameter('scale', [2, 4]),
      ...parameter('shift', [2, 4]),
      ['weights beside a modulation', { bias: fresh.zeros([4]) }, 'ERR_ARGUMENT', 'bias', 'not both'],
      ['x without a batch', { x: fresh.zeros([4]) }, 'ERR_SHAPE', 'x', '[B, ..., C]'],
    ]);
    x.dispose();
  });

  test('rmsNorm', () => {
    const x = fresh.zeros(shape);
    expectMisuses(rmsNorm, () => ({ x: fresh.zeros(shape), weight: fresh.zeros([4]) }), [
      ...common(x),
      ...parameter('weight', [4]),
      ['no shift', { bias: 1 }, 'ERR_ARGUMENT', 'options', 'bias'],
    ]);
    x.dispose();
  });

  test.each([layerNorm, rmsNorm])('backward', (pair) => {
    const x = fresh.zeros(shape, { dtype: 'bfloat16' });
    const { output, saved } = pair.forward({ x });
    const other = (pair === layerNorm ? rmsNorm : layerNorm).forward({ x });
    expect(() => pair.backward(other.saved as never, { output })).toThrow(
      /wanted what (layer|rms)Norm.forward returned/,
    );
    expectBackwardMisuses(pair, saved, output);
    dispose({ x, output });
    dispose(other);
  });
});
