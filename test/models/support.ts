/** What the suites of models share: tiny models of every kind, with values in all their parameters. */
import { type DType, Tensor, tidy } from '../../lib/index.js';
import type { VideoDiTOptions } from '../../lib/models/config.js';
import { VideoDiT, type VideoDiTInputs } from '../../lib/models/video-dit.js';
import { parameterSeed } from '../../lib/nn/initialization.js';
import { fresh, here } from '../under-test.js';

/** Two tiles of 64 tokens. */
export const TINY = {
  ...{ tokens: [4, 4, 8], channels: 6, width: 64, heads: 1, layers: 2, ffn: 96, attention: 'full', device: here },
} satisfies VideoDiTOptions;

const CONTEXT = { tokens: 5, width: 24 };

/** Every kind of model. */
export const KINDS: Readonly<Record<string, Partial<VideoDiTOptions>>> = {
  'full attention': {},
  'full attention with a context': { context: CONTEXT },
  VSA: { attention: 'vsa', topK: 1 },
  'VSA without gates': { attention: 'vsa', topK: 1, coarseGate: false },
  'VSA with both gates and a context': { attention: 'vsa', topK: 1, fineGate: true, context: CONTEXT },
};

/** A tiny model, every parameter random: none is 0, as the head of a new one. */
export function tinyModel(options: Partial<VideoDiTOptions> = {}, seed = 1): VideoDiT {
  const model = new VideoDiT({ ...TINY, ...options });
  tidy(() => {
    for (const [name, tensor] of model.parameters()) {
      const isNorm = /norm\w*\.weight$/i.test(name);
      const std = tensor.rank === 1 || name.includes('modulation') ? 0.2 : 1.5 / Math.sqrt(tensor.shape[1]!);
      const drawn = fresh.randn(tensor.shape, { seed: parameterSeed(seed, name), std, mean: isNorm ? 1 : 0 });
      tensor.copyFrom(drawn);
    }
  });
  return model;
}

/** Random inputs of a model; theirs to dispose who asks. */
export function inputsOf(
  model: VideoDiT,
  { batch = 1, seed = 1, dtype = 'float32' }: { batch?: number; seed?: number; dtype?: DType } = {},
): VideoDiTInputs {
  const { channels, context } = model.config;
  const x = fresh.randn([batch, model.grid.length, channels], { seed: 100 + seed, dtype });
  const times = Array.from({ length: batch }, (_, b) => (0.3 + 0.45 * b) % 1);
  if (context === undefined) return { x, times };
  return { x, times, context: fresh.randn([batch, context.tokens, context.width], { seed: 200 + seed, dtype }) };
}

/** Numbers of a tensor, whatever its dtype. */
export function numbersOf(tensor: Tensor): Float32Array {
  return tidy(() => tensor.detach().cast('float32').dataSync() as Float32Array);
}

/** The bits of tensors by name. */
export function bitsOf(tensors: ReadonlyMap<string, Tensor>): Record<string, string> {
  const bits: Record<string, string> = {};
  for (const [name, tensor] of tensors) {
    const data = tensor.dataSync();
    bits[name] = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');
  }
  return bits;
}

/** The gradients of a model's parameters by name. */
export function gradientsOf(model: VideoDiT): Map<string, Tensor> {
  const found = new Map<string, Tensor>();
  for (const [name, { grad }] of model.parameters()) {
    if (grad === undefined) throw new Error(`${name} has no gradient`);
    found.set(name, grad);
  }
  return found;
}

export function relativeL2(got: ArrayLike<number>, wanted: ArrayLike<number>): number {
  let [error, size] = [0, 0];
  for (let i = 0; i < wanted.length; i++) {
    error += (got[i]! - wanted[i]!) ** 2;
    size += wanted[i]! ** 2;
  }
  return Math.sqrt(error / size);
}
