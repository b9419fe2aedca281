/** The moving pictures of the page: every clip is a GIF inside it. */
import { gifBytes } from '../../../media/gif.js';
import { escapeHtml } from '../../../report/html.js';
import type { TrainSettings } from '../../../train/settings.js';
import type { Frames, Likeness } from '../held-out.js';
import type { TrainingReport, View } from './data.js';

/** Frames a second, slow enough to be looked at. */
const FPS = 8;

/** An `img` element; the browser makes its pixels large. */
async function picture(frames: Frames, { video }: TrainSettings, alt: string): Promise<string> {
  const gif = await gifBytes({ frames, shape: video, fps: FPS });
  const [, height, width] = video;
  const data = `data:image/gif;base64,${gif.toString('base64')}`;
  return `<img src="${data}" width="${String(width)}" height="${String(height)}" alt="${escapeHtml(alt)}">`;
}

/** One `figure` a sample. */
export async function samplePictures({ samples, settings }: TrainingReport): Promise<string> {
  const images = samples.map((frames, at) => picture(frames, settings, `Clip ${String(at + 1)} drawn from noise`));
  return (await Promise.all(images)).map((image) => `<figure>${image}</figure>`).join('');
}

/** A row a held-out clip: the clip, then for every time the clip with noise and what the model made of it. */
export async function denoisingTable({ clips, views, settings }: TrainingReport): Promise<string> {
  const columns = views.flatMap(({ noisy, before, after }: View): Likeness[] => [noisy, before, after]);
  const names = views.flatMap(({ time }) =>
    ['with noise', 'made of it before training', 'made of it after training'].map(
      (name) => `${name}, time ${String(time)}`,
    ),
  );
  const cell = async (frames: Frames, name: string, row: number) =>
    `<td>${await picture(frames, settings, `Clip ${String(row + 1)}, ${name}`)}</td>`;
  const rows = clips.map(async (clip, row) => {
    const made = columns.map(({ clips: all }, at) => cell(all[row]!, names[at]!, row));
    return `<tr>${(await Promise.all([cell(clip, 'as it is', row), ...made])).join('')}</tr>`;
  });
  const times = views.map(({ time }) => `<th scope="colgroup" colspan="3">time ${String(time)}</th>`).join('');
  const heads = views.map(() =>
    ['with noise', 'untrained', 'trained'].map((name) => `<th scope="col">${name}</th>`).join(''),
  );
  const errors = columns.map(({ error }) => `<td>${error.toFixed(3)}</td>`).join('');
  return `<div class="denoising"><table>
    <thead><tr><th></th>${times}</tr><tr><th scope="col">clip</th>${heads.join('')}</tr></thead>
    <tbody>${(await Promise.all(rows)).join('\n')}</tbody>
    <tfoot><tr><th scope="row">squared error</th>${errors}</tr></tfoot></table></div>`;
}
