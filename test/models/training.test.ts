import { memory, type Tensor, tidy } from '../../lib/index.js';
import type { VideoDiTOptions } from '../../lib/models/config.js';
import { VideoDiT } from '../../lib/models/video-dit.js';
import { meanSquaredError } from '../../lib/nn/functional.js';
import { AdamW } from '../../lib/nn/optim/index.js';
import { leaveNothingBehind } from '../tensor/support.js';
import { fresh } from '../under-test.js';
import { bitsOf, inputsOf, KINDS, TINY } from './support.js';

leaveNothingBehind();

/** Trains a new model on one batch; the losses, and what `after` says after every step. */
function train(
  options: Partial<VideoDiTOptions>,
  steps: number,
  after: (step: number, model: VideoDiT) => void = () => undefined,
): number[] {
  return tidy(() => {
    const model = new VideoDiT({ ...TINY, ...options, seed: 1 });
    const optimizer = new AdamW(model.parameters(), { learningRate: 3e-3 });
    const inputs = inputsOf(model, { batch: 2 });
    const target = fresh.randn([2, 4, 4, 8, 6], { seed: 9, std: 1 }).reshape(inputs.x.shape);
    const losses: number[] = [];
    for (let step = 0; step < steps; step++) {
      tidy(() => {
        const prediction = model.forward(inputs).cast('float32');
        const loss = meanSquaredError({ prediction, target: structured(inputs.x, target) });
        loss.backward();
        losses.push(loss.item());
        optimizer.step();
        optimizer.zeroGrad();
      });
      after(step, model);
    }
    optimizer.dispose();
    return losses;
  });
}

/** What a model can learn from x alone: its negative, and a little noise. */
function structured(x: Tensor, noise: Tensor): Tensor {
  return tidy(() => {
    const [from, by] = [x.cast('float32').dataSync() as Float32Array, noise.dataSync() as Float32Array];
    return fresh.from(
      from.map((value, i) => 0.1 * by[i]! - value),
      x.shape,
    );
  });
}

const TRAINED: Readonly<Record<string, Partial<VideoDiTOptions>>> = {
  'full attention': {},
  VSA: { attention: 'vsa', topK: 1 },
  'VSA in bfloat16': { attention: 'vsa', topK: 1, dtype: 'bfloat16' },
  'VSA with both gates and a context': KINDS['VSA with both gates and a context']!,
};

test.each(Object.entries(TRAINED))('%s: 30 steps on one batch lower the loss to a fifth', (_, options) => {
  const losses = train(options, 30);
  expect(losses[0]).toBeGreaterThan(0.8);
  expect(losses.at(-1)! / losses[0]!).toBeLessThan(0.2);
});

test.each([false, true])('a step leaves nothing behind (checkpointing: %s)', (checkpointing) => {
  const used: object[] = [];
  train({ ...KINDS['VSA with both gates and a context'], checkpointing }, 20, () => used.push(memory()));
  expect(used).toEqual(Array(20).fill(used[0]));
});

test('training twice gives the same bits, and so does checkpointing', () => {
  const runs = [false, false, true].map((checkpointing) => {
    let bits = {};
    const losses = train({ attention: 'vsa', topK: 1, checkpointing }, 5, (step, model) => {
      if (step === 4) bits = bitsOf(model.parameters());
    });
    return { losses, bits };
  });
  expect(runs[1]).toEqual(runs[0]);
  expect(runs[2]).toEqual(runs[0]);
});
