/** The whole operator on as many tiles as its larger kernels are for: sampled tiles against the float64 oracle. */

import { parseBenchOptions } from '../../lib/bench/options.js';
import { vsaWorkload } from '../../lib/bench/ops/vsa.js';
import { Findings } from '../../lib/bench/verdict/findings.js';
import { disposeAll } from '../../lib/bench/workload.js';
import { leaveNothingBehind } from '../tensor/support.js';
import { describeGpu, gpu } from './support.js';

describeGpu('many tiles', () => {
  leaveNothingBehind();

  // 64 x 64 x 63 tokens: every 16th tile is partial.
  test('videoSparseAttention, forward and backward, 4,096 tiles', async () => {
    const { cases } = parseBenchOptions({
      ...{ device: gpu.toString(), op: 'vsa', grid: '64x64x63', heads: '1', headDim: '64', topK: '40' },
      ...{ dtype: 'bfloat16', order: 'grid', coarse: 'gate', fineGate: 'on', seed: 3 },
    });
    const [one] = cases;
    expect([cases.length, one!.grid.totalTileCount]).toEqual([1, 4096]);
    const workload = await vsaWorkload({ one: one!, device: gpu, lists: undefined });
    const forward = workload.forward();
    const backward = workload.backward!(forward);
    const findings = new Findings(gpu);
    await workload.judgeBackward!(forward, backward, findings); // the forward, too
    expect(findings.problems).toEqual([]);
    disposeAll(forward);
    disposeAll(backward);
    workload.dispose();
  }, 120_000);
});
