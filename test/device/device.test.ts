import { cpus } from 'node:os';
import { native } from '../../lib/binding.js';
import { Device, device } from '../../lib/device/device.js';
import { type ErrorCode, VsaError, VsaTypeError } from '../../lib/errors.js';
import { Tensor } from '../../lib/tensor/tensor.js';

/** The error of a call. */
function thrown(call: () => unknown): { code: ErrorCode; argument?: string; message: string; wanted?: string } {
  try {
    call();
  } catch (error) {
    return error as VsaError & { wanted: string; argument: string };
  }
  throw new Error('a failure was expected');
}

test('the CPU: one object, by its name, by itself, and as the best there is', () => {
  const cpu = device('cpu');
  expect(cpu).toBeInstanceOf(Device);
  expect([device(), device(cpu), device(undefined)].every((other) => other === cpu)).toBe(true);
  expect([cpu.type, cpu.index, cpu.toString(), String(cpu)]).toEqual(['cpu', 0, 'cpu', 'cpu']);
  expect(cpu.name).toBe(cpus()[0]?.model.trim() ?? process.arch);
});

test('tensors know their device', () => {
  using x = Tensor.zeros([1], { device: 'cpu' });
  using y = Tensor.randn([1], { device: device('cpu') });
  expect(x.device).toBe(device());
  expect(y.device).toBe(x.device);
});

test('synchronize resolves to nothing, also where nothing is queued', async () => {
  expect(await Promise.all([device().synchronize(), device().synchronize()])).toEqual([undefined, undefined]);
});

describe('a GPU is not used yet', () => {
  test.each(['cuda', 'cuda:0', 'cuda:12'] as const)('%s is an error that gives the reason', (name) => {
    const error = thrown(() => device(name));
    expect(error).toBeInstanceOf(VsaError);
    expect(error).toMatchObject({ code: 'ERR_DEVICE', argument: 'device', got: `'${name}'` });
    const { problem } = native().cudaStatus();
    expect(error.wanted).toContain(problem === '' ? 'no CUDA kernels yet' : problem);
    expect(error.message).toBe(`device: got '${name}', wanted ${error.wanted!}`);
  });

  test('the status is whole: a problem or devices', () => {
    const status = native().cudaStatus();
    expect(status.problem === '').toBe(status.devices.length > 0);
    expect(native().build().cuda === null).toBe(native().build().cudaArchitectures === null);
  });
});

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
