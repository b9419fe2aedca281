/**
 * Trains a small video diffusion transformer on moving shapes, from the parts: `npx tsx examples/train.ts`, or compile
 * it. `vsa train` is the same with checkpoints, a log and a report.
 */

import {
  ClipLoader,
  device,
  eulerSample,
  interpolate,
  MovingShapes,
  nn,
  patchGrid,
  Tensor,
  tidy,
  trainingTimes,
  unpatchify,
  VideoDiT,
  writeGif,
} from 'video-sparse-attention';

async function main(): Promise<void> {
  const STEPS = 200;
  const seed = 1;
  const shape = [8, 64, 64] as const; // frames, height, width
  const { tokens, channels, patch } = patchGrid({ shape, patch: [1, 8, 8] });
  const on = device(); // the first GPU, or the CPU

  const model = new VideoDiT({
    ...{ tokens, channels, width: 128, heads: 2, layers: 4, seed, device: on },
    ...{ attention: 'vsa', sparsity: 0.5, fineGate: true },
  });
  const optimizer = new nn.AdamW(model.parameters(), { betas: [0.9, 0.95] });
  const rate = nn.warmupCosine({ peak: 1e-3, warmup: 20, steps: STEPS });
  const loader = new ClipLoader({
    source: new MovingShapes({ seed, frames: shape[0], height: shape[1], width: shape[2] }),
    batchSize: 1,
    patch,
  });

  for (let step = 0; step < STEPS; step++) {
    const clips = await loader.next();
    // Everything made inside is given back; the loss is returned and lives on.
    const loss = tidy(() => {
      const data = Tensor.from(clips.tokens, clips.shape, { device: on });
      const noise = Tensor.randn(clips.shape, { seed: step, device: on });
      const times = trainingTimes({ seed, step, count: clips.shape[0] });
      const { noisy, target } = interpolate({ data, noise, times });
      const loss = nn.meanSquaredError({ prediction: model.forward({ x: noisy, times }), target });
      loss.backward();
      const norm = nn.gradientNorm(model.parameters(), { maxNorm: 1 });
      optimizer.step({ learningRate: rate(step), gradientScale: norm });
      optimizer.zeroGrad();
      return loss.detach();
    });
    if (step % 20 === 0) console.log(`step ${step}: loss ${loss.item().toFixed(4)}`);
    loss.dispose();
  }
  await loader.close();

  const sample = tidy(() => {
    const noise = Tensor.randn([1, model.grid.length, channels], { seed, device: on });
    return eulerSample({ velocity: (x, times) => model.forward({ x, times }), noise, steps: 30 });
  });
  const frames = unpatchify({ tokens: (await sample.data()) as Float32Array, shape, patch });
  await writeGif('sample.gif', { frames, shape, scale: 4 });
  sample.dispose();
  optimizer.dispose();
  model.dispose();
}

void main();
