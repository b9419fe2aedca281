/** A real clip, where the checkout has one beside it: trained on, and sampled from. */

import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { loadSampler, sampleClip } from '../../lib/train/sample.js';
import { testWithFfmpeg } from '../demo/support.js';
import { here } from '../under-test.js';
import { checkpointOf, rowsOf, run, SMALL, temporaryFolder } from './support.js';

const SHARED = resolve(__dirname, '../../../shared/data');
const CLIP = 'ride-832x480-81f.mp4';
const testWithClip = existsSync(join(SHARED, CLIP)) ? testWithFfmpeg : test.skip;
const folder = temporaryFolder();

testWithClip(`${CLIP} of ../shared/data trains and samples`, async () => {
  const out = join(folder, 'ride');
  await run(out, { ...SMALL, data: SHARED, steps: 20 });
  const losses = rowsOf(out).map(({ loss }) => loss);
  expect(losses).toHaveLength(20);
  expect(Math.max(...losses.slice(-5))).toBeLessThan(losses[0]!);
  const sampler = await loadSampler(checkpointOf(out), here);
  try {
    const frames = await sampleClip(sampler.model, sampler.settings, { seed: 1, steps: 4, shift: 1 });
    expect(frames).toHaveLength(4 * 64 * 64 * 3);
    expect(frames.every(Number.isFinite)).toBe(true);
  } finally {
    sampler[Symbol.dispose]();
  }
});
