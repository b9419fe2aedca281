import { cpuThreads, setCpuThreads, tidy } from '../../lib/index.js';
import * as functional from '../../lib/nn/functional.js';
import { gatedResidual } from '../../lib/nn/ops/residual.js';
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

function reference(shape: readonly number[], { x, branch, gate }: Values): Float64Array {
  const [batch, width] = [shape[0]!, shape.at(-1)!];
  const rowsOfBatch = count(shape) / width / batch;
  return x!.map((value, i) => {
    const entry = Math.floor(i / width / rowsOfBatch);
    return value + branch![i]! * gate![entry * width + (i % width)]!;
  });
}

const SHAPES = [
  [3, 5],
  [2, 37, 3],
  [1, 1, 1],
  [3, 2, 2, 17],
];

describe.each(FORMATS)('%s', (format) => {
  test.each(SHAPES.map((shape) => [shape]))('%j and its gradients', async (shape) => {
    const [x, branch] = [operand(shape, 1, format), operand(shape, 2, format)];
    const gate = operand([shape[0]!, shape.at(-1)!], 3);
    const gradient = operand(shape, 4, format);
    const values = { x: x.values, branch: branch.values, gate: gate.values };
    const options = { x: x.tensor, branch: branch.tensor, gate: gate.tensor };
    const { output, grads } = tidy(() => {
      const forward = gatedResidual.forward(options);
      dispose(options);
      return { output: forward.output, grads: gatedResidual.backward(forward.saved, { output: gradient.tensor }) };
    });
    await expectClose(output, reference(shape, values), 'output');
    await expectGradients({ ...grads }, (inputs) => reference(shape, inputs), values, gradient.values);
    dispose({ output, gradient: gradient.tensor });
  });
});

test('the same bits whatever the number of threads', async () => {
  const before = cpuThreads();
  const [x, branch] = [operand([2, 1201, 33], 1, 'bfloat16'), operand([2, 1201, 33], 2, 'bfloat16')];
  const gate = operand([2, 33], 3);
  const bits = [];
  for (const threads of [1, 2, 5]) {
    setCpuThreads(threads);
    const results = tidy(() => {
      const { output, saved } = gatedResidual.forward({ x: x.tensor, branch: branch.tensor, gate: gate.tensor });
      return { output, ...gatedResidual.backward(saved, { output: x.tensor }) };
    });
    bits.push(await bitsOfAll(results));
    dispose(results);
  }
  setCpuThreads(before);
  expect(bits[1]).toEqual(bits[0]);
  expect(bits[2]).toEqual(bits[0]);
  dispose({ x: x.tensor, branch: branch.tensor, gate: gate.tensor });
});

test.each([[[2, 0, 3]], [[0, 3]], [[0, 2, 3]], [[3, 0]]])('empty %j', async (shape) => {
  const [x, gate] = [fresh.zeros(shape), fresh.zeros([shape[0]!, shape.at(-1)!])];
  const results = tidy(() => {
    const { output, saved } = gatedResidual.forward({ x, branch: x, gate });
    return { output, ...gatedResidual.backward(saved, { output }) };
  });
  expect([results.output.shape, results.x!.shape, results.branch!.shape]).toEqual([shape, shape, shape]);
  expect(await results.gate!.toFloat32()).toEqual(new Float32Array(gate.size));
  dispose({ input: x, given: gate });
  dispose(results);
});

test('a backward gives what is wanted', () => {
  const [x, gate] = [fresh.full([2, 3], 1), fresh.zeros([2, 3])];
  tidy(() => {
    const { output, saved } = gatedResidual.forward({ x, branch: x, gate });
    for (const wanted of [[], ['x'], ['branch'], ['gate'], ['x', 'gate']]) {
      const grads = gatedResidual.backward(saved, { output }, new Set(wanted));
      expect(Object.keys(grads)).toEqual(wanted);
    }
  });
  dispose({ x, gate });
});

test('as a function', async () => {
  const leaves = { x: fresh.randn([2, 3]), branch: fresh.randn([2, 3], { seed: 1 }), gate: fresh.randn([2, 3]) };
  for (const leaf of Object.values(leaves)) leaf.requiresGrad = true;
  const gradient = fresh.randn([2, 3], { seed: 2 });
  const output = functional.gatedResidual(leaves);
  output.backward(gradient);
  const expected = tidy(() => {
    const forward = gatedResidual.forward(leaves);
    return { output: forward.output, ...gatedResidual.backward(forward.saved, { output: gradient }) };
  });
  const { x, branch, gate } = leaves;
  const got = { output, x: x.grad, branch: branch.grad, gate: gate.grad };
  expect(await bitsOfAll(got)).toEqual(await bitsOfAll(expected));
  dispose(expected);
  dispose({ ...leaves, gradient, output });
});

test('bad input', () => {
  const shape = [2, 3, 4];
  const [x, gate] = [fresh.zeros(shape), fresh.zeros([2, 4])];
  const valid = () => ({ x: fresh.zeros(shape), branch: fresh.zeros(shape), gate: fresh.zeros([2, 4]) });
  expectMisuses(gatedResidual, valid, [
    ...notTensors('x', x),
    ...notTensors('branch', x),
    ...notTensors('gate', gate),
    ['x without a batch', { x: fresh.zeros([4]) }, 'ERR_SHAPE', 'x', '[B, ..., C]'],
    ['branch of another shape', { branch: fresh.zeros([2, 4, 3]) }, 'ERR_SHAPE', 'branch', 'as x has'],
    ['branch of another dtype', { branch: fresh.zeros(shape, { dtype: 'float16' }) }, 'ERR_DTYPE', 'branch'],
    ['gate of 16 bits', { gate: fresh.zeros([2, 4], { dtype: 'float16' }) }, 'ERR_DTYPE', 'gate'],
    ['gate of every row', { gate: fresh.zeros(shape) }, 'ERR_SHAPE', 'gate', '[B, C]'],
    away('branch', x),
    away('gate', gate),
    ['an unknown option', { scale: 1 }, 'ERR_ARGUMENT', 'options', "'scale'"],
  ]);
  const { output, saved } = gatedResidual.forward({ x, branch: x, gate });
  expectBackwardMisuses(gatedResidual, saved, output);
  dispose({ x, gate, output });
});
