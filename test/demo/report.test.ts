import { Script } from 'node:vm';
import { PNG } from 'pngjs';

import { TileGrid } from '../../lib/index.js';
import { FramePictures, encodePng, picturesOfTokens } from '../../lib/demo/pictures.js';
import { CLIENT_SCRIPT } from '../../lib/demo/report/client.js';
import { encodeShare, pageData, presets, selectedTiles, shownHeads, videoFrames } from '../../lib/demo/report/data.js';
import { selectionOffsets } from '../../lib/attention/offsets.js';
import type { PageData } from '../../lib/demo/report/data.js';
import { bytes, duration, escapeHtml, flops, percent, scriptJson, times } from '../../lib/report/html.js';
import { renderReport } from '../../lib/demo/report/page.js';
import { FIXTURE, inputWith } from './fixture.js';
import { noiseBytes } from './support.js';

const { N, K, heads } = FIXTURE;
const input = inputWith('clip.mp4');
const html = renderReport(input);

describe('the report', () => {
  test('is one file that loads nothing from anywhere', () => {
    const markup = html.replace(/<script>.*?<\/script>/gs, '');
    const links = [...markup.matchAll(/\s(?:src|href|action|data|poster)\s*=\s*["']?([^"'\s>]*)/gi)].map(
      (match) => match[1]!,
    );
    expect(links.length).toBe(9);
    expect(links.filter((link) => !link.startsWith('data:image/png;base64,'))).toEqual([]);
    expect(html).not.toMatch(/@import|url\(|<link|<iframe|fetch\(|XMLHttpRequest|WebSocket/);
    expect(html).toContain("default-src 'none'");
  });

  test('says the headline numbers', () => {
    const text = html
      .replace(/<style>.*<\/style>/s, '')
      .replace(/<[^>]*>/g, ' ')
      .replace(/\s+/g, ' ');
    for (const part of [
      'clip.mp4',
      'Tiles left out 72 %',
      'Dense attention held 72 %',
      'Faster than dense 8.0×',
      'Fewer operations 4.0×',
    ]) {
      expect(text).toContain(part);
    }
  });

  test('a hostile name stays text', () => {
    const name = `</title><script>alert(1)</script><img src=x onerror='x'>"&`;
    const page = renderReport(inputWith(name));
    expect(page).not.toContain('<script>alert');
    expect(page).not.toContain('<img src=x');
    expect(page).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
  });

  test('shows without its script which tiles the opening query tile selects', () => {
    const { head, tile } = pageData(input).opening;
    const rectangles = [...html.matchAll(/<rect data-tile="(\d+)"[^>]*class="([^"]*)"/g)];
    expect(rectangles.map((match) => Number(match[1]))).toEqual(Array.from({ length: N }, (_, at) => at));
    const on = rectangles.filter((match) => match[2]!.split(' ').includes('on')).map((match) => Number(match[1]));
    const row = head * N + tile;
    expect(on).toEqual([...input.measurement.lists.subarray(row * K, (row + 1) * K)]);
    const query = rectangles.filter((match) => match[2]!.split(' ').includes('query')).map((match) => Number(match[1]));
    expect(query).toEqual([tile]);
  });

  test('has every latent frame as a picture with a text, one of each layer to be seen', () => {
    const images = [
      ...html.matchAll(/<img src="data:image\/png;base64,([^"]+)" alt="([^"]+)" data-frame="(\d+)"( hidden)?>/g),
    ];
    expect(images.map((match) => Number(match[3]))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(images.filter((match) => match[4] === undefined)).toHaveLength(3);
    expect(images[4]![2]).toBe('Latent frame 4 of clip.mp4');
    const png = PNG.sync.read(Buffer.from(images[4]![1]!, 'base64'));
    expect([png.width, png.height]).toEqual([40, 24]);
  });

  test('carries the lists and masses of the measurement', () => {
    const json = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(html)![1]!;
    const data = JSON.parse(json) as PageData;
    const array = (text: string) => Uint8Array.from(Buffer.from(text, 'base64'));
    expect([...new Uint16Array(array(data.lists).buffer)]).toEqual([...input.measurement.lists]);
    expect([...array(data.mass)]).toEqual(Array.from({ length: heads * N * N }, () => encodeShare(1 / N)));
    expect([...new Float32Array(array(data.held.vsa).buffer)]).toEqual([...input.measurement.vsa.held]);
    expect(data).toMatchObject({ tokens: [9, 6, 10], tileCounts: [3, 2, 3], topK: K });
  });

  test('has a script that parses', () => {
    expect(() => new Script(CLIENT_SCRIPT)).not.toThrow();
  });
});

describe('what the report is made of', () => {
  test('presets are different tiles of the grid', () => {
    const tiles = presets(input).map(({ tile }) => tile);
    expect(new Set(tiles).size).toBe(tiles.length);
    expect(tiles.every((tile) => tile >= 0 && tile < N)).toBe(true);
  });

  test('offsets are shares of all pairs of tiles at that distance', () => {
    const { time, space } = selectionOffsets(input.grid, (query) => selectedTiles(input, 1, query));
    const place = (tile: number) => [Math.floor(tile / 6), Math.floor(tile / 3) % 2, tile % 3];
    const share = (matches: (d: number[]) => boolean) => {
      let [pairs, selected] = [0, 0];
      for (let query = 0; query < N; query++) {
        const list = input.measurement.lists.subarray((N + query) * K, (N + query + 1) * K);
        for (let key = 0; key < N; key++) {
          if (!matches(place(key).map((at, axis) => at - place(query)[axis]!))) continue;
          pairs++;
          if (list.includes(key)) selected++;
        }
      }
      return selected / pairs;
    };
    expect(time).toHaveLength(5);
    time.forEach((value, at) =>
      expect(value).toBeCloseTo(
        share(([dt]) => dt === at - 2),
        12,
      ),
    );
    expect(space).toHaveLength(3 * 5);
    space.forEach((value, at) => {
      const [dy, dx] = [Math.floor(at / 5) - 1, (at % 5) - 2];
      expect(value).toBeCloseTo(
        share((d) => d[1] === dy && d[2] === dx),
        12,
      );
    });
  });

  test('a page shows as many heads as fit', () => {
    expect(shownHeads(input)).toBe(4);
    const large = new TileGrid({ tokens: [21, 45, 80] });
    expect(shownHeads({ ...input, grid: large })).toBe(1);
  });

  test('latent frames are frame 0, then four frames each', () => {
    expect([videoFrames(0, 0), videoFrames(0, 3), videoFrames(4, 7), videoFrames(20, 20)]).toEqual([
      [0, 0],
      [0, 12],
      [13, 28],
      [77, 80],
    ]);
  });

  test('pictures of frames: one a latent frame, scaled down by whole factors', () => {
    const pictures = new FramePictures(1024, 16);
    const frame = new Uint8Array(1024 * 16 * 3);
    for (let f = 0; f < 9; f++) pictures.push(frame.fill(f * 10), f);
    expect(pictures.pictures.map(({ width, height, rgb }) => [width, height, rgb[0]])).toEqual([
      [256, 4, 0],
      [256, 4, 30],
      [256, 4, 70],
    ]);
  });

  test('pictures of tokens hold the mean colour of every quadrant', () => {
    const tokens = noiseBytes(2 * 64, 4); // two tokens side by side
    const [picture] = picturesOfTokens(tokens, [1, 1, 2]);
    const pixel = (x: number, y: number) => [...picture!.rgb.subarray((y * 8 + x) * 3, (y * 8 + x) * 3 + 3)];
    expect([picture!.width, picture!.height]).toEqual([8, 4]);
    expect(pixel(0, 0)).toEqual([...tokens.subarray(0, 3)]);
    expect(pixel(3, 0)).toEqual([...tokens.subarray(16 + 3, 16 + 6)]); // cell (0, 1), quadrant (0, 1)
    expect(pixel(4, 3)).toEqual([...tokens.subarray(64 + 32 + 6, 64 + 32 + 9)]); // token 1, cell (1, 0), quadrant (1, 0)
  });

  test('a PNG keeps colours to 64 steps', () => {
    const rgb = noiseBytes(8 * 8 * 3, 5);
    const png = PNG.sync.read(encodePng({ width: 8, height: 8, rgb }));
    rgb.forEach((value, at) => {
      const pixel = png.data[Math.floor(at / 3) * 4 + (at % 3)]!;
      expect(Math.abs(pixel - value)).toBeLessThanOrEqual(2);
    });
  });

  test('numbers as people read them', () => {
    expect([percent(0.8412), percent(0.8412, 0), times(15.24), times(240.4)]).toEqual([
      '84.1 %',
      '84 %',
      '15.2×',
      '240×',
    ]);
    expect([duration(0.1234), duration(195.4), duration(2970), duration(123_456)]).toEqual([
      '0.12 ms',
      '195 ms',
      '2.97 s',
      '123 s',
    ]);
    expect([bytes(1234), bytes(33_725_668), bytes(2.5e9)]).toEqual(['1.2 kB', '33.7 MB', '2.50 GB']);
    expect([flops(5e6), flops(68.7e9), flops(1.1e12)]).toEqual(['5.0 MFLOP', '68.7 GFLOP', '1.10 TFLOP']);
  });

  test('text and JSON cannot leave their place', () => {
    expect(escapeHtml(`<a b="c" d='e'>&`)).toBe('&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;');
    expect(scriptJson({ text: '</script><!--' })).toBe('{"text":"\\u003c/script>\\u003c!--"}');
  });
});
