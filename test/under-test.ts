/** The device that the suites test: VSA_TEST_DEVICE, by default the CPU. What is there to test on a GPU alone is in gpu. */

import { device, type DeviceString } from '../lib/device/device.js';
import { TileLists } from '../lib/attention/lists.js';
import { Tensor } from '../lib/tensor/tensor.js';

export const here = device((process.env['VSA_TEST_DEVICE'] ?? 'cpu') as DeviceString);

/** `Tensor` and `TileLists` as they are, but on the device under test: without a device they take the best there is. */
export const fresh = {
  from: (...[data, shape, options]: Parameters<typeof Tensor.from>) =>
    Tensor.from(data, shape, { device: here, ...options }),
  zeros: (...[shape, options]: Parameters<typeof Tensor.zeros>) => Tensor.zeros(shape, { device: here, ...options }),
  full: (...[shape, value, options]: Parameters<typeof Tensor.full>) =>
    Tensor.full(shape, value, { device: here, ...options }),
  randn: (...[shape, options]: Parameters<typeof Tensor.randn>) => Tensor.randn(shape, { device: here, ...options }),
  randbits: (...[shape, options]: Parameters<typeof Tensor.randbits>) =>
    Tensor.randbits(shape, { device: here, ...options }),
  lists: (...[lists, shape, options]: Parameters<typeof TileLists.from>) =>
    TileLists.from(lists, shape, { device: here, ...options }),
  listsFromMask: (...[mask, shape, options]: Parameters<typeof TileLists.fromMask>) =>
    TileLists.fromMask(mask, shape, { device: here, ...options }),
  fullLists: (...[shape, options]: Parameters<typeof TileLists.full>) =>
    TileLists.full(shape, { device: here, ...options }),
};
