import { native } from '../binding.js';
import type { Device } from '../device/device.js';

/** @internal Operations that are launched in parts, by their number in the addon. */
export const OPERATIONS = { videoSparseAttention: 0, blockSparseAttention: 1, denseAttention: 2 } as const;

/**
 * @internal Runs the parts of an operation. A GPU is told that they are one: then a fault is reported by the name that
 * the caller knows, and the stream keeps count of them once, not part by part, which costs it up to 2 us each.
 */
export function together<T>(device: Device, operation: keyof typeof OPERATIONS, parts: () => T): T {
  if (device.type === 'cpu') return parts();
  native().beginTogether(device.number, OPERATIONS[operation]);
  try {
    return parts();
  } finally {
    native().endTogether(device.number);
  }
}
