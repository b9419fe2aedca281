/** Where selected tiles lie, seen from their query tile: a map in space above a strip in time. */

import type { TileGrid } from '../attention/grid.js';
import type { SelectionOffsets } from '../attention/offsets.js';
import { percent } from './html.js';

/**
 * @param caption HTML.
 * @param name In words, for those who do not see the picture; safe in HTML.
 */
export function offsetFigure(
  { tileCounts: [Nt, Ny, Nx] }: TileGrid,
  { time, space }: SelectionOffsets,
  caption: string,
  name: string,
): string {
  const [wide, high, long] = [2 * Nx - 1, 2 * Ny - 1, 2 * Nt - 1];
  const cells = (values: Float64Array, columns: number, width: number, height: number) =>
    [...values]
      .map((share, at) => {
        const opacity = Math.sqrt(Math.min(1, share)).toFixed(2);
        if (opacity === '0.00') return '';
        const [cx, cy] = [(at % columns) * width, Math.floor(at / columns) * height];
        return `<rect x="${cx.toFixed(3)}" y="${cy}" width="${width.toFixed(3)}" height="${height}" fill-opacity="${opacity}"/>`;
      })
      .join('');
  const nearest = percent(space[(Ny - 1) * wide + Nx - 1]!, 0);
  const alt =
    `${name}: share of tiles that are selected, by distance in space and in time. ` +
    `Of the tiles at the same place ${nearest} are selected.`;
  return `<figure><figcaption>${caption}</figcaption>
      <div role="img" aria-label="${alt}">
      <svg viewBox="0 0 ${wide} ${high}" aria-hidden="true">${cells(space, wide, 1, 1)}
        <rect class="origin" x="${Nx - 1}" y="${Ny - 1}" width="1" height="1"/></svg>
      <div class="axis-note"><span>← left</span><span>in space</span><span>right →</span></div>
      <svg viewBox="0 0 ${wide} 1.2" aria-hidden="true">${cells(time, long, wide / long, 1.2)}
        <rect class="origin" x="${((Nt - 1) * wide) / long}" y="0" width="${wide / long}" height="1.2"/></svg>
      <div class="axis-note"><span>← earlier</span><span>in time</span><span>later →</span></div></div>
    </figure>`;
}
