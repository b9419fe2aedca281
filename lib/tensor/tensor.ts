/** Tensor: shape, dtype and a share of device memory. */

import { constants } from 'node:buffer';
import { isTypedArray } from 'node:util/types';
import { type Handle, native } from '../binding.js';
import { type Device, device as deviceOf, type DeviceString } from '../device/device.js';
import { show, VsaError, VsaRangeError, VsaTypeError } from '../errors.js';
import { checkInteger, checkNumber, checkOptions, checkShape, product, sameShape } from '../validate.js';
import { checkDType, type DType, dtypeCode, dtypeSize, FLOAT_DTYPES, type TypedArray, typedView } from './dtype.js';
import { type HostData, parseSeed, toHostArray, toInt32 } from './host.js';
import type { DevicePointer, NormalOptions, RandomOptions, TensorOptions } from './options.js';
import { Scoped, track, untrack } from './scope.js';

/** How often a memory was overwritten; shared by all tensors of that memory. */
export interface Version {
  count: number;
}

/** For the operations: a tensor over memory they filled, and the memory of a tensor. */
interface TensorInternals {
  empty(shape: readonly number[], dtype: DType, device: Device): Tensor;
  output(shape: readonly number[], dtype: DType, device: Device): Tensor;
  handle(tensor: Tensor, argument: string): Handle;
  share(tensor: Tensor): Tensor;
  version(tensor: Tensor): Version;
  whenDisposed(tensor: Tensor, then: () => void): void;
}

let internals: TensorInternals;

/** Handles of disposed tensors, which no one else has: used again, they are no work for the collector. */
const spareHandles: Handle[] = [];
const MOST_SPARE_HANDLES = 1024;

/** How a tensor came from another one by a method of its own. */
export type Derivation = 'reshape' | 'cast' | 'clone' | 'to';
let derived: ((source: Tensor, result: Tensor, how: Derivation) => void) | undefined;

/**
 * An array on a device: contiguous, row-major. Operations return at once and run in order; `data()` waits for them.
 * Memory is freed by `dispose()`, by `using`, or by a `tidy` around; the garbage collector is the last resort.
 */
export class Tensor extends Scoped implements Disposable {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly device: Device;
  /** Number of elements. */
  readonly size: number;
  #handle: Handle | undefined;
  #version: Version = { count: 0 };
  #whenDisposed: (() => void) | undefined;

  static {
    internals = {
      empty: (shape, dtype, device) => {
        const size = product(shape);
        const handle = native().alloc(size * dtypeSize(dtype), device.number, spareHandles.pop());
        return new Tensor(handle, shape, dtype, device, size);
      },
      output: (shape, dtype, device) => new Tensor(spareHandles.pop() ?? native().handle(), shape, dtype, device),
      handle: (tensor, argument) => tensor.#live(argument),
      share: (tensor) => tensor.#share(tensor.shape),
      version: (tensor) => tensor.#version,
      whenDisposed: (tensor, then) => {
        tensor.#whenDisposed = then;
      },
    };
  }

  private constructor(handle: Handle, shape: readonly number[], dtype: DType, device: Device, size = product(shape)) {
    super();
    this.shape = shape;
    this.dtype = dtype;
    this.device = device;
    this.size = size;
    this.#handle = handle;
    track(this);
  }

  /**
   * A tensor with a copy of host data.
   *
   * @param data Numbers or a typed array, row-major. All go to any dtype as `cast` says, rounded once; but a
   *   Uint16Array holds the bits of bfloat16 or float16, and `dtype` must say which.
   * @param shape Default: one dim of all elements.
   * @throws VsaRangeError ERR_SHAPE where shape and length differ; VsaTypeError ERR_DTYPE, ERR_ARGUMENT;
   *   OutOfMemoryError.
   */
  static from(data: HostData, shape?: readonly number[], options: TensorOptions = {}): Tensor {
    checkOptions('options', options, ['dtype', 'device']);
    const on = deviceOf(options.device);
    if (!Array.isArray(data) && !isTypedArray(data)) {
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: 'data',
        got: show(data),
        wanted: 'numbers, a Float32Array, Float64Array, Uint16Array or Int32Array',
      });
    }
    const dims = checkShape('shape', shape === undefined ? [data.length] : shape);
    if (product(dims) !== data.length) {
      throw new VsaRangeError({
        code: 'ERR_SHAPE',
        argument: 'shape',
        got: `${show(dims)} for ${String(data.length)} values`,
        wanted: 'as many elements as there are values',
      });
    }
    const dtype = options.dtype === undefined ? undefined : checkDType('dtype', options.dtype);
    const host = toHostArray(data as HostData, dtype, 'data');
    const uploaded = Tensor.#upload(host.array, dims, host.dtype, on);
    if (dtype === undefined || dtype === host.dtype) return uploaded;
    try {
      return uploaded.cast(dtype);
    } finally {
      uploaded.dispose();
    }
  }

  static #upload(array: TypedArray, shape: readonly number[], dtype: DType, on: Device): Tensor {
    const handle = native().alloc(array.byteLength, on.number, spareHandles.pop());
    try {
      native().write(handle, 0, array.byteLength, array, true);
    } catch (error) {
      native().release(handle);
      throw error;
    }
    return new Tensor(handle, shape, dtype, on);
  }

  /**
   * A tensor over a GPU's memory that another owner made and keeps alive: nothing is copied, and `dispose()` gives
   * nothing back. Operations here run in the order they are called, but know nothing of other streams: wait for what
   * fills the memory first, and `await device.synchronize()` before another reads what was written here.
   *
   * @param memory `ptr`: an address on the device, a multiple of 16; `byteLength` from there on is yours to use.
   * @throws VsaTypeError ERR_ARGUMENT, ERR_DTYPE; VsaRangeError ERR_SHAPE where the memory is too small; VsaError
   *   ERR_DEVICE where no such memory is on that GPU.
   */
  static borrow(memory: DevicePointer, shape: readonly number[], options: { dtype?: DType } = {}): Tensor {
    checkOptions('memory', memory, ['ptr', 'byteLength', 'device']);
    checkOptions('options', options, ['dtype']);
    const { ptr, byteLength, device } = memory;
    const on = deviceOf(device);
    const dtype = checkDType('dtype', options.dtype ?? 'float32');
    const dims = checkShape('shape', shape);
    if (typeof ptr !== 'bigint' || ptr <= 0n || ptr >= 1n << 64n || ptr % 16n !== 0n) {
      const got = typeof ptr === 'bigint' ? `${String(ptr)}n` : show(ptr);
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: 'memory.ptr',
        got,
        wanted: 'an address, a multiple of 16',
      });
    }
    checkInteger('memory.byteLength', byteLength, 0, Number.MAX_SAFE_INTEGER);
    const bytes = product(dims) * dtypeSize(dtype);
    if (bytes > byteLength) {
      const got = `${String(byteLength)} bytes`;
      const wanted = `${String(bytes)} for ${show(dims)} ${dtype}`;
      throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'memory.byteLength', got, wanted });
    }
    if (on.type === 'cpu') {
      throw new VsaError({ code: 'ERR_DEVICE', argument: 'memory.device', got: "'cpu'", wanted: 'a GPU' });
    }
    return new Tensor(native().borrow(ptr, byteLength, on.number), dims, dtype, on);
  }

  /**
   * Where the values lie on the GPU, for other libraries of this process. Valid until the tensor is disposed; what was
   * called before is there after `await device.synchronize()`.
   *
   * @throws VsaError ERR_DEVICE on the CPU, whose memory cannot be used beside the queue.
   */
  get pointer(): DevicePointer {
    const handle = this.#live('this');
    if (this.device.type === 'cpu') {
      throw new VsaError({ code: 'ERR_DEVICE', argument: 'this', got: 'a tensor on cpu', wanted: 'one on a GPU' });
    }
    return { ptr: native().address(handle), byteLength: this.byteLength, device: this.device };
  }

  /** All zero. */
  static zeros(shape: readonly number[], options: TensorOptions = {}): Tensor {
    return Tensor.full(shape, 0, options);
  }

  /** Every element is `value`: to floats rounded to nearest even, to int32 truncated and saturated (NaN becomes 0). */
  static full(shape: readonly number[], value: number, options: TensorOptions = {}): Tensor {
    checkOptions('options', options, ['dtype', 'device']);
    if (typeof value !== 'number') {
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'value', got: show(value), wanted: 'a number' });
    }
    const dims = checkShape('shape', shape);
    const dtype = checkDType('dtype', options.dtype === undefined ? 'float32' : options.dtype);
    const fill = dtype === 'int32' ? toInt32(value) : value;
    return filledTensor(dims, dtype, deviceOf(options.device), (output) => {
      native().fill({ dtype: dtypeCode(dtype), count: product(dims), value: fill, output });
    });
  }

  /**
   * Normally distributed numbers from a counter-based generator (Philox4x32-10, Box-Muller): element i depends on the
   * seed and i alone, so every backend and thread count gives the same.
   */
  static randn(shape: readonly number[], options: NormalOptions = {}): Tensor {
    checkOptions('options', options, ['dtype', 'device', 'seed', 'mean', 'std']);
    const { seed, mean = 0, std = 1, dtype = 'float32' } = options;
    const key = parseSeed(seed);
    checkNumber('mean', mean);
    if (checkNumber('std', std) < 0) {
      throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'std', got: show(std), wanted: 'at least 0' });
    }
    const dims = checkShape('shape', shape);
    const checked = checkDType('dtype', dtype, FLOAT_DTYPES);
    return filledTensor(dims, checked, deviceOf(options.device), (output) => {
      native().randomNormal({ dtype: dtypeCode(checked), seed: key, count: product(dims), mean, std, output });
    });
  }

  /** int32: the generator's 32-bit words themselves, as signed integers. */
  static randbits(shape: readonly number[], options: RandomOptions = {}): Tensor {
    checkOptions('options', options, ['device', 'seed']);
    const seed = parseSeed(options.seed);
    const dims = checkShape('shape', shape);
    return filledTensor(dims, 'int32', deviceOf(options.device), (output) => {
      native().randomBits({ seed, count: product(dims), output });
    });
  }

  get rank(): number {
    return this.shape.length;
  }

  get byteLength(): number {
    return this.size * dtypeSize(this.dtype);
  }

  get disposed(): boolean {
    return this.#handle === undefined;
  }

  #live(argument: string): Handle {
    if (this.#handle !== undefined) return this.#handle;
    throw new VsaTypeError({ code: 'ERR_DISPOSED', argument, got: 'a disposed tensor', wanted: 'a living one' });
  }

  #readable(): Handle {
    const handle = this.#live('this');
    if (this.size <= constants.MAX_LENGTH) return handle;
    throw new VsaRangeError({
      code: 'ERR_SHAPE',
      argument: 'this',
      got: `${show(this.shape)}, ${String(this.size)} elements`,
      wanted: `at most ${String(constants.MAX_LENGTH)}, the longest typed array of this Node`,
    });
  }

  /** Another tensor of the same memory, with a lifetime of its own. */
  #share(shape: readonly number[]): Tensor {
    const handle = native().retain(this.#live('this'), spareHandles.pop());
    const shared = new Tensor(handle, shape, this.dtype, this.device, this.size);
    shared.#version = this.#version;
    return shared;
  }

  #derived(result: Tensor, how: Derivation): Tensor {
    derived?.(this, result, how);
    return result;
  }

  /**
   * The values on another device. On the same one the memory is shared; either way the result is yours to dispose.
   * From a GPU to the CPU it returns at once, as operations do; from the CPU it waits until the values are there.
   */
  to(device: Device | DeviceString): Tensor {
    const from = this.#live('this');
    const on = deviceOf(device);
    if (on === this.device) return this.#derived(this.#share(this.shape), 'to');
    if (on.type === 'cuda' && this.device.type === 'cuda') {
      const onHost = this.to('cpu');
      try {
        return this.#derived(onHost.to(on), 'to');
      } finally {
        onHost.dispose();
      }
    }
    const moved = filledTensor(this.shape, this.dtype, on, (output) => {
      native().transfer(from, output, this.byteLength);
    });
    return this.#derived(moved, 'to');
  }

  /**
   * The values in another dtype: to 16-bit floats rounded to nearest even, to int32 truncated and saturated (NaN
   * becomes 0). Memory is shared where nothing changes.
   */
  cast(dtype: DType): Tensor {
    const x = this.#live('this');
    checkDType('dtype', dtype);
    if (dtype === this.dtype) return this.#derived(this.#share(this.shape), 'cast');
    const [from, to] = [dtypeCode(this.dtype), dtypeCode(dtype)];
    const converted = filledTensor(this.shape, dtype, this.device, (output) => {
      native().cast({ from, to, count: this.size, x, output });
    });
    return this.#derived(converted, 'cast');
  }

  /** The same memory under another shape of as many elements; one dim may be -1: what is left. */
  reshape(shape: readonly number[]): Tensor {
    this.#live('this');
    return this.#derived(this.#share(checkShape('shape', shape, this.size)), 'reshape');
  }

  /** A copy in memory of its own. */
  clone(): Tensor {
    const x = this.#live('this');
    const code = dtypeCode(this.dtype);
    const copy = filledTensor(this.shape, this.dtype, this.device, (output) => {
      native().cast({ from: code, to: code, count: this.size, x, output });
    });
    return this.#derived(copy, 'clone');
  }

  /**
   * Overwrites the values in place, in order with the operations called before and after. Whatever shares the memory
   * changes with it: tensors made by `reshape`, `to` and a `cast` to the same dtype, and what a forward saved of this
   * one for its backward.
   *
   * @param source A tensor of the same shape (any dtype), or a typed array of the same length, converted as by
   *   `Tensor.from`.
   */
  copyFrom(source: Tensor | TypedArray | Float64Array): this {
    const output = this.#live('this');
    if (source instanceof Tensor) {
      const x = source.#live('source');
      if (!sameShape(source.shape, this.shape)) {
        throw new VsaRangeError({
          code: 'ERR_SHAPE',
          argument: 'source',
          got: show(source.shape),
          wanted: show(this.shape),
        });
      }
      if (source.device !== this.device) {
        throw new VsaTypeError({
          code: 'ERR_DEVICE',
          argument: 'source',
          got: `a tensor on ${source.device.toString()}`,
          wanted: `one on ${this.device.toString()}: source.to('${this.device.toString()}') copies it there`,
        });
      }
      native().cast({ from: dtypeCode(source.dtype), to: dtypeCode(this.dtype), count: this.size, x, output });
      this.#version.count += 1;
      return this;
    }
    if (!isTypedArray(source)) {
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: 'source',
        got: show(source),
        wanted: 'a Tensor or a typed array',
      });
    }
    if (source.length !== this.size) {
      throw new VsaRangeError({
        code: 'ERR_SHAPE',
        argument: 'source',
        got: `${String(source.length)} values`,
        wanted: `${String(this.size)}, for ${show(this.shape)}`,
      });
    }
    const host = toHostArray(source, this.dtype, 'source');
    if (host.dtype === this.dtype) {
      native().write(output, 0, host.array.byteLength, host.array, false);
      this.#version.count += 1;
      return this;
    }
    const uploaded = Tensor.#upload(host.array, this.shape, host.dtype, this.device);
    try {
      return this.copyFrom(uploaded);
    } finally {
      uploaded.dispose();
    }
  }

  /**
   * The values, once every operation called before has run. Does not block. bfloat16 and float16 come as their bits
   * in a Uint16Array; `toFloat32()` gives numbers.
   */
  async data(): Promise<TypedArray> {
    return typedView(this.dtype, await native().read(this.#readable(), 0, this.byteLength));
  }

  /** As `data()`, but blocks the thread until the operations have run. */
  dataSync(): TypedArray {
    return typedView(this.dtype, native().readSync(this.#readable(), 0, this.byteLength));
  }

  /** The values as float32, whatever the dtype. */
  async toFloat32(): Promise<Float32Array> {
    const converted = this.cast('float32');
    try {
      return (await converted.data()) as Float32Array;
    } finally {
      converted.dispose();
    }
  }

  /** The value of a one-element tensor. Blocks until the operations have run. */
  item(): number {
    this.#live('this');
    if (this.size !== 1) {
      throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'this', got: show(this.shape), wanted: 'one element' });
    }
    if (this.dtype === 'int32') return this.dataSync()[0] ?? NaN;
    const converted = this.cast('float32');
    try {
      return converted.dataSync()[0] ?? NaN;
    } finally {
      converted.dispose();
    }
  }

  /** Gives the memory back. Operations already called still run on it. Calling it again does nothing. */
  override dispose(): void {
    if (this.#handle === undefined) return;
    native().release(this.#handle);
    if (spareHandles.length < MOST_SPARE_HANDLES) spareHandles.push(this.#handle);
    this.#handle = undefined;
    untrack(this);
    this.#whenDisposed?.();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  override toString(): string {
    const state = this.disposed ? ', disposed' : '';
    return `Tensor(${show(this.shape)}, ${this.dtype}, ${this.device.toString()}${state})`;
  }
}

/** @internal Memory that an operation is about to fill. */
export function emptyTensor(shape: readonly number[], dtype: DType, device: Device): Tensor {
  return internals.empty(shape, dtype, device);
}

/**
 * @internal An output of the operation that is called next, which makes its memory: so it costs no call of its own. Only
 * where that operation fills all of the tensor.
 */
export function outputTensor(shape: readonly number[], dtype: DType, device: Device): Tensor {
  return internals.output(shape, dtype, device);
}

/** A tensor that one operation fills; nothing is left behind if that cannot be called. */
function filledTensor(shape: readonly number[], dtype: DType, device: Device, fill: (output: Handle) => void): Tensor {
  const tensor = emptyTensor(shape, dtype, device);
  try {
    fill(internals.handle(tensor, 'output'));
  } catch (error) {
    tensor.dispose();
    throw error;
  }
  return tensor;
}

/** @internal The memory of a living tensor; `argument` names it in the error of a disposed one. */
export function handleOf(tensor: Tensor, argument: string): Handle {
  return internals.handle(tensor, argument);
}

/** @internal The same, if there is a tensor. */
export function optionalHandle(tensor: Tensor | undefined, argument: string): Handle | undefined {
  return tensor === undefined ? undefined : handleOf(tensor, argument);
}

/** @internal Calls `then` once the tensor is disposed; one call a tensor. */
export function whenDisposed(tensor: Tensor, then: () => void): void {
  internals.whenDisposed(tensor, then);
}

/** @internal Counts the times that a tensor's memory was overwritten. */
export function versionOf(tensor: Tensor): Version {
  return internals.version(tensor);
}

/** @internal Is told of every tensor that comes from another by `reshape`, `cast`, `clone` or `to`. */
export function observeDerived(observer: (source: Tensor, result: Tensor, how: Derivation) => void): void {
  derived = observer;
}

/** @internal Another tensor of the same memory, of which no tape knows. */
export function share(tensor: Tensor): Tensor {
  return internals.share(tensor);
}
