/** Attention over tiles. It is attention over a plain sequence of float32 rows, and judged as such. */

import { coarseAttention } from '../../attention/coarse.js';
import { TileGrid } from '../../attention/grid.js';
import type { Tensor } from '../../tensor/tensor.js';
import type { BenchCase } from '../cases.js';
import {
  compareLseRows,
  compareRows,
  plainGradient,
  type SampledKeys,
  type SampledQueries,
  sampleTiles,
  TokenReference,
} from '../verdict/tokens.js';
import { disposeAll, randomInputs, type Setup, type Workload } from '../workload.js';

type Forward = ReturnType<typeof coarseAttention.forward>;
type Backward = ReturnType<typeof coarseAttention.backward>;

export function coarseWorkload(setup: Setup): Workload<Forward, Backward> {
  const { one } = setup;
  const { B, H, Hkv, D } = one;
  const N = one.grid.totalTileCount;
  const q = [B, N, H, D];
  const kv = [B, N, Hkv, D];
  const tensors = randomInputs(setup, { q, k: kv, v: kv, dOutput: q }, 'float32');
  const { dOutput, ...qkv } = tensors as Record<'q' | 'k' | 'v' | 'dOutput', Tensor>;
  // The tiles as tokens, 64 to a tile.
  const sequence: BenchCase = { ...one, grid: TileGrid.sequence(N), order: 'grid', lists: 'dense' };
  let reference: TokenReference | undefined;
  let queries: SampledQueries[] | undefined;
  let keys: SampledKeys[] | undefined;
  const sampled = async () => {
    reference ??= new TokenReference(sequence, qkv, undefined);
    if (queries !== undefined) return queries;
    const found: SampledQueries[] = [];
    for (const sample of sampleTiles(sequence.grid, B, H)) {
      found.push(await reference.queries(sample, plainGradient(dOutput)));
    }
    return (queries = found);
  };
  const workload: Workload<Forward, Backward> = {
    summary: undefined,
    forward: () => coarseAttention.forward({ ...qkv, backend: one.backend }),
    backward: ({ saved }) => coarseAttention.backward(saved, { output: dOutput }),
    async judgeForward({ output, saved }, findings) {
      const samples = await sampled();
      const wanted = samples.map((each) => ({ ...each, want: each.reference.output }));
      await compareRows(findings, 'output', output, wanted, 'float32', 'block of tiles');
      await compareLseRows(findings, 'lse', saved.lse, samples);
    },
    async judgeBackward({ saved }, grads, findings) {
      await workload.judgeForward({ output: saved.output, saved }, findings);
      const samples = await sampled();
      const dq = samples.map((each) => ({ ...each, want: each.reference.dq!, terms: each.reference.terms }));
      await compareRows(findings, 'dq', grads.q, dq, 'float32', 'block of tiles');
      if (keys === undefined) {
        keys = [];
        for (const sample of sampleTiles(sequence.grid, B, Hkv, 2)) {
          keys.push(await reference!.keys(sample, plainGradient(dOutput), saved));
        }
      }
      for (const [name, tensor] of [['dk', grads.k] as const, ['dv', grads.v] as const]) {
        const wanted = keys.map((each) => ({ ...each, want: each[name], terms: name === 'dk' ? each.terms : 0 }));
        await compareRows(findings, name, tensor, wanted, 'float32', 'block of tiles');
      }
    },
    dispose: () => disposeAll(tensors),
  };
  return workload;
}
