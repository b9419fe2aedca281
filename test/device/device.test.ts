import { cpus } from 'node:os';
import { native } from '../../lib/binding.js';
import { cudaProblem, cudaStatus, Device, device } from '../../lib/device/device.js';
import { type ErrorCode, VsaError, VsaTypeError } from '../../lib/errors.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import { TileLists } from '../../lib/attention/lists.js';
import { fresh, here } from '../under-test.js';

/** The error of a call. */
function thrown(call: () => unknown): { code: ErrorCode; argument?: string; message: string; wanted?: string } {
  try {
    call();
  } catch (error) {
    return error as VsaError & { wanted: string; argument: string };
  }
  throw new Error('a failure was expected');
}

test('the CPU: one object, by its name and by itself', () => {
  const cpu = device('cpu');
  expect(cpu).toBeInstanceOf(Device);
  expect(device(cpu)).toBe(cpu);
  expect([cpu.type, cpu.index, cpu.toString(), String(cpu)]).toEqual(['cpu', 0, 'cpu', 'cpu']);
  expect(cpu.name).toBe(cpus()[0]?.model.trim() ?? process.arch);
});

test('the best there is: the first GPU that can be used, else the CPU', () => {
  const gpu = cudaStatus().devices.find((one) => one.hasCode);
  expect(device().toString()).toBe(gpu === undefined ? 'cpu' : `cuda:${gpu.index}`);
  expect(device(undefined)).toBe(device());
});

test('the device under test is one object by every name', () => {
  expect(device(here)).toBe(here);
  expect(device(here.toString() as 'cpu')).toBe(here);
  if (here.index === 0) expect(device(here.type)).toBe(here);
});

test('tensors and lists know their device', () => {
  using x = Tensor.zeros([1], { device: 'cpu' });
  using y = Tensor.randn([1], { device: here });
  using lists = TileLists.from([[0]], { batch: 1, heads: 1, queryTiles: 1, keyTiles: 1 }, { device: here });
  expect(x.device).toBe(device('cpu'));
  expect([y.device, lists.device, lists.offsets!.device].every((one) => one === here)).toBe(true);
});

test('synchronize resolves to nothing, also where nothing is queued', async () => {
  expect(await Promise.all([here.synchronize(), here.synchronize()])).toEqual([undefined, undefined]);
});

test('memory: free of total, and what is held grows with tensors', async () => {
  const before = here.memory();
  expect(before.totalBytes).toBeGreaterThan(2 ** 28);
  expect(before.freeBytes).toBeGreaterThan(0);
  expect(before.freeBytes).toBeLessThanOrEqual(before.totalBytes);
  using x = fresh.zeros([2 ** 24]);
  expect(here.memory().heldBytes).toBeGreaterThanOrEqual(x.byteLength);
  await here.synchronize();
  expect(Object.keys(before).sort()).toEqual(['freeBytes', 'heldBytes', 'peakBytes', 'totalBytes', 'usedBytes']);
});

test('memory: the peak stays when tensors go, until it is reset', async () => {
  await here.synchronize();
  here.resetPeakMemory();
  const { usedBytes } = here.memory();
  const kept = fresh.zeros([2 ** 20]);
  fresh.zeros([2 ** 22]).dispose();
  await here.synchronize();
  const after = here.memory();
  expect(after.usedBytes - usedBytes).toBe(kept.byteLength);
  expect(after.peakBytes - usedBytes).toBeGreaterThanOrEqual(2 ** 24 + kept.byteLength);
  expect(after.peakBytes - usedBytes).toBeLessThan(2 ** 24 + kept.byteLength + 2 ** 16);
  here.resetPeakMemory();
  expect(here.memory()).toMatchObject({ usedBytes: after.usedBytes, peakBytes: after.usedBytes });
  kept.dispose();
  await here.synchronize();
  expect(here.memory()).toMatchObject({ usedBytes, peakBytes: after.usedBytes });
});

test('the status is whole: a problem or devices', () => {
  const status = native().cudaStatus();
  expect(status.problem === '').toBe(status.devices.length > 0);
  expect(native().build().cuda === null).toBe(native().build().cudaArchitectures === null);
});

test.each((['cuda', 'cuda:0', 'cuda:12', 'cuda:999'] as const).filter((name) => cudaProblem(+name.slice(5)) !== ''))(
  'a GPU that is not there: %s is an error that gives the reason',
  (name) => {
    const error = thrown(() => device(name));
    expect(error).toBeInstanceOf(VsaError);
    expect(error).toMatchObject({ code: 'ERR_DEVICE', argument: 'device', got: `'${name}'` });
    expect(error.wanted).toBe(`'cpu', or a GPU that can be used: ${cudaProblem(+name.slice(5))}`);
    expect(error.message).toBe(`device: got '${name}', wanted ${error.wanted!}`);
  },
);

test.each<[unknown, string]>([
  ['gpu', "'gpu'"],
  ['CPU', "'CPU'"],
  ['cpu:0', "'cpu:0'"],
  ['cuda:', "'cuda:'"],
  ['cuda:-1', "'cuda:-1'"],
  ['cuda:1.5', "'cuda:1.5'"],
  ['cuda:99999', "'cuda:99999'"],
  ['', "''"],
  [null, 'null'],
  [0, '0'],
  [{}, 'an object'],
  [{ type: 'cpu', index: 0, name: 'mine' }, 'an object'],
  [Object.create(Device.prototype), 'a Device'],
])('%p is no device', (name, got) => {
  const error = thrown(() => device(name as never));
  expect(error).toBeInstanceOf(VsaTypeError);
  expect(error).toMatchObject({ code: 'ERR_DEVICE', argument: 'device', got });
  expect(error.wanted).toBe("'cpu', 'cuda', 'cuda:N' or a Device that device() gave");
});

describe('memory of other owners', () => {
  const memory = { ptr: 4096n, byteLength: 64, device: 'cpu' } as const;
  const borrow = (change: object, shape: unknown = [4], options: unknown = {}) =>
    thrown(() => Tensor.borrow({ ...memory, ...change }, shape as never, options as never));

  test('only of a GPU: on the CPU neither borrow nor pointer', () => {
    expect(borrow({})).toMatchObject({ code: 'ERR_DEVICE', argument: 'memory.device', got: "'cpu'", wanted: 'a GPU' });
    using x = Tensor.zeros([1], { device: 'cpu' });
    expect(thrown(() => x.pointer)).toMatchObject({ code: 'ERR_DEVICE', argument: 'this', wanted: 'one on a GPU' });
    x.dispose();
    expect(thrown(() => x.pointer)).toMatchObject({ code: 'ERR_DISPOSED', argument: 'this' });
  });

  test.each<[string, object, ErrorCode, string]>([
    ['an address of 0', { ptr: 0n }, 'ERR_ARGUMENT', 'memory.ptr'],
    ['a negative address', { ptr: -16n }, 'ERR_ARGUMENT', 'memory.ptr'],
    ['an address beyond 64 bits', { ptr: 1n << 64n }, 'ERR_ARGUMENT', 'memory.ptr'],
    ['an address that is not aligned', { ptr: 4104n }, 'ERR_ARGUMENT', 'memory.ptr'],
    ['a number as address', { ptr: 4096 }, 'ERR_ARGUMENT', 'memory.ptr'],
    ['no address', { ptr: undefined }, 'ERR_ARGUMENT', 'memory.ptr'],
    ['a negative length', { byteLength: -1 }, 'ERR_ARGUMENT', 'memory.byteLength'],
    ['a length with a fraction', { byteLength: 15.5 }, 'ERR_ARGUMENT', 'memory.byteLength'],
    ['too few bytes', { byteLength: 15 }, 'ERR_SHAPE', 'memory.byteLength'],
    ['an unknown device', { device: 'gpu' }, 'ERR_DEVICE', 'device'],
    ['a misspelt field', { pointer: 4096n }, 'ERR_ARGUMENT', 'memory'],
  ])('%s', (_, change, code, argument) => {
    expect(borrow(change)).toMatchObject({ code, argument });
  });

  test('what describes no memory, shapes, dtypes, options', () => {
    for (const value of [undefined, null, 4096n, 'x', []]) {
      expect(thrown(() => Tensor.borrow(value as never, [1]))).toMatchObject({
        code: 'ERR_ARGUMENT',
        argument: 'memory',
      });
    }
    expect(borrow({}, [-1])).toMatchObject({ code: 'ERR_SHAPE', argument: 'shape' });
    expect(borrow({}, [1], { dtype: 'float64' })).toMatchObject({ code: 'ERR_DTYPE', argument: 'dtype' });
    expect(borrow({}, [1], { device: 'cpu' })).toMatchObject({ code: 'ERR_ARGUMENT', argument: 'options' });
  });
});
