/**
 * Tensors to files and back. Bytes pass through in chunks: next to the tensors themselves, a save or a load of
 * safetensors holds a few MiB, whatever their size; an npy array is in memory once more while it loads.
 */
import { native } from '../binding.js';
import { device as deviceOf, type Device, type DeviceString } from '../device/device.js';
import { VsaTypeError, show } from '../errors.js';
import { DTYPES, type DType, type TypedArray } from '../tensor/dtype.js';
import { keep } from '../tensor/scope.js';
import { Tensor, emptyTensor, handleOf, share } from '../tensor/tensor.js';
import { checkChoice, checkOptions, checkShape } from '../validate.js';
import { toTypedArray, type FileDType, type HostArray, type HostArrayStream } from './host-array.js';
import { quote } from './io.js';
import { readNpy, writeNpy } from './npy.js';
import { SafetensorsFile, writeSafetensors } from './safetensors.js';
import { entriesOf, type Named } from './source.js';

/** Bytes moved to or from a device at a time. */
const CHUNK_BYTES = 1 << 23;

export interface LoadOptions {
  /** Default: the best there is. */
  device?: Device | DeviceString;
}

export interface LoadSafetensorsOptions extends LoadOptions {
  /** Load these tensors only. Default: all. */
  names?: readonly string[];
}

export interface LoadNpyOptions extends LoadOptions {
  /** Load as float32, whatever the file has: float64 is rounded to nearest even. Default: the file's dtype. */
  dtype?: 'float32';
}

function checkTensor(value: unknown, argument: string): asserts value is Tensor {
  if (!(value instanceof Tensor)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a Tensor' });
  }
  handleOf(value, argument);
}

async function* tensorBytes(tensor: Tensor): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < tensor.byteLength; offset += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, tensor.byteLength - offset);
    yield new Uint8Array(await native().read(handleOf(tensor, 'tensor'), offset, length));
  }
}

function streamOf(tensor: Tensor): HostArrayStream {
  return { dtype: tensor.dtype, shape: tensor.shape, chunks: tensorBytes(tensor) };
}

function isTensorDType(dtype: FileDType): dtype is DType & FileDType {
  return (DTYPES as readonly string[]).includes(dtype);
}

/**
 * Writes tensors, of any devices, to a safetensors file, without blocking the event loop. The file appears complete or
 * not at all. The tensors may be disposed as soon as this returns its promise; they must not be overwritten
 * (`copyFrom`) before it settles.
 * @param tensors by name, as a plain object or a Map
 * @param options.metadata text entries to store with them
 * @throws VsaTypeError ERR_ARGUMENT for what is no tensor or no text, ERR_DISPOSED; VsaRangeError ERR_ARGUMENT for a
 *   name the format reserves; VsaError ERR_FILE if the system refuses (the previous file is then untouched).
 */
export async function saveSafetensors(
  path: string,
  tensors: Named<Tensor>,
  options: { metadata?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  const entries = entriesOf(tensors, 'tensors');
  for (const [name, tensor] of entries) checkTensor(tensor, `tensors[${quote(name)}]`);
  const shares = entries.map(([name, tensor]) => [name, keep(share(tensor))] as const);
  try {
    await writeSafetensors(path, new Map(shares.map(([name, tensor]) => [name, streamOf(tensor)])), options);
  } finally {
    for (const [, tensor] of shares) tensor.dispose();
  }
}

/** What tensor a file's array becomes; checked for all before any is loaded. */
function checkLoadable(file: SafetensorsFile, name: string): { dtype: DType; shape: readonly number[] } {
  const { dtype, shape } = file.info(name);
  const argument = `${file.path}: tensor ${quote(name)}`;
  if (!isTensorDType(dtype)) {
    throw new VsaTypeError({
      code: 'ERR_DTYPE',
      argument,
      got: dtype,
      wanted: `${DTYPES.join(', ')}: leave it out with names, or read its bytes with SafetensorsFile`,
    });
  }
  return { dtype, shape: checkShape(argument, shape) };
}

async function loadTensor(file: SafetensorsFile, name: string, on: Device): Promise<Tensor> {
  const { dtype, shape } = checkLoadable(file, name);
  const tensor = emptyTensor(shape, dtype, on);
  try {
    const handle = handleOf(tensor, 'tensor');
    let offset = 0;
    for await (const chunk of file.stream(name, CHUNK_BYTES)) {
      native().write(handle, offset, chunk.byteLength, chunk, true);
      offset += chunk.byteLength;
    }
    return tensor;
  } catch (error) {
    tensor.dispose();
    throw error;
  }
}

/**
 * Loads tensors from a safetensors file: float32, bfloat16, float16 and int32, as they are. If one cannot be loaded,
 * none is: those already made are disposed.
 * @returns the tensors by name, to be disposed by the caller, and the file's text entries; both are records without a
 *   prototype, so that any name is just a name
 * @throws VsaTypeError ERR_DTYPE for a tensor of another dtype (read it with SafetensorsFile), ERR_ARGUMENT;
 *   VsaRangeError ERR_ARGUMENT for a name the file does not have, ERR_SHAPE for more dimensions than tensors have;
 *   VsaError ERR_FILE, ERR_FILE_FORMAT; OutOfMemoryError.
 */
export async function loadSafetensors(
  path: string,
  options: LoadSafetensorsOptions = {},
): Promise<{ tensors: Record<string, Tensor>; metadata: Readonly<Record<string, string>> }> {
  checkOptions('options', options, ['device', 'names']);
  const on = deviceOf(options.device);
  const { names: asked } = options;
  if (asked !== undefined && !(Array.isArray(asked) && asked.every((name) => typeof name === 'string'))) {
    const wanted = 'an array of strings';
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'names', got: show(asked), wanted });
  }
  const file = await SafetensorsFile.open(path);
  const tensors = Object.create(null) as Record<string, Tensor>;
  try {
    const names = new Set(asked ?? file.names());
    for (const name of names) checkLoadable(file, name);
    for (const name of names) tensors[name] = await loadTensor(file, name, on);
    return { tensors, metadata: file.metadata };
  } catch (error) {
    for (const tensor of Object.values(tensors)) tensor.dispose();
    throw error;
  } finally {
    await file.close();
  }
}

/**
 * Writes a tensor to a numpy file, without blocking the event loop. The file appears complete or not at all. The
 * tensor may be disposed as soon as this returns its promise; it must not be overwritten before it settles.
 * @throws VsaTypeError ERR_DTYPE for bfloat16, which numpy does not have (cast it, or save safetensors), ERR_ARGUMENT,
 *   ERR_DISPOSED; VsaError ERR_FILE if the system refuses.
 */
export async function saveNpy(path: string, tensor: Tensor): Promise<void> {
  checkTensor(tensor, 'tensor');
  const owned = keep(share(tensor));
  try {
    await writeNpy(path, streamOf(owned));
  } finally {
    owned.dispose();
  }
}

/** float64 rounded to float32 in the front half of its own memory: element i is read before its bytes are reused. */
function narrow(array: HostArray): Float32Array {
  const wide = toTypedArray({ ...array, dtype: 'float64' });
  const narrowed = new Float32Array(wide.buffer, wide.byteOffset, wide.length);
  for (let i = 0; i < wide.length; i++) narrowed[i] = wide[i] ?? NaN;
  return narrowed;
}

/**
 * Loads a tensor from a numpy file: float32, float16 and int32 as they are, float64 with `{ dtype: 'float32' }`.
 * @returns the tensor, to be disposed by the caller
 * @throws VsaTypeError ERR_DTYPE for an array that tensors cannot hold (the sentence says what to do about it),
 *   ERR_ARGUMENT; VsaRangeError ERR_SHAPE for more dimensions than tensors have; VsaError ERR_FILE, ERR_FILE_FORMAT;
 *   OutOfMemoryError.
 */
export async function loadNpy(path: string, options: LoadNpyOptions = {}): Promise<Tensor> {
  checkOptions('options', options, ['device', 'dtype']);
  const on = deviceOf(options.device);
  const wanted = options.dtype === undefined ? undefined : checkChoice('dtype', options.dtype, ['float32']);
  const array = await readNpy(path);
  const { dtype } = array;
  const shape = checkShape(path, array.shape);
  if (dtype === 'float64' && wanted === 'float32') return Tensor.from(narrow(array), shape, { device: on });
  if (!isTensorDType(dtype)) {
    const advice = dtype === 'float64' ? "or { dtype: 'float32' } to round it" : 'or read it with readNpy';
    throw new VsaTypeError({
      code: 'ERR_DTYPE',
      argument: path,
      got: dtype,
      wanted: `${DTYPES.join(', ')}, ${advice}`,
    });
  }
  const loaded = Tensor.from(toTypedArray(array) as TypedArray, shape, { dtype, device: on });
  if (wanted === undefined || wanted === dtype) return loaded;
  try {
    return loaded.cast(wanted);
  } finally {
    loaded.dispose();
  }
}
