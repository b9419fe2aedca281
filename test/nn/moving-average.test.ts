import '../../lib/autograd/index.js';
import { type Tensor, tidy } from '../../lib/index.js';
import { MovingAverage } from '../../lib/nn/optim/index.js';
import { disposed, expectError, NO_TENSORS } from '../attention/misuse.js';
import { bitsOf, useGuardedMemory } from '../attention/support.js';
import { here } from '../under-test.js';
import { disposeWhatIsOwned, expectClose, expectExact, given, own, random } from './numbers.js';

disposeWhatIsOwned();
useGuardedMemory();

const SHAPES = [[3, 17], [], [1], [16_390], [0, 2]];
const make = (parameters: ConstructorParameters<typeof MovingAverage>[0], decay: number) =>
  own(new MovingAverage(parameters, { decay }));
const named = (tensors: Tensor[]) => new Map(tensors.map((tensor, i) => [`p${String(i)}`, tensor]));

test('follows the values as float64 does, within a few float32 ulps', async () => {
  const parameters = SHAPES.map((shape, i) => random(shape, 'float32', i + 1));
  const average = make(named(parameters.map(({ tensor }) => tensor)), 0.9);
  const wanted = parameters.map(({ values }) => values.slice());
  for (const [i, { tensor }] of [...average.averages.values()].map((tensor, i) => [i, { tensor }] as const)) {
    await expectExact(tensor, wanted[i]!); // at first the values themselves
  }
  for (let step = 0; step < 20; step++) {
    const decay = step === 3 ? 0.5 : 0.9;
    for (const [i, { tensor, shape }] of parameters.entries()) {
      const next = random(shape, 'float32', 100 * step + i);
      tensor.copyFrom(next.tensor);
      wanted[i] = wanted[i]!.map((before, j) => before + (1 - decay) * (next.values[j]! - before));
      next.tensor.dispose();
    }
    average.update(step === 3 ? { decay } : {});
  }
  for (const [i, tensor] of [...average.averages.values()].entries()) {
    await expectClose(tensor, wanted[i]!, 'float32', { steps: 4, least: 5e-7 });
  }
  expect([...average.averages.keys()]).toEqual(['p0', 'p1', 'p2', 'p3', 'p4']);
});

test('a decay of 0 is the values, of 1 their beginning', async () => {
  const { tensor } = given([1, 2], [2]);
  const [last, first] = [make([tensor], 0), make([tensor], 1)];
  tensor.copyFrom(Float32Array.of(5, 7));
  for (const average of [last, first]) average.update();
  await expectExact(last.averages.get('0'), Float64Array.of(5, 7));
  await expectExact(first.averages.get('0'), Float64Array.of(1, 2));
});

test('is no part of the graph of parameters that want gradients', () => {
  const { tensor } = given([1, 2], [2]);
  tensor.requiresGrad = true;
  const average = make([tensor], 0.5);
  average.update();
  const [value] = average.averages.values();
  expect(value!.requiresGrad).toBe(false);
  for (const held of average.state().values()) expect(own(held).requiresGrad).toBe(false);
});

test('an update can be recorded and replayed', async () => {
  const { tensor } = given([0], [1]);
  const average = make([tensor], 0.5);
  const graph = own(here.graph(() => average.update()));
  tensor.copyFrom(Float32Array.of(8));
  graph.replay();
  graph.replay();
  await expectExact(average.averages.get('0'), Float64Array.of(6));
});

test('state() and loadState() go on bit for bit', async () => {
  const { tensor } = random([33], 'float32', 1);
  const average = make(new Map([['w', tensor]]), 0.97);
  tensor.copyFrom(random([33], 'float32', 2).tensor);
  average.update();
  const state = new Map([...average.state()].map(([name, held]) => [name, own(own(held).clone())]));
  expect([...state.keys()]).toEqual(['w']);
  average.update();
  const resumed = make(new Map([['w', tensor]]), 0.97);
  resumed.loadState(state);
  resumed.update();
  expect(await bitsOf(resumed.averages.get('w')!)).toBe(await bitsOf(average.averages.get('w')!));
});

test('memory: kept through tidy, given back by dispose', () => {
  const { tensor } = given([1], [1]);
  const average = tidy(() => ({ average: new MovingAverage([tensor], { decay: 0.5 }) })).average;
  tidy(() => {
    average.update();
  });
  average.dispose();
  expect(average.disposed).toBe(true);
  for (const call of [() => average.update(), () => average.state(), () => average.loadState(new Map())]) {
    expectError(call, 'ERR_DISPOSED', 'this', 'a disposed MovingAverage');
  }
});

test('wrong calls', async () => {
  const { tensor: a } = given([1, 2], [2]);
  const create = (parameters: unknown, options: object = { decay: 0.5 }) => {
    return () => new MovingAverage(parameters as Tensor[], options as { decay: number });
  };
  const [gone, half] = [own(disposed(a)), given([1], [1], 'bfloat16').tensor];
  expectError(create([]), 'ERR_ARGUMENT', 'parameters', 'at least one');
  for (const value of NO_TENSORS) expectError(create([value]), 'ERR_ARGUMENT', 'parameters.0', 'a Tensor');
  expectError(create([gone]), 'ERR_DISPOSED', 'parameters.0');
  expectError(create([half]), 'ERR_DTYPE', 'parameters.0');
  for (const decay of [-0.1, 1.1, NaN, '1', undefined]) expectError(create([a], { decay }), 'ERR_ARGUMENT', 'decay');
  expectError(create([a], { decay: 0.5, every: 2 }), 'ERR_ARGUMENT', 'options', "'every'");
  const average = make(new Map([['a', a]]), 0.5);
  expectError(() => average.update({ decay: 2 }), 'ERR_ARGUMENT', 'decay');
  for (const state of [undefined, {}]) expectError(() => average.loadState(state as never), 'ERR_ARGUMENT', 'state');
  const [short, unknown] = [new Map([['a', half]]), new Map([['b', a]])];
  expectError(() => average.loadState(short), 'ERR_DTYPE', 'state.a');
  expectError(() => average.loadState(unknown), 'ERR_ARGUMENT', 'state', "'b'");
  expectError(() => average.loadState(new Map()), 'ERR_ARGUMENT', 'state.a', 'a Tensor');
  await expectExact(average.averages.get('a'), Float64Array.of(1, 2));
  a.dispose();
  expectError(() => average.update(), 'ERR_DISPOSED', 'parameters.a');
});
