/** Which backend serves which operation on which device, and why not another. */

import { native } from '../binding.js';
import { cudaProblem, cudaStatus, type Device, device as deviceOf, type DeviceString } from '../device/device.js';
import { VsaError } from '../errors.js';
import type { DType } from '../tensor/dtype.js';
import { checkChoice } from '../validate.js';

/**
 * `cpu`: every operation and option, on any machine. `cuda`: portable GPU kernels. `sm90`: Hopper's own (wgmma, TMA),
 * for fine attention in 16 bits with head dims 64 and 128; the other operations of a call run on `cuda`.
 */
export type Backend = 'cpu' | 'cuda' | 'sm90';

const BACKENDS: readonly Backend[] = ['cpu', 'cuda', 'sm90'];
const CHOICES = ['auto', ...BACKENDS] as const;

/** The operations, by the names they are exported under. */
export const OPERATIONS = [
  'tilePooling',
  'coarseAttention',
  'tileSelection',
  'blockSparseAttention',
  'denseAttention',
  'gatedCombination',
  'videoSparseAttention',
  'tile',
  'untile',
] as const;
export type OperationName = (typeof OPERATIONS)[number];

/** @internal What of a call decides which kernels take its fine attention. */
export interface FineFacts {
  dtype: DType;
  D: number;
  scale: number;
}

/** Operations with fine attention in them. */
const FINE: ReadonlySet<OperationName> = new Set([
  'blockSparseAttention',
  'denseAttention',
  'videoSparseAttention',
] as const);

/** An option that every operation takes. */
export interface BackendOption {
  /** Forces a backend, and fails if it cannot serve the call. Default 'auto': the fastest that can. */
  backend?: 'auto' | Backend;
}

export interface BackendSupport {
  operation: string;
  backend: Backend;
  /** Whether calls on the device are served by this backend. */
  serves: boolean;
  /** Why not; empty where it serves. */
  why: string;
}

/** Backends by what they run on, the fastest last. */
const DEVICE_TYPES = { cpu: 'cpu', cuda: 'cuda', sm90: 'cuda' } as const;

/** Why Hopper's kernels cannot serve calls on a GPU, whatever they are: asked of the addon once a device. */
const notHopper = new Map<Device, string>();

function whyNoHopper(on: Device): string {
  let why = notHopper.get(on);
  if (why !== undefined) return why;
  const capability = cudaStatus().devices.find((gpu) => gpu.index === on.index)?.computeCapability;
  why =
    capability !== '9.0'
      ? `its kernels are for compute capability 9.0 (Hopper), ${on.toString()} (${on.name}) has ${String(capability)}`
      : String(native().build().cudaArchitectures).includes('90a')
        ? ''
        : 'this addon was built without sm_90a';
  notHopper.set(on, why);
  return why;
}

/** Why Hopper's kernels cannot serve a call on a GPU. The addon knows more: alignment, and sizes beyond 2^31 rows. */
function whyNotHopper(on: Device, operation?: OperationName, call?: FineFacts): string {
  const why = whyNoHopper(on);
  if (why !== '') return why;
  if (operation !== undefined && !FINE.has(operation)) return 'its kernels are for fine attention';
  if (call === undefined) return '';
  if (call.dtype === 'float32') return 'its kernels are for bfloat16 and float16, the tensors are float32';
  if (call.D !== 64 && call.D !== 128) return `its kernels are for head dims 64 and 128, this is ${String(call.D)}`;
  return call.scale > 0 ? '' : `its kernels are for a scale above 0, this is ${String(call.scale)}`;
}

function whyNot(backend: Backend, on: Device, operation?: OperationName, call?: FineFacts): string {
  if (DEVICE_TYPES[backend] !== on.type) {
    const there = DEVICE_TYPES[backend] === 'cpu' ? 'the CPU' : 'a GPU';
    const problem = DEVICE_TYPES[backend] === 'cuda' ? cudaProblem() : '';
    return `it serves tensors on ${there}, these are on ${on.toString()}${problem === '' ? '' : `; ${problem}`}`;
  }
  return backend === 'sm90' ? whyNotHopper(on, operation, call) : '';
}

/** What each backend can do for tensors on a device, operation by operation. */
export function backends(device?: Device | DeviceString): BackendSupport[] {
  const on = deviceOf(device);
  return OPERATIONS.flatMap((operation) =>
    BACKENDS.map((backend) => {
      const why = whyNot(backend, on, operation);
      return { operation, backend, serves: why === '', why };
    }),
  );
}

/** @internal What `'auto'` takes for tensors on a device, in words. */
export function automaticBackend(device?: Device | DeviceString): string {
  const on = deviceOf(device);
  if (on.type === 'cpu') return 'cpu';
  if (whyNoHopper(on) !== '') return 'cuda';
  return 'sm90 for fine attention in bfloat16 or float16 with head dims 64 and 128 and a scale above 0, else cuda';
}

/** @internal The backend that serves a call on a device, or why a forced one does not. */
export function chooseBackend(on: Device, requested: unknown, operation?: OperationName, call?: FineFacts): Backend {
  const wanted = checkChoice('backend', requested ?? 'auto', CHOICES);
  if (wanted === 'auto') {
    if (on.type === 'cpu') return 'cpu';
    return whyNotHopper(on, operation, call) === '' ? 'sm90' : 'cuda';
  }
  const why = whyNot(wanted, on, operation, call);
  if (why === '') return wanted;
  const serving = BACKENDS.filter((backend) => whyNot(backend, on, operation, call) === '');
  throw new VsaError({
    code: 'ERR_BACKEND',
    argument: 'backend',
    got: `'${wanted}' for tensors on ${on.toString()}`,
    wanted: `${serving.map((name) => `'${name}'`).join(', ')} or 'auto': ${why}`,
  });
}

/** @internal As the addon counts kernels of fine attention: the fastest that take the call, portable ones, Hopper's. */
export function kernelsOf(requested: BackendOption['backend']): number {
  return requested === 'cuda' ? 1 : requested === 'sm90' ? 2 : 0;
}
