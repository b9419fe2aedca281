/** What tensors are made with. */

import type { Device, DeviceString } from '../device/device.js';
import type { DType } from './dtype.js';

export interface TensorOptions {
  /** Default: that of the data, else 'float32'. */
  dtype?: DType;
  /** Default: the best there is. */
  device?: Device | DeviceString;
}

export interface RandomOptions {
  /** A whole number from 0 to 2^64 - 1. Default 0. */
  seed?: number | bigint;
  device?: Device | DeviceString;
}

export interface NormalOptions extends RandomOptions {
  dtype?: DType;
  /** Default 0. */
  mean?: number;
  /** Standard deviation, default 1. */
  std?: number;
}

/** Memory on a GPU, as libraries hand it to each other. */
export interface DevicePointer {
  /** Address on the device. */
  ptr: bigint;
  byteLength: number;
  device: Device | DeviceString;
}
