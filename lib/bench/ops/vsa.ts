/** The whole operator. */

import { videoSparseAttention } from '../../attention/vsa.js';
import { hostLists, type ListsSummary, summarize } from '../lists.js';
import { addSmoothFields } from '../smooth.js';
import { type VsaBackward, type VsaForward, VsaJudge, type VsaTensors } from '../verdict/vsa.js';
import { disposeAll, randomInputs, type Setup, type Workload } from '../workload.js';

export async function vsaWorkload(setup: Setup): Promise<Workload<VsaForward, VsaBackward>> {
  const { one } = setup;
  const { B, H, Hkv, D, grid } = one;
  const order = one.order!;
  const q = [B, grid.rows(order), H, D];
  const kv = [B, grid.rows(order), Hkv, D];
  const shapes = {
    ...{ q, k: kv, v: kv, dOutput: q },
    ...(one.coarse === 'gate' && { coarseGate: q }),
    ...(one.fineGate === true && { fineGate: q }),
  };
  const made = randomInputs(setup, shapes, one.dtype as 'bfloat16') as object;
  const tensors = made as VsaTensors;
  if (one.data === 'smooth') {
    try {
      await addSmoothFields(setup, tensors);
    } catch (error) {
      disposeAll(tensors);
      throw error;
    }
  }
  const { coarseGate, fineGate } = tensors;
  const options = {
    ...{ q: tensors.q, k: tensors.k, v: tensors.v, grid, order, topK: one.K!, backend: one.backend },
    ...(coarseGate !== undefined ? { coarse: { gate: coarseGate } } : { coarse: one.coarse as 'skip' | 'add' }),
    ...(fineGate !== undefined && { fine: { gate: fineGate } }),
  };
  const forward = () => videoSparseAttention.forward(options);
  let summary: ListsSummary;
  try {
    const { output, saved } = forward();
    summary = summarize(await hostLists(saved.lists), grid, B * H);
    disposeAll({ output, saved });
  } catch (error) {
    disposeAll(tensors);
    throw error;
  }
  const judge = new VsaJudge(one, tensors);
  return {
    summary,
    forward,
    backward: ({ saved }) => videoSparseAttention.backward(saved, { output: tensors.dOutput }),
    judgeForward: (result, findings) => judge.forward(result, findings),
    judgeBackward: (result, grads, findings) => judge.backward(result, grads, findings),
    dispose: () => disposeAll(tensors),
  };
}
