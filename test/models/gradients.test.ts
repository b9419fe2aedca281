import { cpuThreads, setCpuThreads, type Tensor, tidy } from '../../lib/index.js';
import type { VideoDiT, VideoDiTInputs } from '../../lib/models/video-dit.js';
import { parameterSeed } from '../../lib/nn/initialization.js';
import { leaveNothingBehind } from '../tensor/support.js';
import { fresh } from '../under-test.js';
import { bitsOf, gradientsOf, inputsOf, KINDS, numbersOf, tinyModel } from './support.js';

leaveNothingBehind();

const threads = cpuThreads();
afterEach(() => {
  setCpuThreads(threads);
});

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};

/** Runs a backward from a random gradient of the output, and gives that. */
function backward(model: VideoDiT, inputs: VideoDiTInputs): Tensor {
  for (const tensor of model.parameters().values()) tensor.zeroGrad();
  const output = model.forward(inputs);
  const direction = fresh.randn(output.shape, { seed: 77, dtype: output.dtype });
  output.backward(direction);
  return direction;
}

// The others are judged by the float64 oracle alone (oracle.test.ts).
const SLOPES = ['full attention', 'VSA with both gates and a context'];

test.each(SLOPES)('%s: every gradient is the slope of the model along a random direction', (kind) => {
  tidy(() => {
    const model = tinyModel(KINDS[kind]);
    const inputs = inputsOf(model);
    const { x, context } = inputs;
    const leaves = model.parameters().set('x', x);
    if (context !== undefined) leaves.set('context', context);
    for (const leaf of leaves.values()) leaf.requiresGrad = true;
    const weights = numbersOf(backward(model, inputs));
    let selected: string[] = [];
    const value = () =>
      tidy(() => {
        selected = [];
        const observe = ({ lists }: { lists: { indices: Tensor | undefined } }) =>
          selected.push(String(lists.indices?.dataSync()));
        return dot(weights, numbersOf(model.forward({ ...inputs, observe })));
      });
    value();
    const before = selected;
    const wrong: object[] = [];
    for (const [name, leaf] of leaves) {
      const gradient = numbersOf(leaf.grad!);
      const values = numbersOf(leaf);
      const size = Math.sqrt(dot(gradient, gradient));
      const direction = numbersOf(fresh.randn(leaf.shape, { seed: parameterSeed(1, name) }));
      const step = 8e-3 / Math.sqrt(leaf.shape[1] ?? 1);
      const [above, below] = [step, -step].map((by) => {
        leaf.copyFrom(values.map((x, i) => x + by * direction[i]!));
        const found = value();
        // The slope is that of a fixed choice of tiles.
        expect(selected).toEqual(before);
        return found;
      });
      const slope = (above! - below!) / (2 * step);
      const wanted = dot(gradient, direction);
      // A gradient that is wrong by a share of its size is off by about that share of its size here.
      if (!(Math.abs(slope - wanted) <= 0.02 * size)) wrong.push({ name, slope, wanted, size });
      leaf.copyFrom(values);
    }
    expect(wrong).toEqual([]);
  });
});

const ALL = Object.entries(KINDS);

test.each(ALL)('%s: checkpointing, another run and other threads give the same bits', (_, options) => {
  tidy(() => {
    const runs = [];
    for (const [checkpointing, count] of [
      [false, threads],
      [true, threads],
      [false, 1],
    ] as const) {
      setCpuThreads(count);
      const model = tinyModel({ ...options, checkpointing });
      const inputs = inputsOf(model, { batch: 2 });
      inputs.x.requiresGrad = true;
      if (inputs.context !== undefined) inputs.context.requiresGrad = true;
      backward(model, inputs);
      const gradients = gradientsOf(model).set('x', inputs.x.grad!);
      if (inputs.context !== undefined) gradients.set('context', inputs.context.grad!);
      runs.push(bitsOf(gradients));
    }
    const [first, ...others] = runs;
    for (const other of others) expect(other).toEqual(first);
  });
});

test('without recording, the output has the same bits and no history', () => {
  tidy(() => {
    const model = tinyModel(KINDS['VSA with both gates and a context']);
    const inputs = inputsOf(model);
    const recorded = model.forward(inputs);
    for (const tensor of model.parameters().values()) tensor.requiresGrad = false;
    const output = model.forward(inputs);
    expect([recorded.requiresGrad, output.requiresGrad]).toEqual([true, false]);
    expect(numbersOf(output)).toEqual(numbersOf(recorded));
  });
});
