/** Clips for the writers' tests. */
import type { ClipShape } from '../../lib/media/shape.js';

/** Value of a channel of a pixel, -1 or 1 say. */
export type Picture = (frame: number, y: number, x: number, channel: number) => number;

/** Eight colours, the corners of the cube, in stripes that move. */
export const STRIPES: Picture = (frame, y, x, channel) => ((frame + y + 3 * x) & (1 << channel) ? 1 : -1);

export function clipOf([F, H, W]: ClipShape, picture: Picture): Float32Array {
  return Float32Array.from({ length: F * H * W * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3);
    return picture(Math.floor(pixel / (H * W)), Math.floor(pixel / W) % H, pixel % W, i % 3);
  });
}
