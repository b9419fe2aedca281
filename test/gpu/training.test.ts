/** The same run on the CPU and on the GPU: the same curve, but for roundings. */

import { MovingShapes } from '../../lib/data/index.js';
import type { Device } from '../../lib/device/device.js';
import { patchify } from '../../lib/index.js';
import { parseTrainOptions, type TrainOptions } from '../../lib/train/settings.js';
import { Trainer } from '../../lib/train/trainer.js';
import { cpu, describeGpu, gpu } from './support.js';

const STEPS = 30;
const SMALL = {
  ...{ video: [4, 64, 64], patch: [1, 8, 8], width: 128, heads: 2, layers: 2, steps: STEPS, warmup: 5 },
  learningRate: 1e-3,
} as const satisfies TrainOptions;

async function losses(options: TrainOptions, device: Device): Promise<number[]> {
  const settings = parseTrainOptions({ ...SMALL, ...options });
  const [frames, height, width] = settings.video;
  const source = new MovingShapes({ seed: 1, frames, height, width });
  using trainer = new Trainer(settings, device);
  const curve: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    const clip = await source.clip(step);
    const tokens = patchify({ frames: clip, shape: settings.video, patch: settings.patch });
    const { loss, norm } = trainer.step(tokens, step);
    curve.push((await loss.data())[0]!);
    loss.dispose();
    norm.dispose();
  }
  return curve;
}

describeGpu('training', () => {
  // Of sparse attention a rounding may change which tiles are kept.
  test.each([
    ['full', 'float32', 2e-3],
    ['vsa', 'float32', 2e-2],
    ['full', 'bfloat16', 2e-2],
    ['vsa', 'bfloat16', 4e-2],
  ] as const)("attention '%s' in %s: the curve of the CPU", async (attention, dtype, room) => {
    const [wanted, got] = [await losses({ attention, dtype }, cpu), await losses({ attention, dtype }, gpu)];
    const apart = wanted.map((loss, i) => Math.abs(got[i]! - loss) / loss);
    expect(Math.max(...apart)).toBeLessThan(room);
    expect(got.at(-1)!).toBeLessThan(0.97 * got[0]!);
  });
});
