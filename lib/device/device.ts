/** Devices: what there is, by name, and why one is not there. */

import { cpus } from 'node:os';
import { native, type NativeCudaStatus } from '../binding.js';
import { show, VsaError, VsaTypeError } from '../errors.js';
import { tidy } from '../tensor/scope.js';
import { checkInteger } from '../validate.js';
import { Graph } from './graph.js';

export type DeviceType = 'cpu' | 'cuda';
/** `'cuda'` is `'cuda:0'`. */
export type DeviceString = 'cpu' | 'cuda' | `cuda:${number}`;

export interface DeviceMemory {
  /** Bytes that new tensors can have. */
  freeBytes: number;
  totalBytes: number;
  /** Bytes this process holds for tensors: in use, or (on a GPU) kept for the next ones. */
  heldBytes: number;
  /** Bytes in use: tensors, what queued operations still hold of disposed ones, and on a GPU a running call's scratch. */
  usedBytes: number;
  /** The most that `usedBytes` ever was since the process began, or since `resetPeakMemory()`. */
  peakBytes: number;
}

let makeDevice: (type: DeviceType, index: number, name: string) => Device;

/**
 * A place that holds tensors and runs operations, one after another, in the order they were called. There is one
 * object for each; `device()` gives it.
 */
export class Device {
  static {
    makeDevice = (type, index, name) => new Device(type, index, name);
  }

  private constructor(
    readonly type: DeviceType,
    readonly index: number,
    /** The processor's name. */
    readonly name: string,
  ) {}

  /** @internal As the addon counts devices. */
  get number(): number {
    return this.type === 'cpu' ? -1 : this.index;
  }

  /** Resolves when everything called before has run. */
  async synchronize(): Promise<void> {
    await native().synchronize(this.number);
  }

  /** Memory on this device, now. */
  memory(): DeviceMemory {
    return native().deviceMemory(this.number);
  }

  /** Sets `memory().peakBytes` to what is in use now: a peak of what follows. */
  resetPeakMemory(): void {
    native().resetPeakMemory(this.number);
  }

  /**
   * Records what a function calls on this device, without running it; `replay()` runs it. On a GPU this is a CUDA
   * graph: a replay costs one launch, however many operations it has.
   *
   * Inside, tensors made on this device get memory of the graph, and values can be neither read nor written from the
   * host (ERR_CAPTURE): make inputs before, and update them with `copyFrom` between replays. What the function made and
   * does not return is disposed, as by `tidy`. Operations on other devices run at once.
   *
   * @throws VsaError ERR_CAPTURE if this thread is already recording here; VsaTypeError ERR_ARGUMENT if `fn` is no
   *   function or returns a promise.
   */
  graph<T>(fn: () => T): Graph<T> {
    if (native().capturing(this.number)) {
      throw new VsaError({ code: 'ERR_CAPTURE', message: 'graph: got a call inside of graph(), wanted one by itself' });
    }
    native().beginCapture(this.number);
    let output: T;
    try {
      output = tidy(fn);
    } catch (error) {
      native().endCapture(this.number, false);
      throw error;
    }
    return new Graph(native().endCapture(this.number, true)!, output);
  }

  /** `'cpu'`, `'cuda:0'`, ... */
  toString(): string {
    return this.type === 'cpu' ? 'cpu' : `cuda:${String(this.index)}`;
  }
}

const known = new Map<number, Device>();

function deviceOf(type: DeviceType, index: number, name: () => string): Device {
  const number = type === 'cpu' ? -1 : index;
  let one = known.get(number);
  if (one === undefined) known.set(number, (one = makeDevice(type, index, name())));
  return one;
}

let status: NativeCudaStatus | undefined;

/** @internal What GPUs there are. Asked for once: it opens every GPU, which takes a while. */
export function cudaStatus(): NativeCudaStatus {
  return (status ??= native().cudaStatus());
}

/** Why a GPU cannot be used here; empty if it can. */
export function cudaProblem(index = 0): string {
  const { problem, devices } = cudaStatus();
  const gpu = devices.find((one) => one.index === index);
  if (gpu === undefined) {
    if (devices.length === 0) return problem;
    const names = devices.map((one) => `cuda:${String(one.index)} (${one.name})`).join(', ');
    return `the GPUs here are ${names}`;
  }
  if (gpu.hasCode) return '';
  if (problem !== '') return problem;
  const built = native().build().cudaArchitectures ?? 'none';
  return `cuda:${String(index)} (${gpu.name}) has compute capability ${gpu.computeCapability}, this addon has code for ${built}`;
}

/**
 * A device by name; the best there is without one: the first GPU that this build runs on, else the CPU.
 *
 * @param name `'cpu'`, `'cuda'` or `'cuda:N'`, or a Device, which is returned as it is.
 * @throws VsaTypeError ERR_DEVICE for anything else; VsaError ERR_DEVICE, with the reason, for a device that cannot
 *   be used here.
 */
export function device(name?: DeviceString | Device): Device {
  const cpu = () => deviceOf('cpu', 0, () => cpus()[0]?.model.trim() ?? process.arch);
  const cuda = (index: number) =>
    deviceOf('cuda', index, () => cudaStatus().devices.find((gpu) => gpu.index === index)?.name ?? 'GPU');
  if (name === undefined) {
    const gpu = cudaStatus().devices.find((one) => one.hasCode);
    return gpu === undefined ? cpu() : cuda(gpu.index);
  }
  if (name === 'cpu') return cpu();
  for (const one of known.values()) if (one === name) return one;
  const match = typeof name === 'string' ? /^cuda(?::(\d{1,3}))?$/.exec(name) : null;
  if (match === null) {
    throw new VsaTypeError({
      code: 'ERR_DEVICE',
      argument: 'device',
      got: show(name),
      wanted: "'cpu', 'cuda', 'cuda:N' or a Device that device() gave",
    });
  }
  const index = Number(match[1] ?? 0);
  const problem = cudaProblem(index);
  if (problem === '') return cuda(index);
  throw new VsaError({
    code: 'ERR_DEVICE',
    argument: 'device',
    got: show(name),
    wanted: `'cpu', or a GPU that can be used: ${problem}`,
  });
}

/**
 * Living tensors (and lists) of this thread: how many, and their memory in bytes on all devices, where shared memory
 * counts once. What queued operations still hold of disposed tensors is not in it.
 */
export function memory(): { numTensors: number; numBytes: number } {
  return native().memory();
}

/** Threads the CPU backend computes with: VSA_NUM_THREADS, else the CPUs this process may use. */
export function cpuThreads(): number {
  return native().threads();
}

/** Sets the CPU backend's threads, 1 to 1024, for operations called from now on. Results do not depend on it. */
export function setCpuThreads(count: number): void {
  native().setThreads(checkInteger('count', count, 1, 1024));
}
