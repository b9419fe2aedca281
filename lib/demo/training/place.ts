/** Where the demo trains. */
import { device as deviceOf } from '../../device/device.js';
import type { Device, DeviceString } from '../../device/device.js';
import { VsaError } from '../../errors.js';
import { linear } from '../../nn/functional.js';
import { tidy } from '../../tensor/scope.js';
import { Tensor } from '../../tensor/tensor.js';

/** A matrix product, for what it throws: on a GPU it needs a library that may be missing. */
async function multiply(device: Device): Promise<void> {
  tidy(() => {
    const x = Tensor.zeros([16, 16], { device });
    linear({ x, weight: x });
  });
  await device.synchronize();
}

/**
 * The device of a name; without one the best that can train, and why that is not the best there is.
 *
 * @param best What there is.
 * @param check Rejects with ERR_BACKEND where a device has no matrix products.
 * @throws VsaTypeError, VsaError ERR_DEVICE; VsaError ERR_BACKEND for a GPU that was named and cannot train.
 */
export async function placeToTrain(
  name: string | undefined,
  best: () => Device = () => deviceOf(),
  check: (device: Device) => Promise<void> = multiply,
): Promise<{ device: Device; why?: string }> {
  const device = name === undefined ? best() : deviceOf(name as DeviceString);
  if (device.type === 'cpu') return { device };
  try {
    await check(device);
    return { device };
  } catch (error) {
    if (name !== undefined || !(error instanceof VsaError) || error.code !== 'ERR_BACKEND') throw error;
    return { device: deviceOf('cpu'), why: `${device.toString()} (${device.name}) cannot train: ${error.message}` };
  }
}
