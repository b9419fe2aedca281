import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { pageData } from '../../lib/demo/report/data.js';
import { renderReport } from '../../lib/demo/report/page.js';
import { openPage } from './browser-page.js';
import type { Page } from './browser-page.js';
import { FIXTURE, inputWith } from './fixture.js';
import { browser, temporaryFolder, testWithBrowser } from './support.js';

const { N, K } = FIXTURE;
const folder = temporaryFolder();
const input = inputWith('clip.mp4');
const opening = pageData(input).opening;
let page: Page | undefined;

beforeAll(async () => {
  if (browser === undefined) return;
  const path = join(folder, 'report.html');
  writeFileSync(path, renderReport(input));
  page = await openPage(browser, path);
});
afterAll(() => page?.close());

const SEEN = `({
  selected: [...document.querySelectorAll('.strip rect.on')].map((r) => Number(r.dataset.tile)),
  query: [...document.querySelectorAll('.strip rect.query')].map((r) => Number(r.dataset.tile)),
  stage: [...document.querySelectorAll('#stage rect')].map((r) => Number(r.dataset.tile)),
  frame: Number(document.querySelector('#frame').value),
  text: document.querySelector('#readout').textContent,
})`;
interface Seen {
  selected: number[];
  query: number[];
  stage: number[];
  frame: number;
  text: string;
}

/** Does something in the page, and says what a reader then sees. */
async function after(script: string): Promise<Seen> {
  return (await page!.evaluate(`(() => { ${script}; return ${SEEN}; })()`)) as Seen;
}
const key = (name: string) =>
  `document.querySelector('#stage').dispatchEvent(new KeyboardEvent('keydown', { key: '${name}' }))`;
const click = (selector: string) =>
  `document.querySelector('${selector}').dispatchEvent(new MouseEvent('click', { bubbles: true }))`;
const list = (head: number, tile: number) => [
  ...input.measurement.lists.subarray((head * N + tile) * K, (head * N + tile + 1) * K),
];

testWithBrowser('the page opens with its opening view, and without an error', async () => {
  const seen = await after('');
  expect(seen).toMatchObject({ selected: list(opening.head, opening.tile), query: [opening.tile] });
  expect(page!.errors()).toEqual([]);
});

testWithBrowser('a click on a tile of the stage makes it the query', async () => {
  await after(click('.strip li:nth-child(2) rect[data-tile="7"]'));
  const seen = await after(click('#stage rect[data-tile="10"]'));
  expect(seen).toMatchObject({ selected: list(opening.head, 10), query: [10], stage: [6, 7, 8, 9, 10, 11] });
  expect(seen.text).toContain('t 1, y 1, x 1');
});

testWithBrowser('another head shows its own selection and its own numbers', async () => {
  const seen = await after(click('input[name=head][value="1"]'));
  expect(seen).toMatchObject({ selected: list(1, 10), query: [10] });
  const held = input.measurement.vsa.held[N + 10]!;
  expect(seen.text).toContain(`selected${(held * 100).toFixed(1)} %`);
});

testWithBrowser('arrow and page keys move the query tile and stop at the edges', async () => {
  expect((await after(key('ArrowLeft'))).query).toEqual([9]);
  expect((await after(key('ArrowLeft'))).query).toEqual([9]);
  expect((await after(key('ArrowUp'))).query).toEqual([6]);
  expect((await after(key('PageDown'))).query).toEqual([12]);
  expect((await after(key('PageDown'))).query).toEqual([12]);
  expect((await after(key('PageUp'))).query).toEqual([6]);
  expect((await after(key('a'))).query).toEqual([6]);
});

testWithBrowser('the time slider changes the frame, not the query', async () => {
  const seen = await after(
    `const s = document.querySelector('#frame'); s.value = 8; s.dispatchEvent(new Event('input'))`,
  );
  expect(seen).toMatchObject({ query: [6], frame: 8, stage: [12, 13, 14, 15, 16, 17] });
  const picture = await page!.evaluate(`document.querySelector('#stage-picture').alt`);
  expect(picture).toBe('Latent frame 8 of clip.mp4');
});

testWithBrowser('presets go to their tiles', async () => {
  const target = Number(await page!.evaluate(`document.querySelector('button[data-query]').dataset.query`));
  expect((await after(click('button[data-query]'))).query).toEqual([target]);
});

testWithBrowser('dense attention shows where its mass lies', async () => {
  await after(click('input[name=mode][value=dense]'));
  expect(await page!.evaluate(`document.querySelector('.layer-held').textContent`)).toBe('33 % of the mass');
  expect(await page!.evaluate(`document.querySelector('#explorer').className`)).toBe('mode-dense');
  await after(click('input[name=mode][value=selected]'));
});

testWithBrowser('nothing on the way was an error', () => {
  expect(page!.errors()).toEqual([]);
});
