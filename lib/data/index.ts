/** What of the data is public. */
export type { ShapeKind } from './drawing.js';
export { type ClipBatch, ClipLoader, type ClipLoaderOptions } from './loader.js';
export { MovingShapes, movingShapes, type MovingShapesOptions } from './moving-shapes.js';
export type { LoaderPosition } from './order.js';
export type { ClipSource, SourceDescription } from './source.js';
export {
  type FolderVideo,
  type SkippedVideo,
  VideoFolder,
  videoFolder,
  type VideoFolderOptions,
} from './video-folder.js';
