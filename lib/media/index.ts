/** What of the media is public. */
export { writeGif } from './gif.js';
export { writeClip, writeMp4 } from './mp4.js';
export { DEFAULT_PATCH, type PatchGrid, patchGrid, type PatchGridOptions, patchify, unpatchify } from './patches.js';
export type { ClipShape, Patch } from './shape.js';
export type { WriteClipOptions } from './writing.js';
