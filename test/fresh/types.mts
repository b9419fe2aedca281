// What a TypeScript program sees of the installed package. Compiled, not run.
import { device, Tensor, TileGrid, topK, VsaRangeError, videoSparseAttention } from 'video-sparse-attention';

const grid = new TileGrid({ tokens: [21, 30, 52] });
using q = Tensor.randn([1, grid.length, 12, 128], { device: device(), dtype: 'bfloat16', seed: 1 });
using gate = Tensor.zeros(q.shape, { dtype: 'bfloat16' });
try {
  const { output, saved } = videoSparseAttention.forward({
    q,
    k: q,
    v: q,
    grid,
    topK: topK(grid, { sparsity: 0.9 }),
    coarse: { gate },
  });
  const gradients = videoSparseAttention.backward(saved, { output });
  const dq: Tensor = gradients.q;
  const values: Float32Array = await dq.toFloat32();
  console.log(values.length, output.shape[0]);
  // @ts-expect-error The types are not any.
  output.reshape('flat');
} catch (error) {
  if (error instanceof VsaRangeError) console.error(error.code, error.argument);
}
