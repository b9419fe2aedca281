import { cpuThreads, device, type Order, setCpuThreads, tidy } from '../../lib/index.js';
import { everything as tensorsOfEverything, type Inputs, makeInputs, OPERATIONS } from './every-operation.js';
import { bitsOfAll, useGuardedMemory } from './support.js';

let inputs: Inputs;
afterEach(() => {
  for (const tensor of Object.values(inputs)) tensor.dispose();
});
useGuardedMemory();

const DTYPES = ['float32', 'bfloat16'] as const;

/** The bits of everything that every operation computes, by operation and name, tokens in grid order. */
async function everything(inputs: Inputs, order: Order): Promise<Record<string, string>> {
  const results = tensorsOfEverything(inputs, order);
  const bits = await bitsOfAll(results);
  for (const tensor of Object.values(results)) tensor.dispose();
  return bits;
}

describe.each(DTYPES)('%s', (dtype) => {
  beforeEach(() => {
    inputs = makeInputs(dtype);
  });

  test('on the CPU the same bits with 1, 2, 3 and 7 threads', async () => {
    const before = cpuThreads();
    const onCpu = makeInputs(dtype, device('cpu'));
    try {
      const bits: Record<string, string>[] = [];
      for (const threads of [1, 2, 3, 7]) {
        setCpuThreads(threads);
        expect(cpuThreads()).toBe(threads);
        bits.push(await everything(onCpu, 'tiled'));
      }
      expect(Object.keys(bits[0]!).length).toBeGreaterThan(30);
      for (const others of bits.slice(1)) expect(others).toEqual(bits[0]);
    } finally {
      setCpuThreads(before);
      for (const tensor of Object.values(onCpu)) tensor.dispose();
    }
  });

  test('the same bits again, and in the other order', async () => {
    const bits = await everything(inputs, 'grid');
    expect(await everything(inputs, 'grid')).toEqual(bits);
    expect(await everything(inputs, 'tiled')).toEqual(bits);
  });

  test('inputs are not modified', async () => {
    const before = await bitsOfAll(inputs);
    await everything(inputs, 'grid');
    expect(await bitsOfAll(inputs)).toEqual(before);
  });
});

describe('saved state', () => {
  beforeEach(() => {
    inputs = makeInputs('float16');
  });

  test.each(OPERATIONS)('of $name: backward twice gives the same bits', async (operation) => {
    const { first, second } = tidy(() => {
      const { saved } = operation.forward(inputs, 'grid');
      return { first: operation.backward(saved, inputs), second: operation.backward(saved, inputs) };
    });
    expect(await bitsOfAll(second)).toEqual(await bitsOfAll(first));
    for (const tensor of Object.values({ ...first })) tensor.dispose();
    for (const tensor of Object.values({ ...second })) tensor.dispose();
  });

  test.each(OPERATIONS)('of $name outlives its inputs and outputs', async (operation) => {
    const wanted = tidy(() => operation.backward(operation.forward(inputs, 'grid').saved, inputs));
    const copies = Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, tensor.clone()]));
    const { saved } = tidy(() => {
      const { outputs, saved: kept } = operation.forward(copies as Inputs, 'grid');
      for (const name of ['output']) outputs[name]!.dispose();
      return { saved: kept };
    });
    for (const tensor of Object.values(copies)) tensor.dispose();
    // Memory that was free would be taken, and filled, by this.
    const other = makeInputs('float32');
    const grads = tidy(() => operation.backward(saved, inputs));
    expect(await bitsOfAll(grads)).toEqual(await bitsOfAll(wanted));
    saved.dispose();
    for (const tensors of [wanted, grads, other]) for (const tensor of Object.values(tensors)) tensor.dispose();
  });
});
