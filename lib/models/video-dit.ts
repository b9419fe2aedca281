/** VideoDiT: a diffusion transformer for video with Wan2.1's block structure, at any size. */

import { checkpoint } from '../autograd/index.js';
import { checkAlike, checkDims, checkTensor } from '../attention/checks.js';
import { TileGrid } from '../attention/grid.js';
import { device as deviceOf, type Device } from '../device/device.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import type { AttentionState } from '../nn/attention.js';
import { add, geluTanh, layerNorm, rotaryTable, silu, sinusoidalEmbedding, slice } from '../nn/functional.js';
import { Module } from '../nn/module.js';
import { parseSeed } from '../tensor/host.js';
import { tidy } from '../tensor/scope.js';
import { handleOf, Tensor } from '../tensor/tensor.js';
import { checkInteger, checkOptions } from '../validate.js';
import { checkConfig, checkTopK, type VideoDiTConfig, type VideoDiTOptions } from './config.js';
import { type Flops, type FlopsOptions, forwardFlops, trainingFlops } from './flops.js';
import { Maker } from './maker.js';
import { VideoDiTBlock } from './video-dit-block.js';

/** What the self attention of one layer computed; it belongs to the call, as `AttentionState` says. */
export interface LayerState extends AttentionState {
  /** From 0. */
  readonly layer: number;
}

export interface VideoDiTInputs {
  /** Tokens in grid order, `[B, L, channels]` float32, bfloat16 or float16. */
  x: Tensor;
  /** Of every batch entry, from 0 to 1. */
  times: readonly number[];
  /** The condition, `[B, context.tokens, context.width]`, if the model has one. */
  context?: Tensor;
  /** Is shown q, k (rotated), v, the tile lists and the lse of every layer, in order, once a forward. */
  observe?: (state: LayerState) => void;
}

/** Inputs that are as they must be. */
interface Checked {
  x: Tensor;
  times: readonly number[];
  context?: Tensor | undefined;
  observe?: VideoDiTInputs['observe'] | undefined;
}

/** Channels of the sinusoidal time embedding. */
const TIME_WIDTH = 256;

function makeLayers(config: VideoDiTConfig, make: Maker) {
  const { tokens, channels, width, heads, layers, context } = config;
  const headDim = width / heads;
  return {
    patch: make.linear('patch', channels, width),
    time: [make.linear('time.0', TIME_WIDTH, width, 'small'), make.linear('time.2', width, width, 'small')] as const,
    modulation: make.linear('modulation', width, 6 * width),
    context: context && {
      first: make.linear('context.0', context.width, width, 'small'),
      second: make.linear('context.2', width, width, 'small'),
    },
    blocks: Array.from({ length: layers }, (_, index) => new VideoDiTBlock(config, make.in(`blocks.${String(index)}`))),
    head: make.linear('head', width, channels, 'zero'),
    headModulation: make.modulation('head.modulation', 2, width),
    table: rotaryTable({ tokens, headDim, device: make.device }),
  };
}

/**
 * Tokens and times in, tokens out: a linear patch embedding, blocks of self attention (full or video sparse), cross
 * attention to a context if there is one, and feed-forward, all modulated by the time; a modulated norm and a linear
 * head. Activations are of `dtype`; parameters, the time path and modulation are float32. Architecture and
 * initialisation: Wan2.1 (arXiv 2503.20314); the head begins at 0. Gates: VSA (arXiv 2505.13389).
 *
 * @example
 * const sizes = { tokens: [8, 16, 16], channels: 12, width: 128, heads: 2, layers: 4 } as const;
 * using model = new VideoDiT({ ...sizes, attention: 'vsa', topK: 8 });
 * const velocity = model.forward({ x, times: [0.3] });
 */
export class VideoDiT extends Module {
  readonly config: VideoDiTConfig;
  readonly grid: TileGrid;
  readonly device: Device;
  #topK: number | undefined;
  readonly #layers: ReturnType<typeof makeLayers>;

  /**
   * @throws VsaRangeError ERR_ARGUMENT, ERR_GRID, ERR_HEAD_DIM, ERR_TOP_K; VsaTypeError ERR_ARGUMENT, ERR_DTYPE;
   *   OutOfMemoryError.
   */
  constructor(options: VideoDiTOptions) {
    const config = checkConfig(options);
    const device = deviceOf(options.device);
    const seed = parseSeed(options.seed);
    super();
    this.config = config;
    this.device = device;
    this.grid = new TileGrid({ tokens: config.tokens });
    this.#topK = config.topK;
    const layers = tidy(() => makeLayers(config, new Maker(seed, device)));
    this.#layers = layers;
    this.child('patch', layers.patch);
    this.child('time.0', layers.time[0]);
    this.child('time.2', layers.time[1]);
    this.child('modulation', layers.modulation);
    if (layers.context !== undefined) {
      this.child('context.0', layers.context.first);
      this.child('context.2', layers.context.second);
    }
    layers.blocks.forEach((block, index) => this.child(`blocks.${String(index)}`, block));
    this.child('head', layers.head);
    this.parameter('head.modulation', layers.headModulation);
    this.own(layers.table);
  }

  /** K: key tiles that each query tile keeps, to be set between steps; undefined for full attention. */
  get topK(): number | undefined {
    return this.#topK;
  }

  set topK(value: number | undefined) {
    this.#topK = this.#checkTopK(value);
  }

  /**
   * @returns `[B, L, channels]` of the model's dtype.
   * @throws VsaRangeError ERR_SHAPE, ERR_ARGUMENT; VsaTypeError ERR_ARGUMENT, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED;
   *   OutOfMemoryError.
   */
  forward(inputs: VideoDiTInputs): Tensor {
    const { x, times, context, observe } = this.#check(inputs);
    return tidy(() => this.forwardAt(this.timeWaves(times), { x, context, observe }));
  }

  /** @internal What a forward needs of the times, from the host: float32 `[B, 256]`. */
  timeWaves(times: readonly number[]): Tensor {
    const scaled = times.map((t) => 1000 * t);
    return sinusoidalEmbedding(scaled, { width: TIME_WIDTH, device: this.device });
  }

  /** @internal As `forward`, but with nothing from the host, so that it can be recorded; inputs are not checked. */
  forwardAt(waves: Tensor, { x, context, observe }: Pick<Checked, 'x' | 'context' | 'observe'>): Tensor {
    return tidy(() => {
      const { patch, modulation, blocks } = this.#layers;
      const te = this.#embedTime(waves);
      const e6 = modulation.forward(silu({ x: te })).reshape([waves.shape[0]!, 6, this.config.width]);
      const c = context && this.#embedContext(context);
      let h = patch.forward(x.cast(this.config.dtype));
      for (const [layer, block] of blocks.entries()) {
        const input = h;
        h = this.#runBlock(block, input, e6, c, observe && ((state) => observe(layerState(layer, state))));
        input.dispose();
      }
      return this.#project(h, te);
    });
  }

  #runBlock(
    block: VideoDiTBlock,
    h: Tensor,
    e6: Tensor,
    context: Tensor | undefined,
    observe: ((state: AttentionState) => void) | undefined,
  ): Tensor {
    // Once: a checkpoint runs the block again in the backward.
    let show = observe;
    const once = (state: AttentionState) => {
      const shown = show;
      show = undefined;
      shown?.(state);
    };
    const call = { grid: this.grid, table: this.#layers.table, topK: this.#topK, observe: observe && once };
    if (!this.config.checkpointing) return block.forward(h, e6, context, call);
    const inputs = context === undefined ? [h, e6] : [h, e6, context];
    return checkpoint((...given) => block.forward(given[0]!, given[1]!, given[2], call), ...inputs);
  }

  /** float32 `[B, width]` */
  #embedTime(waves: Tensor): Tensor {
    const [first, second] = this.#layers.time;
    return tidy(() => second.forward(silu({ x: first.forward(waves) })));
  }

  /** `[B, S, width]` of the model's dtype. */
  #embedContext(context: Tensor): Tensor {
    const { first, second } = this.#layers.context!;
    return tidy(() => second.forward(geluTanh({ x: first.forward(context.cast(this.config.dtype)) })));
  }

  #project(h: Tensor, te: Tensor): Tensor {
    const { head, headModulation } = this.#layers;
    return tidy(() => {
      const row = (index: number) =>
        slice({ x: headModulation, dim: 0, start: index, end: index + 1 }).reshape([this.config.width]);
      const [shift, scale] = [add({ a: te, b: row(0) }), add({ a: te, b: row(1) })];
      return head.forward(layerNorm({ x: h, scale, shift }));
    });
  }

  #check(inputs: VideoDiTInputs): Checked {
    checkOptions('inputs', inputs, ['x', 'times', 'context', 'observe']);
    const { times, observe } = inputs;
    const { channels, context: wanted } = this.config;
    const model = this.#layers.patch.weight;
    handleOf(model, 'this');
    const x = checkTensor('x', inputs.x, '[B, L, channels]');
    checkDims('x', x, [null, this.grid.length, channels], '[B, L, channels]');
    const B = x.shape[0]!;
    checkTimes(times, B);
    if (observe !== undefined && typeof observe !== 'function') {
      const got = show(observe);
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'observe', got, wanted: 'a function' });
    }
    if ((inputs.context === undefined) !== (wanted === undefined)) {
      const got = wanted === undefined ? 'a context' : 'none';
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: 'context',
        got,
        wanted: wanted === undefined ? 'none: the model was made without' : 'the context that the model was made for',
      });
    }
    const context = inputs.context && checkTensor('context', inputs.context, '[B, S, channels]');
    if (context !== undefined) checkDims('context', context, [B, wanted!.tokens, wanted!.width], '[B, S, channels]');
    checkAlike({ 'the model': model, x, context }, false);
    return { x, times, context, observe };
  }

  /**
   * Turns the weights of a model of full attention into this sparse one: its gates begin neutral (the coarse output
   * times 0, the fine output times 1) and K at N, so the output is the dense model's. Then lower `topK` between steps,
   * as `annealedSparsity` says. Source: VSA (arXiv 2505.13389), its recipe for finetuning.
   *
   * @param dense Parameters of a VideoDiT of the same architecture with `attention: 'full'`.
   * @throws As `load`; VsaTypeError ERR_ARGUMENT for a model of full attention.
   */
  adapt(dense: ReadonlyMap<string, Tensor>): this {
    if (this.config.attention === 'full') {
      const got = 'a model of full attention';
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'this', got, wanted: "attention: 'vsa'" });
    }
    if (!(dense instanceof Map)) {
      const wanted = 'a Map of tensors by name';
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'dense', got: show(dense), wanted });
    }
    tidy(() => {
      const values = new Map(dense);
      const parameters = this.parameters();
      for (const [index, block] of this.#layers.blocks.entries()) {
        for (const [name, value] of block.attention.neutralGates()) {
          const full = `blocks.${String(index)}.attention.${name}`;
          if (values.has(full)) {
            const got = `an entry for ${show(full)}`;
            const wanted = 'a model of full attention: load() takes one with gates';
            throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'dense', got, wanted });
          }
          values.set(full, Tensor.full(parameters.get(full)!.shape, value, { device: this.device }));
        }
      }
      this.load(values);
    });
    this.#topK = this.grid.tileCount;
    return this;
  }

  /** FLOPs of one forward with the present K, or another. */
  flops(options: FlopsOptions = {}): Flops {
    return forwardFlops(this.config, this.#flopsOptions(options));
  }

  /** FLOPs of one forward and backward: what MFU counts. */
  trainingFlops(options: FlopsOptions = {}): Flops {
    return trainingFlops(this.config, this.#flopsOptions(options));
  }

  #flopsOptions(options: FlopsOptions): FlopsOptions {
    checkOptions('options', options, ['batch', 'topK']);
    const batch = checkInteger('batch', options.batch ?? 1, 0);
    if (options.topK === undefined) return { batch, ...(this.#topK !== undefined && { topK: this.#topK }) };
    return { batch, topK: this.#checkTopK(options.topK) };
  }

  #checkTopK(value: unknown): number {
    if (this.config.attention === 'vsa') return checkTopK(value, this.grid);
    const got = `${show(value)} for a model of full attention`;
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'topK', got, wanted: "attention: 'vsa'" });
  }
}

function layerState(layer: number, { q, k, v, lists, lse }: AttentionState): LayerState {
  return { layer, q, k, v, lists, lse };
}

function checkTimes(times: unknown, B: number): void {
  if (!Array.isArray(times)) {
    const got = show(times);
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'times', got, wanted: 'an array of numbers' });
  }
  if (times.length !== B) {
    const wanted = `${String(B)}, one for every batch entry of x`;
    throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'times', got: `${String(times.length)} times`, wanted });
  }
  const at = times.findIndex((t) => !(typeof t === 'number' && t >= 0 && t <= 1));
  if (at === -1) return;
  const got = show(times[at]);
  throw new VsaRangeError({
    code: 'ERR_ARGUMENT',
    argument: `times[${String(at)}]`,
    got,
    wanted: 'a number from 0 to 1',
  });
}
