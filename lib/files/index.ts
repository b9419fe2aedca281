/** What of the files is public. */
export { type FileContent, writeFileAtomic } from './atomic.js';
export {
  FILE_DTYPES,
  type FileDType,
  fileDTypeBytes,
  type FileTypedArray,
  fromTypedArray,
  type HostArray,
  type HostArrayStream,
  toTypedArray,
} from './host-array.js';
export { readNpy, writeNpy } from './npy.js';
export { readSafetensors, SafetensorsFile, writeSafetensors } from './safetensors.js';
export type { TensorInfo } from './safetensors-header.js';
export type { HostArraySource, Named } from './source.js';
export {
  loadNpy,
  type LoadNpyOptions,
  type LoadOptions,
  loadSafetensors,
  type LoadSafetensorsOptions,
  saveNpy,
  saveSafetensors,
} from './tensors.js';
