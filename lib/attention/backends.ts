/** Which backend serves which operation on which device, and why not another. */

import { cudaProblem, type Device, device as deviceOf, type DeviceString } from '../device/device.js';
import { VsaError } from '../errors.js';
import { checkChoice } from '../validate.js';

/**
 * `cpu`: every operation and option, on any machine. `cuda`: portable GPU kernels. `sm90`: Hopper's own, for the hot
 * shapes.
 */
export type Backend = 'cpu' | 'cuda' | 'sm90';

const BACKENDS: readonly Backend[] = ['cpu', 'cuda', 'sm90'];

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

function whyNot(backend: Backend, on: Device): string {
  if (DEVICE_TYPES[backend] !== on.type) {
    const there = DEVICE_TYPES[backend] === 'cpu' ? 'the CPU' : 'a GPU';
    const problem = DEVICE_TYPES[backend] === 'cuda' ? cudaProblem() : '';
    return `it serves tensors on ${there}, these are on ${on.toString()}${problem === '' ? '' : `; ${problem}`}`;
  }
  return backend === 'sm90' ? "this version of video-sparse-attention has no kernels of Hopper's own yet" : '';
}

/** What each backend can do for tensors on a device, operation by operation. */
export function backends(device?: Device | DeviceString): BackendSupport[] {
  const on = deviceOf(device);
  return OPERATIONS.flatMap((operation) =>
    BACKENDS.map((backend) => {
      const why = whyNot(backend, on);
      return { operation, backend, serves: why === '', why };
    }),
  );
}

/** @internal The backend that serves a call on a device, or why a forced one does not. */
export function chooseBackend(on: Device, requested: unknown): Backend {
  const wanted = checkChoice('backend', requested ?? 'auto', ['auto', ...BACKENDS]);
  const serving = BACKENDS.filter((backend) => whyNot(backend, on) === '');
  const backend = wanted === 'auto' ? serving.at(-1)! : wanted;
  const why = whyNot(backend, on);
  if (why === '') return backend;
  throw new VsaError({
    code: 'ERR_BACKEND',
    argument: 'backend',
    got: `'${wanted}' for tensors on ${on.toString()}`,
    wanted: `${serving.map((name) => `'${name}'`).join(', ')} or 'auto': ${why}`,
  });
}
