/** The moving pictures of the page: a clip is a strip of its frames as PNG, and the style sheet moves it. */
import { framePixels } from '../../../media/shape.js';
import { escapeHtml } from '../../../report/html.js';
import type { TrainSettings } from '../../../train/settings.js';
import { encodePng } from '../../pictures.js';
import type { Frames, Likeness } from '../held-out.js';
import type { TrainingReport, View } from './data.js';

/** Frames a second, slow enough to be looked at. */
const FPS = 8;

/** Shows one frame of a strip at a time, all strips the same one; the first alone to who wants no motion. */
export function pictureStyles({ video: [frames, height, width] }: TrainSettings): string {
  const seconds = (frames / FPS).toFixed(3);
  return `
.clip { display: block; overflow: hidden; border-radius: 6px; aspect-ratio: ${width} / ${height}; }
.clip img { display: block; width: ${frames * 100}%; max-width: none; height: 100%; image-rendering: pixelated;
  animation: film ${seconds}s steps(${frames}) infinite; }
@keyframes film { to { transform: translateX(-100%); } }
@media (prefers-reduced-motion: reduce) { .clip img { animation: none; } }
.denoising { overflow-x: auto; }
.denoising table { min-width: 760px; table-layout: fixed; }
.denoising th, .denoising td { text-align: center; padding: 4px 5px; border: 0; }
.denoising th[colspan] { border-bottom: 2px solid var(--line); }
.denoising tfoot { color: var(--muted); }
.samples.small { grid-template-columns: repeat(auto-fill, minmax(min(150px, 44%), 1fr)); }
`;
}

function picture(frames: Frames, { video }: TrainSettings, alt: string): string {
  const [count, height, width] = video;
  const rgb = new Uint8Array(frames.length);
  const row = width * 3;
  for (let frame = 0; frame < count; frame++) {
    const pixels = framePixels({ frames, shape: video, scale: 1, channels: 3, height, width }, frame);
    for (let y = 0; y < height; y++) rgb.set(pixels.subarray(y * row, (y + 1) * row), (y * count + frame) * row);
  }
  const png = encodePng({ width: count * width, height, rgb }).toString('base64');
  return `<span class="clip"><img src="data:image/png;base64,${png}" alt="${escapeHtml(alt)}"></span>`;
}

/** One `figure` a sample. */
export function samplePictures({ samples, settings }: TrainingReport): string {
  return samples
    .map((frames, at) => `<figure>${picture(frames, settings, `Clip ${String(at + 1)} drawn from noise`)}</figure>`)
    .join('');
}

/** A row a held-out clip: the clip, then for every time the clip with noise and what the model made of it. */
export function denoisingTable({ clips, views, settings }: TrainingReport): string {
  const columns = views.flatMap(({ noisy, before, after }: View): Likeness[] => [noisy, before, after]);
  const names = views.flatMap(({ time }) =>
    ['with noise', 'made of it before training', 'made of it after training'].map(
      (name) => `${name}, time ${String(time)}`,
    ),
  );
  const cell = (frames: Frames, name: string, row: number) =>
    `<td>${picture(frames, settings, `Clip ${String(row + 1)}, ${name}`)}</td>`;
  const rows = clips.map((clip, row) => {
    const made = columns.map(({ clips: all }, at) => cell(all[row]!, names[at]!, row));
    return `<tr>${cell(clip, 'as it is', row)}${made.join('')}</tr>`;
  });
  const times = views.map(({ time }) => `<th scope="colgroup" colspan="3">time ${String(time)}</th>`).join('');
  const heads = views.map(() =>
    ['with noise', 'untrained', 'trained'].map((name) => `<th scope="col">${name}</th>`).join(''),
  );
  const errors = columns.map(({ error }) => `<td>${error.toFixed(3)}</td>`).join('');
  return `<div class="denoising"><table>
    <thead><tr><th></th>${times}</tr><tr><th scope="col">clip</th>${heads.join('')}</tr></thead>
    <tbody>${rows.join('\n')}</tbody>
    <tfoot><tr><th scope="row">squared error</th>${errors}</tr></tfoot></table></div>`;
}
