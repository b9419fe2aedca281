/** Devices: what there is, by name, and why one is not there. */

import { cpus } from 'node:os';
import { native } from '../binding.js';
import { show, VsaError, VsaTypeError } from '../errors.js';
import { checkInteger } from '../validate.js';

export type DeviceType = 'cpu' | 'cuda';
/** `'cuda'` is `'cuda:0'`. */
export type DeviceString = 'cpu' | 'cuda' | `cuda:${number}`;

let cpuDevice: () => Device;

/**
 * A place that holds tensors and runs operations, one after another, in the order they were called. There is one
 * object for each; `device()` gives it.
 */
export class Device {
  static #cpu: Device | undefined;

  static {
    cpuDevice = () => (Device.#cpu ??= new Device('cpu', 0, cpus()[0]?.model.trim() ?? process.arch));
  }

  private constructor(
    readonly type: DeviceType,
    readonly index: number,
    /** The processor's name. */
    readonly name: string,
  ) {}

  /** Resolves when everything called before has run. */
  async synchronize(): Promise<void> {
    await native().synchronize();
  }

  /** `'cpu'`, `'cuda:0'`, ... */
  toString(): string {
    return this.type === 'cpu' ? 'cpu' : `cuda:${String(this.index)}`;
  }
}

/** Why no operation of this build runs on a GPU of this machine. */
export function cudaProblem(): string {
  const { problem } = native().cudaStatus();
  return problem !== '' ? problem : 'this version of video-sparse-attention has no CUDA kernels yet';
}

/**
 * A device by name; the best there is without one.
 *
 * @param name `'cpu'`, `'cuda'` or `'cuda:N'`, or a Device, which is returned as it is.
 * @throws VsaTypeError ERR_DEVICE for anything else; VsaError ERR_DEVICE, with the reason, for a device that cannot
 *   be used here.
 */
export function device(name: DeviceString | Device = 'cpu'): Device {
  const cpu = cpuDevice();
  if (name === 'cpu' || name === cpu) return cpu;
  if (typeof name === 'string' && /^cuda(:\d{1,3})?$/.test(name)) {
    throw new VsaError({ code: 'ERR_DEVICE', argument: 'device', got: `'${name}'`, wanted: `'cpu': ${cudaProblem()}` });
  }
  throw new VsaTypeError({
    code: 'ERR_DEVICE',
    argument: 'device',
    got: show(name),
    wanted: "'cpu', 'cuda', 'cuda:N' or a Device that device() gave",
  });
}

/**
 * Living tensors (and lists) of this thread: how many, and their memory in bytes, where shared memory counts once.
 * What queued operations still hold of disposed tensors is not in it.
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
