import { TileGrid } from '../../lib/attention/grid.js';
import { videoSparseAttention } from '../../lib/attention/vsa.js';
import { cpuThreads, setCpuThreads } from '../../lib/device/device.js';
import { tidy } from '../../lib/tensor/scope.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import { runProgram } from '../binding/node.js';

/** Threads are the CPU's. */
const onCpu = { device: 'cpu' } as const;

const threads = cpuThreads();
afterEach(() => setCpuThreads(threads));

test('set and get, at once', () => {
  for (const count of [1, 2, 5, 1024]) {
    setCpuThreads(count);
    expect(cpuThreads()).toBe(count);
  }
});

describe('VSA_NUM_THREADS', () => {
  const counted = (value: string): Promise<unknown> =>
    runProgram('report(vsa.cpuThreads());', { ...onCpu, env: { VSA_NUM_THREADS: value } });

  test.each(['1', '3', '1024'])('%s is taken', async (value) => {
    expect(await counted(value)).toBe(Number(value));
  });

  // The CPUs that the process may run on, as without the variable. taskset limits them to one.
  test('what is no count is not: as many as there are CPUs to run on', async () => {
    const values = ['', '0', '-2', '2x', '1.5', '1025', '99999999999999999999'];
    const counts = await Promise.all(values.map(counted));
    expect(counts).toEqual(values.map(() => counts[0]));
    expect(counts[0]).toBeGreaterThanOrEqual(1);
    const one = await runProgram('report(vsa.cpuThreads());', {
      ...onCpu,
      env: { VSA_NUM_THREADS: '' },
      prefix: ['taskset', '--cpu-list', String(await firstCpu())],
    });
    expect(one).toBe(1);
  });

  test('setCpuThreads wins over it', async () => {
    const body = 'vsa.setCpuThreads(2); report([vsa.cpuThreads(), vsa.Tensor.randbits([9]).dataSync().length]);';
    expect(await runProgram(body, { ...onCpu, env: { VSA_NUM_THREADS: '7' } })).toEqual([2, 9]);
  });
});

/** A CPU this process may run on. */
async function firstCpu(): Promise<number> {
  const status = await runProgram("report(require('node:fs').readFileSync('/proc/self/status', 'utf8'));");
  return Number(/Cpus_allowed_list:\s*(\d+)/.exec(status as string)![1]);
}

test('results are the same bits with any number of threads', async () => {
  const grid = new TileGrid({ tokens: [5, 9, 10], prefix: 70 });
  const everything = (): Tensor[] =>
    tidy(() => {
      const shape = [2, grid.length, 4, 64];
      const [q, k, v, gate, dOutput] = [1, 2, 3, 4, 5].map((seed) => Tensor.randn(shape, { seed, ...onCpu }));
      const options = { q: q!, k: k!, v: v!, grid, topK: 5, coarse: { gate: gate! }, prefix: 'compete' } as const;
      const { output, saved } = videoSparseAttention.forward(options);
      const grads = videoSparseAttention.backward(saved, { output: dOutput! });
      return [
        ...[output, saved.lse, ...Object.values(grads as unknown as Record<string, Tensor>)],
        ...[
          Tensor.randbits([50_001], { seed: 8, ...onCpu }),
          output.cast('bfloat16'),
          Tensor.full([50_001], 0.3, onCpu).cast('float16'),
        ],
      ];
    });
  const read = async (count: number) => {
    setCpuThreads(count);
    const tensors = everything();
    const values = await Promise.all(tensors.map((tensor) => tensor.data()));
    tensors.forEach((tensor) => tensor.dispose());
    return values.map((value) => Buffer.from(value.buffer));
  };
  const wanted = await read(1);
  expect(wanted.length).toBe(9);
  for (const count of [2, 3, 7, 16]) {
    const got = await read(count);
    expect(got.map((bytes, i) => bytes.equals(wanted[i]!))).toEqual(wanted.map(() => true));
  }
});

test('the count may change while operations run', async () => {
  using wanted = Tensor.randn([200_000], { seed: 6, ...onCpu });
  const tensors = Array.from({ length: 30 }, (_, i) => {
    setCpuThreads(1 + (i % 5));
    return Tensor.randn([200_000], { seed: 6, ...onCpu });
  });
  const expected = Buffer.from((await wanted.data()).buffer);
  for (const tensor of tensors) {
    expect(expected.equals(Buffer.from((await tensor.data()).buffer))).toBe(true);
    tensor.dispose();
  }
});
