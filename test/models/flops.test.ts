import { VideoDiT } from '../../lib/models/video-dit.js';
import { failureOf, leaveNothingBehind } from '../tensor/support.js';
import { KINDS, TINY, tinyModel } from './support.js';

leaveNothingBehind();

const sizes = { ...TINY, tokens: [8, 8, 16], channels: 12, width: 128, heads: 2, layers: 3, ffn: 256 } as const;
const [L, N] = [1024, 16];

test('of full attention, by hand', () => {
  using model = new VideoDiT(sizes);
  const weights = 12 * 128 * 2 + 3 * (4 * 128 ** 2 + 2 * 128 * 256);
  const linear = 2 * (2 * (weights * L + 256 * 128 + 7 * 128 ** 2));
  const attention = 2 * 3 * 4 * 2 * 64 * L * L;
  expect(model.flops({ batch: 2 })).toEqual({ linear, attention, coarse: 0, cross: 0, total: linear + attention });
  expect(model.trainingFlops({ batch: 2 }).total).toBe(3 * linear + 3.5 * attention);
});

test('of VSA with everything, by hand', () => {
  const context = { tokens: 7, width: 20 };
  using model = new VideoDiT({ ...sizes, attention: 'vsa', topK: 4, fineGate: true, context });
  const weights = 12 * 128 * 2 + 3 * (6 * 128 ** 2 + 2 * 128 * 256 + 2 * 128 ** 2);
  const perContext = 20 * 128 + 128 ** 2 + 3 * 2 * 128 ** 2;
  const linear = 2 * (weights * L + perContext * 7 + 256 * 128 + 7 * 128 ** 2);
  const attention = 3 * 4 * 128 * L * (4 * 64);
  const coarse = 3 * 4 * 128 * N * N;
  const cross = 3 * 4 * 128 * L * 7;
  expect(model.flops()).toEqual({ linear, attention, coarse, cross, total: linear + attention + coarse + cross });
  expect(model.trainingFlops().total).toBe(3 * linear + 3.5 * (attention + coarse + cross));
  expect(model.flops({ topK: 8 }).attention).toBe(2 * attention);
  model.topK = 16;
  expect(model.flops().attention).toBe(4 * attention);
});

test('without a coarse gate, scores alone', () => {
  using model = new VideoDiT({ ...sizes, attention: 'vsa', topK: 4, coarseGate: false });
  expect(model.flops().coarse).toBe(3 * 2 * 128 * N * N);
  expect(model.trainingFlops().coarse).toBe(3 * 2 * 128 * N * N);
});

test('bad options', async () => {
  using model = tinyModel();
  expect(await failureOf(() => model.flops({ batch: -1 }))).toMatchObject({ argument: 'batch' });
  expect(await failureOf(() => model.flops({ topK: 1 }))).toMatchObject({ argument: 'topK' });
  using sparse = tinyModel(KINDS['VSA']);
  expect(await failureOf(() => sparse.trainingFlops({ topK: 3 }))).toMatchObject({ code: 'ERR_TOP_K' });
});
