'use strict';

const { createHash } = require('node:crypto');

/**
 * A use of the installed package with a known answer: when every tile is kept, sparse attention is dense attention,
 * forward and backward. Throws where it is not, or where memory is left behind.
 * @param {typeof import('video-sparse-attention')} vsa
 * @returns {string} a digest of the results, the same on every Node and in every thread of one machine
 */
module.exports = function exercise({ Tensor, TileGrid, denseAttention, device, memory, videoSparseAttention }) {
  const before = memory().numTensors;
  const grid = new TileGrid({ tokens: '5x6x7' });
  const [q, k, v, doutput] = [1, 2, 3, 4].map((seed) =>
    Tensor.randn([1, grid.length, 2, 64], { device: device('cpu'), seed }),
  );
  if (!q || !k || !v || !doutput) throw new Error('unreachable');

  const sparse = videoSparseAttention.forward({ q, k, v, grid, topK: grid.tileCount });
  const dense = denseAttention.forward({ q, k, v });
  const sparseGradients = videoSparseAttention.backward(sparse.saved, { output: doutput });
  const denseGradients = denseAttention.backward(dense.saved, { output: doutput });

  const digest = createHash('sha256');
  for (const [name, a, b] of /** @type {const} */ ([
    ['output', sparse.output, dense.output],
    ['dq', sparseGradients.q, denseGradients.q],
    ['dk', sparseGradients.k, denseGradients.k],
    ['dv', sparseGradients.v, denseGradients.v],
  ])) {
    const [got, wanted] = [a.dataSync(), b.dataSync()];
    digest.update(got);
    for (let i = 0; i < got.length; ++i) {
      const error = Math.abs((got[i] ?? NaN) - (wanted[i] ?? NaN));
      if (!(error < 1e-5)) throw new Error(`${name}[${i}] is ${got[i]}, dense attention has ${wanted[i]}`);
    }
    a.dispose();
    b.dispose();
  }
  for (const owner of [q, k, v, doutput, sparse.saved, dense.saved]) owner.dispose();
  const left = memory().numTensors - before;
  if (left !== 0) throw new Error(`${left} tensors were left behind`);
  return digest.digest('hex').slice(0, 16);
};
