import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { TOKENS_LAYOUT, readTokens, writeTokens } from '../../lib/demo/tokens-file.js';
import { VsaRangeError } from '../../lib/errors.js';
import { writeSafetensors } from '../../lib/files/safetensors.js';
import type { HostArray } from '../../lib/files/host-array.js';
import { failureOf, noiseBytes, temporaryFolder } from './support.js';

const folder = temporaryFolder();
const path = join(folder, 'tokens.safetensors');
const anyShape = () => undefined;
const tokens = noiseBytes(2 * 3 * 4 * 64, 1);
const METADATA = { layout: TOKENS_LAYOUT, source: 'clip.mp4', frames: '5', size: '64x48' };

test('reads what it wrote', async () => {
  await writeTokens(path, { tokens, shape: [2, 3, 4], sourceName: 'clip.mp4' });
  const seen: number[][] = [];
  const read = await readTokens(path, (shape) => seen.push([...shape]));
  expect(read).toEqual({ tokens, shape: [2, 3, 4], sourceName: 'clip.mp4' });
  expect(seen).toEqual([[2, 3, 4]]);
});

test('is a plain safetensors file that says what is in it', async () => {
  await writeTokens(path, { tokens, shape: [2, 3, 4], sourceName: 'clip.mp4' });
  const file = readFileSync(path);
  const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE())).toString()) as Record<string, unknown>;
  expect(header).toMatchObject({ __metadata__: METADATA, tokens: { dtype: 'U8', shape: [2, 3, 4, 64] } });
});

test('a name from a file is fit for a terminal and a page', async () => {
  const array: HostArray = { dtype: 'uint8', shape: [2, 3, 4, 64], data: tokens };
  const source = `a\u001b[2Jb\u202ec\n${'x'.repeat(500)}`;
  await writeSafetensors(path, { tokens: array }, { metadata: { ...METADATA, source } });
  const { sourceName } = await readTokens(path, anyShape);
  expect(sourceName.startsWith('a?[2Jb?c?xxx')).toBe(true);
  expect(sourceName).toHaveLength(200);
});

test.each<[string, string, Partial<HostArray>, Record<string, string>, RegExp]>([
  ['no layout', 'tokens', {}, { layout: '' }, /layout "", wanted layout vsa-patch-tokens/],
  ['another layout', 'tokens', {}, { layout: 'vsa-patch-tokens/9' }, /layout "vsa-patch-tokens\/9"/],
  ['another tensor', 'weights', {}, {}, /no tensor tokens/],
  ['another dtype', 'tokens', { dtype: 'int8' }, {}, /int8 \[2, 3, 4, 64\], wanted uint8 \[T, Y, X, 64\]/],
  ['another rank', 'tokens', { shape: [24, 64] }, {}, /uint8 \[24, 64\]/],
  ['other features', 'tokens', { shape: [2, 3, 8, 32] }, {}, /uint8 \[2, 3, 8, 32\]/],
  ['no tokens', 'tokens', { shape: [0, 3, 4, 64], data: new Uint8Array(0) }, {}, /of at least one token/],
  ['other frames', 'tokens', {}, { frames: '81' }, /frames "81", wanted frames 5/],
  ['another size', 'tokens', {}, { size: '832x480' }, /size "832x480", wanted size 64x48/],
])('refuses %s', async (_name, tensor, array, metadata, sentence) => {
  const data: HostArray = { dtype: 'uint8', shape: [2, 3, 4, 64], data: tokens, ...array };
  await writeSafetensors(path, { [tensor]: data }, { metadata: { ...METADATA, ...metadata } });
  const error = await failureOf(() => readTokens(path, anyShape));
  expect(error).toMatchObject({ code: 'ERR_FILE_FORMAT', argument: 'tokens' });
  expect(error.message).toMatch(sentence);
});

test('refuses a file of other software, a cut one and a missing one', async () => {
  writeFileSync(path, 'a text, and no tensors at all');
  expect((await failureOf(() => readTokens(path, anyShape))).code).toBe('ERR_FILE_FORMAT');
  await writeTokens(path, { tokens, shape: [2, 3, 4], sourceName: 'clip.mp4' });
  truncateSync(path, 400);
  expect((await failureOf(() => readTokens(path, anyShape))).code).toBe('ERR_FILE_FORMAT');
  expect((await failureOf(() => readTokens(join(folder, 'nowhere'), anyShape))).code).toBe('ERR_FILE');
});

test('lets the caller refuse a grid before its tokens are read', async () => {
  await writeTokens(path, { tokens, shape: [2, 3, 4], sourceName: 'clip.mp4' });
  const refuse = () => {
    throw new VsaRangeError({ code: 'ERR_GRID', argument: 'tokens', got: 'it', wanted: 'less' });
  };
  expect((await failureOf(() => readTokens(path, refuse))).code).toBe('ERR_GRID');
});
