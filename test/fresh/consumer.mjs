// What an ES module does with the installed package: named imports of a CommonJS build. Prints a digest.
import { Tensor, TileGrid, denseAttention, device, memory, topK, videoSparseAttention } from 'video-sparse-attention';
import * as vsa from 'video-sparse-attention';
import exercise from './exercise.cjs';

if (topK(new TileGrid({ tokens: '21x30x52' }), { sparsity: 0.9 }) !== 63) throw new Error('topK');
if (vsa.Tensor !== Tensor) throw new Error('two Tensors');
console.log(exercise({ ...vsa, Tensor, TileGrid, denseAttention, device, memory, videoSparseAttention }));
