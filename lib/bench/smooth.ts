/** Inputs of which neighbouring tiles select alike, as those of a video do: noise plus a smooth field over the grid. */

import type { TileGrid } from '../attention/grid.js';
import { tile } from '../attention/tiling.js';
import { device as deviceOf } from '../device/device.js';
import { linear } from '../nn/ops/linear.js';
import { combine } from '../tensor/arithmetic.js';
import { tidy } from '../tensor/scope.js';
import { Tensor } from '../tensor/tensor.js';
import type { Setup } from './workload.js';

/**
 * Set once: with these, neighbouring rows share 50 +- 5 % of their lists at 90 % sparsity (87.5 % on 16x32x32), from 256
 * to 624 tiles. The field has variance 1 and the correlation exp(-d^2 / (2 LENGTH^2)) at a distance of d tokens.
 */
const AMPLITUDE = 0.5;
const LENGTH = 5.25;
/** Waves that the field is made of: the same ones for every seed, for they say how far neighbours are alike. */
const WAVES = 32;
const WAVES_SEED = 66_536n;

/** Streams of random numbers apart from those of the inputs themselves. */
const FIRST_STREAM = 1000n;

/** Cosines and sines of the waves at every token, `[tokens, 2 WAVES]`; 0 in the prefix. */
async function wavesOf(grid: TileGrid): Promise<Tensor> {
  using numbers = Tensor.randn([WAVES, 3], { device: 'cpu', dtype: 'float32', seed: WAVES_SEED });
  const waves = (await numbers.data()) as Float32Array;
  const [T, Y, X] = grid.tokens as [number, number, number];
  const values = new Float32Array(grid.length * 2 * WAVES);
  let at = grid.prefix * 2 * WAVES;
  for (let t = 0; t < T; t++) {
    for (let y = 0; y < Y; y++) {
      for (let x = 0; x < X; x++, at += 2 * WAVES) {
        for (let wave = 0; wave < WAVES; wave++) {
          const [kt, ky, kx] = waves.subarray(3 * wave, 3 * wave + 3) as unknown as [number, number, number];
          const phase = (kt * t + ky * y + kx * x) / LENGTH;
          values[at + wave] = Math.cos(phase);
          values[at + WAVES + wave] = Math.sin(phase);
        }
      }
    }
  }
  return Tensor.from(values, [grid.length, 2 * WAVES], { device: 'cpu' });
}

/**
 * Replaces q and k: noise plus a field of its own for each, made on the CPU, so that every device gets the
 * same numbers.
 */
export async function addSmoothFields(
  { one, device }: Pick<Setup, 'one' | 'device'>,
  tensors: { q: Tensor; k: Tensor },
): Promise<void> {
  const { grid, B, D } = one;
  const seed = BigInt(one.seed) * 65_536n + FIRST_STREAM;
  using waves = await wavesOf(grid);
  for (const [stream, name] of (['q', 'k'] as const).entries()) {
    const { dtype } = tensors[name];
    const heads = tensors[name].shape[2]!;
    const made = tidy(() => {
      const cpu = deviceOf('cpu');
      const own = seed + BigInt(2 * stream + 1);
      const weight = Tensor.randn([heads * D, 2 * WAVES], {
        ...{ device: cpu, dtype: 'float32', std: AMPLITUDE / Math.sqrt(WAVES), seed: own },
      });
      const field = linear.forward({ x: waves, weight }).output;
      const noise = Tensor.randn([B, grid.length, heads, D], { device: cpu, dtype: 'float32', seed: own + 1n });
      const sum = combine(noise, 1, field).cast(dtype);
      const ordered = one.order === 'tiled' ? tile.forward({ x: sum, grid }).output : sum;
      return device.type === 'cpu' ? ordered : ordered.to(device);
    });
    tensors[name].dispose();
    tensors[name] = made;
  }
}
