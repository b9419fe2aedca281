/**
 * A whole video diffusion transformer in float64, with the gradients of its loss with respect to every parameter:
 * Wan2.1's block structure, with full attention or Video Sparse Attention (arXiv 2505.13389).
 *
 * Parameters go by the names they have in checkpoints. Every linear layer has a bias.
 */
import { attentionBackward, attentionForward } from './attention.js';
import { requireLength } from './checks.js';
import type { OracleGrid } from './grid.js';
import { meanSquaredErrorBackward, meanSquaredErrorForward, sinusoids } from './layers.js';
import { rotaryAngles } from './rotary.js';
import type { Lists } from './selection.js';
import { Tape, type Variable } from './tape.js';
import { vsaBackward, vsaForward } from './vsa.js';

export interface DitSizes {
  /** Channels of a token, in and out. */
  readonly channels: number;
  readonly width: number;
  readonly heads: number;
  /** Hidden channels of the feed-forward layers. */
  readonly ffn: number;
  readonly blocks: number;
  /** Channels of a context token; without it there is no cross-attention. */
  readonly contextWidth?: number;
  /** Self-attention: full or sparse. */
  readonly attention: 'full' | 'vsa';
  /** Whether sparse attention adds the coarse output, through a gate. Default true. */
  readonly coarseGate?: boolean;
  /** Whether sparse attention has a fine gate as well. */
  readonly fineGate?: boolean;
}

export interface DitInputs {
  readonly sizes: DitSizes;
  /** Token grid, without a prefix, and tile shape; the tiles matter to sparse attention alone. */
  readonly grid: OracleGrid;
  /** In [0, 1], one a batch entry. */
  readonly times: readonly number[];
  /** [B, L, channels], in grid order. */
  readonly x: Float64Array;
  /** [B, S, contextWidth] */
  readonly context?: Float64Array;
  readonly parameters: Readonly<Record<string, Float64Array>>;
  /** Key tiles that each query tile keeps, or the lists of every block. For sparse attention. */
  readonly choice?: { readonly topK: number } | { readonly lists: readonly Lists[] };
}

export interface DitForward {
  /** [B, L, channels] */
  readonly output: Float64Array;
  /** Of every block, under sparse attention. */
  readonly lists: readonly Lists[];
}

export interface DitGradients extends DitForward {
  /** Mean squared error of the output. */
  readonly loss: number;
  readonly parameters: Readonly<Record<string, Float64Array>>;
}

const FREQUENCIES = 256;

/** The shape of every parameter, by name. */
export function ditParameters(sizes: DitSizes): Record<string, readonly number[]> {
  const { channels, width, ffn, blocks, contextWidth, attention, coarseGate = true, fineGate = false } = sizes;
  const shapes: Record<string, readonly number[]> = {};
  const linear = (name: string, outputs: number, inputs: number) => {
    shapes[`${name}.weight`] = [outputs, inputs];
    shapes[`${name}.bias`] = [outputs];
  };
  linear('patch', width, channels);
  linear('time.0', width, FREQUENCIES);
  linear('time.2', width, width);
  linear('modulation', 6 * width, width);
  if (contextWidth !== undefined) {
    linear('context.0', width, contextWidth);
    linear('context.2', width, width);
  }
  for (let i = 0; i < blocks; i++) {
    const block = `blocks.${i}`;
    shapes[`${block}.modulation`] = [6, width];
    for (const name of ['q', 'k', 'v', 'output']) linear(`${block}.attention.${name}`, width, width);
    for (const name of ['normQ', 'normK']) shapes[`${block}.attention.${name}.weight`] = [width];
    if (attention === 'vsa' && coarseGate) linear(`${block}.attention.coarseGate`, width, width);
    if (attention === 'vsa' && fineGate) linear(`${block}.attention.fineGate`, width, width);
    if (contextWidth !== undefined) {
      for (const name of ['weight', 'bias']) shapes[`${block}.crossNorm.${name}`] = [width];
      for (const name of ['q', 'k', 'v', 'output']) linear(`${block}.cross.${name}`, width, width);
      for (const name of ['normQ', 'normK']) shapes[`${block}.cross.${name}.weight`] = [width];
    }
    linear(`${block}.ffn.0`, ffn, width);
    linear(`${block}.ffn.2`, width, ffn);
  }
  shapes['head.modulation'] = [2, width];
  linear('head', channels, width);
  return shapes;
}

/** One forward on a tape. */
class Run {
  readonly tape = new Tape();
  readonly parameters: Record<string, Variable> = {};
  readonly lists: Lists[] = [];
  readonly #batch: number;
  readonly #length: number;
  readonly #angles: Float64Array;

  constructor(readonly inputs: DitInputs) {
    const { sizes, grid, parameters, times } = inputs;
    const wanted = Object.keys(ditParameters(sizes)).sort();
    const got = Object.keys(parameters).sort();
    if (wanted.join() !== got.join()) throw new RangeError(`parameters: got ${got.join()}, wanted ${wanted.join()}`);
    for (const name of wanted) this.parameters[name] = this.tape.variable(parameters[name]!);
    this.#batch = times.length;
    this.#length = grid.tokens[0] * grid.tokens[1] * grid.tokens[2];
    requireLength('x', inputs.x, [this.#batch, this.#length, sizes.channels]);
    this.#angles = rotaryAngles({ tokens: grid.tokens, headDim: sizes.width / sizes.heads });
  }

  output(): Variable {
    const { tape } = this;
    const { sizes, times, x, context } = this.inputs;
    const { width } = sizes;
    const rows = this.#batch * this.#length;
    let h = this.#linear('patch', tape.variable(x), rows);
    const embedded = tape.variable(
      sinusoids(
        times.map((t) => 1000 * t),
        FREQUENCIES,
      ),
    );
    const time = this.#linear('time.2', tape.silu(this.#linear('time.0', embedded, this.#batch)), this.#batch);
    const modulation = this.#linear('modulation', tape.silu(time), this.#batch);
    let words: Variable | undefined;
    if (sizes.contextWidth !== undefined) {
      if (context === undefined) throw new RangeError('context: got none, wanted [B, S, contextWidth]');
      const tokens = context.length / sizes.contextWidth;
      words = this.#linear('context.0', tape.variable(context), tokens);
      words = this.#linear('context.2', tape.geluTanh(words), tokens);
    }
    for (let i = 0; i < sizes.blocks; i++) h = this.#block(`blocks.${i}`, h, modulation, words);
    const [shift, gain] = [0, 1].map((row) =>
      tape.add(time, tape.row(this.parameters['head.modulation']!, row, { groups: 1, rows: 2, width })),
    );
    const n = tape.layerNorm(h, this.#modulated(), { gain: gain!, shift: shift!, modulated: true });
    return this.#linear('head', n, rows);
  }

  #linear(name: string, x: Variable, rows: number): Variable {
    const weight = this.parameters[`${name}.weight`]!;
    const bias = this.parameters[`${name}.bias`]!;
    const shape = { rows, inputs: x.value.length / rows, outputs: bias.value.length };
    return this.tape.linear(x, weight, bias, shape);
  }

  /** Rows of tokens, with a gain and a shift for each batch entry. */
  #modulated() {
    return { rows: this.#batch * this.#length, width: this.inputs.sizes.width, groups: this.#batch };
  }

  #block(block: string, x: Variable, modulation: Variable, words: Variable | undefined): Variable {
    const { tape } = this;
    const { width } = this.inputs.sizes;
    const rows = this.#batch * this.#length;
    const own = tape.add(modulation, this.parameters[`${block}.modulation`]!);
    const e = Array.from({ length: 6 }, (_, row) => tape.row(own, row, { groups: this.#batch, rows: 6, width }));
    const residual = { groups: this.#batch, rows: this.#length, width };

    const a = tape.layerNorm(x, this.#modulated(), { gain: e[1]!, shift: e[0]!, modulated: true });
    let h = tape.gatedResidual(x, this.#selfAttention(`${block}.attention`, a), e[2]!, residual);
    if (words !== undefined) {
      const [gain, shift] = ['weight', 'bias'].map((name) => this.parameters[`${block}.crossNorm.${name}`]!);
      const n = tape.layerNorm(h, { rows, width }, { gain: gain!, shift: shift!, modulated: false });
      h = tape.add(h, this.#crossAttention(`${block}.cross`, n, words));
    }
    const f = tape.layerNorm(h, this.#modulated(), { gain: e[4]!, shift: e[3]!, modulated: true });
    const hidden = tape.geluTanh(this.#linear(`${block}.ffn.0`, f, rows));
    return tape.gatedResidual(h, this.#linear(`${block}.ffn.2`, hidden, rows), e[5]!, residual);
  }

  /** Queries of `x` and keys of `y`, both normalised over the full width, and values of `y`. */
  #qkv(name: string, x: Variable, y: Variable): readonly [Variable, Variable, Variable] {
    const { width } = this.inputs.sizes;
    const rowsOf = (tokens: Variable) => tokens.value.length / width;
    const normalised = (projection: string, norm: string, tokens: Variable) =>
      this.tape.rmsNorm(
        this.#linear(`${name}.${projection}`, tokens, rowsOf(tokens)),
        this.parameters[`${name}.${norm}.weight`]!,
        { rows: rowsOf(tokens), width },
      );
    const v = this.#linear(`${name}.v`, y, rowsOf(y));
    return [normalised('q', 'normQ', x), normalised('k', 'normK', y), v];
  }

  #selfAttention(name: string, a: Variable): Variable {
    const { heads, width, attention, coarseGate = true, fineGate = false } = this.inputs.sizes;
    const rows = this.#batch * this.#length;
    const shape = { batch: this.#batch, length: this.#length, heads, headDim: width / heads };
    const [unturnedQ, unturnedK, v] = this.#qkv(name, a, a);
    const q = this.tape.rotary(unturnedQ, this.#angles, shape);
    const k = this.tape.rotary(unturnedK, this.#angles, shape);
    if (attention === 'full') return this.#linear(`${name}.output`, this.#attend(q, k, v), rows);
    const coarse = coarseGate ? this.#linear(`${name}.coarseGate`, a, rows) : undefined;
    const fine = fineGate ? this.#linear(`${name}.fineGate`, a, rows) : undefined;
    return this.#linear(`${name}.output`, this.#sparse(q, k, v, coarse, fine), rows);
  }

  #crossAttention(name: string, n: Variable, words: Variable): Variable {
    return this.#linear(`${name}.output`, this.#attend(...this.#qkv(name, n, words)), this.#batch * this.#length);
  }

  /** Dense attention. */
  #attend(q: Variable, k: Variable, v: Variable): Variable {
    const { heads, width } = this.inputs.sizes;
    const headDim = width / heads;
    const tokens = (x: Variable) => x.value.length / width / this.#batch;
    const shape = { batch: this.#batch, heads, kvHeads: heads, headDim, queries: tokens(q), keys: tokens(k) };
    const inputs = { q: q.value, k: k.value, v: v.value, mask: null, shape, scale: 1 / Math.sqrt(headDim) };
    const forward = attentionForward(inputs);
    return this.tape.apply([q, k, v], forward.output, (dy) => {
      const grads = attentionBackward(inputs, forward, dy);
      return [grads.q, grads.k, grads.v];
    });
  }

  #sparse(q: Variable, k: Variable, v: Variable, coarse: Variable | undefined, fine: Variable | undefined): Variable {
    const { sizes, grid, choice } = this.inputs;
    if (choice === undefined) throw new RangeError('choice: got none, wanted topK or lists');
    const inputs = {
      ...{ batch: this.#batch, heads: sizes.heads, headDim: sizes.width / sizes.heads, grid },
      ...{ q: q.value, k: k.value, v: v.value },
      ...(coarse !== undefined && { coarse: { gate: coarse.value } }),
      ...(fine !== undefined && { fine: { gate: fine.value } }),
      choice: 'topK' in choice ? choice : { lists: choice.lists[this.lists.length]! },
    };
    const forward = vsaForward(inputs);
    this.lists.push(forward.lists);
    return this.tape.apply([q, k, v, coarse, fine], forward.output, (dy) => {
      const grads = vsaBackward(inputs, forward, dy);
      return [grads.q, grads.k, grads.v, grads.coarseGate, grads.fineGate];
    });
  }
}

/** The output of the model: what it predicts for every token. */
export function ditForward(inputs: DitInputs): DitForward {
  const run = new Run(inputs);
  return { output: run.output().value, lists: run.lists };
}

/** The mean squared error against `target` [B, L, channels], and its gradients. Lists are constants. */
export function ditGradients(inputs: DitInputs, target: Float64Array): DitGradients {
  const run = new Run(inputs);
  const output = run.output();
  const loss = meanSquaredErrorForward(output.value, target);
  run.tape.backward(output, meanSquaredErrorBackward(output.value, target));
  const gradients = Object.entries(run.parameters).map(([name, { gradient }]) => [name, gradient] as const);
  return { loss, output: output.value, lists: run.lists, parameters: Object.fromEntries(gradients) };
}
