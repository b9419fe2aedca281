/** Fine attention by lists, and dense attention. */

import { blockSparseAttention, denseAttention } from '../../attention/fine.js';
import { TileLists } from '../../attention/lists.js';
import { tidy } from '../../tensor/scope.js';
import type { Tensor } from '../../tensor/tensor.js';
import { type HostLists, summarize } from '../lists.js';
import type { Findings } from '../verdict/findings.js';
import {
  checkPadding,
  compareLseRows,
  compareRows,
  plainGradient,
  type SampledKeys,
  type SampledQueries,
  sampleTiles,
  TokenReference,
} from '../verdict/tokens.js';
import { disposeAll, randomInputs, type Setup, type Workload } from '../workload.js';

type Forward = ReturnType<typeof blockSparseAttention.forward>;
type Backward = ReturnType<typeof blockSparseAttention.backward>;

/** Lists of a case on its device; full ones where there are none on the host. */
export function deviceLists({ one, device, lists }: Setup): TileLists {
  const N = one.grid.totalTileCount;
  const shape = { batch: one.B, heads: one.H, queryTiles: N, keyTiles: N };
  if (lists === undefined) return TileLists.full(shape, { device });
  // Lists that the device has not made itself are checked there by every operation. Transposing them twice makes them
  // the device's own, as those of a selection are.
  return tidy(() => TileLists.from(lists, shape, { device }).transpose().transpose());
}

export function attentionWorkload(setup: Setup): Workload<Forward, Backward> {
  const { one } = setup;
  const { B, H, Hkv, D, grid } = one;
  const order = one.order!;
  const rows = grid.rows(order);
  const q = [B, rows, H, D];
  const kv = [B, rows, Hkv, D];
  const tensors = randomInputs(setup, { q, k: kv, v: kv, dOutput: q }, one.dtype as 'bfloat16') as Inputs;
  let lists: TileLists;
  try {
    lists = deviceLists(setup);
  } catch (error) {
    disposeAll(tensors);
    throw error;
  }
  const { dOutput, ...qkv } = tensors;
  const options = { ...qkv, grid, order, backend: one.backend };
  const judge = new Judge(setup, tensors);
  return {
    summary: summarize(setup.lists, grid, B * H),
    forward: () =>
      one.op === 'dense' ? denseAttention.forward(options) : blockSparseAttention.forward({ ...options, lists }),
    backward: ({ saved }) =>
      (one.op === 'dense' ? denseAttention : blockSparseAttention).backward(saved, { output: dOutput }),
    judgeForward: (forward, findings) => judge.forward(forward, findings),
    judgeBackward: (forward, backward, findings) => judge.backward(forward, backward, findings),
    dispose: () => {
      disposeAll(tensors);
      lists.dispose();
    },
  };
}

interface Inputs extends Record<string, Tensor> {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  dOutput: Tensor;
}

class Judge {
  readonly #setup: { one: Setup['one']; lists: HostLists | undefined };
  #reference: TokenReference | undefined;
  #queries: SampledQueries[] | undefined;
  #keys: SampledKeys[] | undefined;

  constructor(
    setup: Setup,
    readonly tensors: Inputs,
  ) {
    this.#setup = setup;
  }

  async forward({ output, saved }: Forward, findings: Findings): Promise<void> {
    const reference = this.#tokens();
    const samples = await this.#sampledQueries();
    const wanted = samples.map((one) => ({ ...one, want: one.reference.output }));
    await compareRows(findings, 'output', output, wanted, reference.format);
    await compareLseRows(findings, 'lse', saved.lse, samples);
    await checkPadding(findings, 'output', output, reference, samples);
  }

  async backward({ saved }: Forward, grads: Backward, findings: Findings): Promise<void> {
    const reference = this.#tokens();
    const samples = await this.#sampledQueries();
    // What the gradients are judged by must itself be right.
    await this.forward({ output: saved.output, saved }, findings);
    const dq = samples.map((one) => ({ ...one, want: one.reference.dq!, terms: one.reference.terms }));
    await compareRows(findings, 'dq', grads.q, dq, reference.format);
    await checkPadding(findings, 'dq', grads.q, reference, samples);
    const keys = (this.#keys ??= await this.#sampledKeys(reference, saved));
    for (const [name, tensor] of [['dk', grads.k] as const, ['dv', grads.v] as const]) {
      const wanted = keys.map((one) => ({ ...one, want: one[name], terms: name === 'dk' ? one.terms : 0 }));
      await compareRows(findings, name, tensor, wanted, reference.format, 'key tile');
      await checkPadding(findings, name, tensor, reference, keys, 'key tile');
    }
  }

  #tokens(): TokenReference {
    const { one, lists } = this.#setup;
    return (this.#reference ??= new TokenReference(one, this.tensors, lists));
  }

  async #sampledQueries(): Promise<SampledQueries[]> {
    if (this.#queries !== undefined) return this.#queries;
    const { one } = this.#setup;
    const found: SampledQueries[] = [];
    for (const sample of sampleTiles(one.grid, one.B, one.H)) {
      found.push(await this.#tokens().queries(sample, plainGradient(this.tensors.dOutput)));
    }
    return (this.#queries = found);
  }

  async #sampledKeys(reference: TokenReference, saved: Forward['saved']): Promise<SampledKeys[]> {
    const { one } = this.#setup;
    const found: SampledKeys[] = [];
    for (const sample of sampleTiles(one.grid, one.B, one.Hkv, 2)) {
      found.push(await reference.keys(sample, plainGradient(this.tensors.dOutput), saved));
    }
    return found;
  }
}
