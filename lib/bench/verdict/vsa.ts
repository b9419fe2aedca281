/**
 * Sampled rows of the whole operator against float64: its own lists are judged by pooled values that are computed here,
 * and everything else by those lists.
 */

import type { videoSparseAttention } from '../../attention/vsa.js';
import { ownPrecision } from '../../check/values.js';
import { attentionForward, EXACT, FLOAT32, roundTo } from '../../oracle/index.js';
import type { Tensor } from '../../tensor/tensor.js';
import type { BenchCase } from '../cases.js';
import { hostLists } from '../lists.js';
import { add, keyReference, queryReference, type QueryReference, same, type Twice } from './attention.js';
import type { Findings } from './findings.js';
import { judgeList, poolHead, sumByTile } from './pooled.js';
import { gather } from './rows.js';
import {
  checkPadding,
  compareLseRows,
  compareRows,
  listOf,
  type SampledKeys,
  type SampledQueries,
  sampleTiles,
  TokenReference,
} from './tokens.js';

export type VsaForward = ReturnType<typeof videoSparseAttention.forward>;
export type VsaBackward = ReturnType<typeof videoSparseAttention.backward>;

export interface VsaTensors {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly dOutput: Tensor;
  readonly coarseGate?: Tensor;
  readonly fineGate?: Tensor;
}

/** Samples read whole tensors of tokens to pool them. Of tensors that are larger than this there is one. Bytes. */
const LARGE = 2 ** 28;

/** What a sampled query tile comes to. */
interface Sampled extends SampledQueries {
  /** Of the operator, of each gate. */
  readonly output: Twice;
  readonly dq: Twice;
  readonly coarseGate: Twice | undefined;
  readonly fineGate: Twice | undefined;
  /** `[D]` and `[tiles, D]`: what the tile was selected by. */
  readonly pooled: { readonly q: Float64Array; readonly k: Float64Array };
}

export class VsaJudge {
  #tokens: TokenReference | undefined;
  #queries: Sampled[] | undefined;
  #keys: SampledKeys[] | undefined;

  constructor(
    readonly one: BenchCase,
    readonly tensors: VsaTensors,
  ) {}

  async forward({ output, saved }: Pick<VsaForward, 'output' | 'saved'>, findings: Findings): Promise<void> {
    const samples = await this.#sampledQueries(saved);
    const lists = await hostLists(saved.lists);
    for (const { sample, pooled } of samples) {
      judgeList({ list: listOf(lists, this.one, sample), ...pooled, sample, one: this.one }, findings);
    }
    // A wrong list is said once; what was attended by it would be wrong all over.
    if (findings.problems.length > 0) return;
    const { format } = this.#tokens!;
    const wanted = samples.map((each) => ({ ...each, want: each.output }));
    await compareRows(findings, 'output', output, wanted, format);
    await compareLseRows(findings, 'lse', saved.lse, samples);
    await checkPadding(findings, 'output', output, this.#tokens!, samples);
  }

  async backward({ output, saved }: VsaForward, grads: VsaBackward, findings: Findings): Promise<void> {
    await this.forward({ output, saved }, findings);
    if (findings.problems.length > 0) return;
    const samples = await this.#sampledQueries(saved);
    const tokens = this.#tokens!;
    const { format } = tokens;
    const dq = samples.map((each) => ({ ...each, want: each.dq, terms: each.reference.terms }));
    await compareRows(findings, 'dq', grads.q, dq, format);
    await checkPadding(findings, 'dq', grads.q, tokens, samples);
    for (const name of ['coarseGate', 'fineGate'] as const) {
      const tensor = grads[name];
      if (tensor === undefined) continue;
      const wanted = samples.map((each) => ({ ...each, want: each[name]! }));
      await compareRows(findings, `d${name}`, tensor, wanted, format);
      await checkPadding(findings, `d${name}`, tensor, tokens, samples);
    }
    const keys = (this.#keys ??= await this.#sampledKeys(saved));
    for (const [name, tensor] of [['dk', grads.k] as const, ['dv', grads.v] as const]) {
      const wanted = keys.map((each) => ({ ...each, want: each[name], terms: name === 'dk' ? each.terms : 0 }));
      await compareRows(findings, name, tensor, wanted, format, 'key tile');
      await checkPadding(findings, name, tensor, tokens, keys, 'key tile');
    }
  }

  async #sampledQueries(saved: VsaForward['saved']): Promise<Sampled[]> {
    if (this.#queries !== undefined) return this.#queries;
    const { one, tensors } = this;
    const tokens = (this.#tokens ??= new TokenReference(one, tensors, await hostLists(saved.lists)));
    const found: Sampled[] = [];
    const most = tensors.q.byteLength > LARGE ? 1 : 2;
    for (const sample of sampleTiles(one.grid, one.B, one.H, most)) {
      const fine = await tokens.queries(sample, (b, h, rows) => this.#fineGradient(b, h, rows));
      found.push(await this.#withCoarse(fine, tokens));
    }
    return (this.#queries = found);
  }

  async #withCoarse(fine: SampledQueries, tokens: TokenReference): Promise<Sampled> {
    const { one, tensors } = this;
    const { sample, rows, reference } = fine;
    const { b, h, tile } = sample;
    const { D } = one;
    const g = Math.floor((h * one.Hkv) / one.H);
    const tileRows = tokens.rows.of(tile);
    const q = poolTile(await gather(tensors.q, b, h, tileRows), D);
    const k = (await poolHead(tensors.k, b, g, tokens.rows, one)).exact;
    const gates = {
      coarse: await this.#gate('coarseGate', b, h, rows),
      fine: await this.#gate('fineGate', b, h, rows),
    };
    const dOutput = await gather(tensors.dOutput, b, h, rows);

    let coarse: QueryReference | undefined;
    if (one.coarse !== 'skip') {
      const v = (await poolHead(tensors.v, b, g, tokens.rows, one)).exact;
      const gradient = await this.#coarseGradient(b, h, tileRows);
      const summed = sumByTile(gradient, new Int32Array(tileRows.length), 1, D);
      coarse = queryReference({ q, k, v, dOutput: summed, D, scale: tokens.scale }, 'float32', ownPrecision('float32'));
    }
    const spread = (values: Float64Array, divisor = 1) =>
      Float64Array.from({ length: rows.length * D }, (_, i) => values[i % D]! / divisor);
    const ofCoarse =
      coarse === undefined
        ? undefined
        : {
            output: { exact: spread(coarse.output.exact), own: spread(coarse.output.own) },
            dq: { exact: spread(coarse.dq!.exact, tileRows.length), own: spread(coarse.dq!.own, tileRows.length) },
          };
    const dq = { exact: reference.dq!.exact.slice(), own: reference.dq!.own.slice() };
    if (ofCoarse !== undefined) add(dq, ofCoarse.dq);
    const product = (a: Float64Array, x: Float64Array) => a.map((value, i) => value * x[i]!);
    const gated = (x: Twice, gate: Float64Array | undefined) =>
      gate === undefined ? x : { exact: product(x.exact, gate), own: product(x.own, gate) };
    const output = gated(reference.output, gates.fine);
    const total = { exact: output.exact.slice(), own: output.own.slice() };
    if (ofCoarse !== undefined) add(total, gated(ofCoarse.output, gates.coarse));
    return {
      ...{ ...fine, output: total, dq, pooled: { q, k } },
      coarseGate: gates.coarse === undefined || ofCoarse === undefined ? undefined : gated(ofCoarse.output, dOutput),
      fineGate: gates.fine === undefined ? undefined : gated(reference.output, dOutput),
    };
  }

  async #sampledKeys(saved: VsaForward['saved']): Promise<SampledKeys[]> {
    const { one, tensors } = this;
    const tokens = this.#tokens!;
    const [sample] = sampleTiles(one.grid, one.B, one.Hkv, 1);
    const gradient = (b: number, h: number, rows: Int32Array) => this.#fineGradient(b, h, rows);
    const fine = { output: saved.fineOutput, lse: saved.lse };
    const keys = await tokens.keys(sample!, gradient, fine);
    if (one.coarse === 'skip') return [keys];

    const { b, h: g, tile } = sample!;
    const { D } = one;
    const k = (await poolHead(tensors.k, b, g, tokens.rows, one)).exact;
    const v = (await poolHead(tensors.v, b, g, tokens.rows, one)).exact;
    const ofTile = { k: k.slice(tile * D, (tile + 1) * D), v: v.slice(tile * D, (tile + 1) * D) };
    const valid = one.grid.valid(tile);
    const N = one.grid.totalTileCount;
    const group = one.H / one.Hkv;
    for (let h = g * group; h < (g + 1) * group; h++) {
      const q = (await poolHead(tensors.q, b, h, tokens.rows, one)).exact;
      const dOutput = sumByTile(await this.#coarseGradient(b, h, tokens.rows.all), tokens.rows.tileOf, N, D);
      const shape = { batch: 1, heads: 1, kvHeads: 1, headDim: D, queries: N, keys: N };
      const attended = attentionForward({ q, k, v, mask: null, shape, scale: tokens.scale, precision: EXACT });
      const part = keyReference({ q, ...ofTile, dOutput, D, scale: tokens.scale }, attended, FLOAT32);
      const spread = ({ exact, own }: Twice): Twice => ({
        exact: keys.dk.exact.map((_, i) => exact[i % D]! / valid),
        own: keys.dk.own.map((_, i) => Math.fround(own[i % D]! / valid)),
      });
      add(keys.dk, spread(part.dk));
      add(keys.dv, spread(part.dv));
    }
    return [keys];
  }

  async #gate(name: 'coarseGate' | 'fineGate', b: number, h: number, rows: Int32Array) {
    const gate = this.tensors[name];
    return gate === undefined ? undefined : gather(gate, b, h, rows);
  }

  /** dO, times the fine gate if there is one: then a tensor of the format in between. */
  async #fineGradient(b: number, h: number, rows: Int32Array): Promise<Twice> {
    const dOutput = await gather(this.tensors.dOutput, b, h, rows);
    const gate = await this.#gate('fineGate', b, h, rows);
    if (gate === undefined) return same(dOutput);
    const exact = dOutput.map((value, i) => value * gate[i]!);
    return { exact, own: exact.map((value) => roundTo(value, this.#tokens!.format)) };
  }

  /** dO, times the coarse gate if there is one. */
  async #coarseGradient(b: number, h: number, rows: Int32Array): Promise<Twice> {
    const dOutput = await gather(this.tensors.dOutput, b, h, rows);
    const gate = await this.#gate('coarseGate', b, h, rows);
    return same(gate === undefined ? dOutput : dOutput.map((value, i) => value * gate[i]!));
  }
}

/** The mean of rows of D. */
function poolTile(values: Float64Array, D: number): Float64Array {
  const count = values.length / D;
  return sumByTile(same(values), new Int32Array(count), 1, D, [count]).exact;
}
