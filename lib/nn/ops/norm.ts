/** LayerNorm, with weights of the layer or a modulation of every batch entry, and RMSNorm. */

import { native } from '../../binding.js';
import { checkSaved } from '../../attention/checks.js';
import { Saved } from '../../attention/saved.js';
import { show, VsaRangeError, VsaTypeError } from '../../errors.js';
import { dtypeCode } from '../../tensor/dtype.js';
import { tidy } from '../../tensor/scope.js';
import { emptyTensor, handleOf, share, type Tensor } from '../../tensor/tensor.js';
import { checkNumber, checkOptions } from '../../validate.js';
import {
  checkChannelsLast,
  checkOutputGradient,
  checkParameter,
  emptyLike,
  handleIfAny,
  isWanted,
  type Model,
  modelOf,
  rowsOf,
} from './checks.js';

export interface LayerNormOptions {
  /** `[..., C]`; `[B, ..., C]` with a modulation. */
  x: Tensor;
  /** float32 `[C]`: multiplies. Absent: 1. */
  weight?: Tensor | undefined;
  /** float32 `[C]`: is added. Absent: 0. */
  bias?: Tensor | undefined;
  /** float32 `[B, C]`, a modulation of each batch entry: multiplies by `1 + scale`. Absent: 1. */
  scale?: Tensor | undefined;
  /** float32 `[B, C]`: is added. Absent: 0. */
  shift?: Tensor | undefined;
  /** Is added to the variance. Default 1e-6. */
  eps?: number;
}

export interface LayerNormGradients {
  /** Of the shape and dtype of `x`. */
  x?: Tensor;
  /** float32, as are the others: of the inputs that were given. */
  weight?: Tensor;
  bias?: Tensor;
  scale?: Tensor;
  shift?: Tensor;
}

export interface RmsNormOptions {
  /** `[..., C]` */
  x: Tensor;
  /** float32 `[C]`: multiplies. Absent: 1. */
  weight?: Tensor | undefined;
  /** Is added to the mean square. Default 1e-6. */
  eps?: number;
}

export interface RmsNormGradients {
  /** Of the shape and dtype of `x`. */
  x?: Tensor;
  /** float32 `[C]` */
  weight?: Tensor;
}

interface Inputs {
  x: Tensor;
  gain: Tensor | undefined;
  shift: Tensor | undefined;
}

/** What the backward needs: of the shift only what its gradient looks like. */
interface Held extends Omit<Inputs, 'shift'> {
  shift: Model | undefined;
}

interface Call {
  rms: boolean;
  /** The gain counts from 1. */
  onePlus: boolean;
  groups: number;
}

class NormSaved extends Saved {
  /** @internal */
  constructor(
    /** @internal */
    readonly inputs: Held,
    /** @internal Float32, one for each row. */
    readonly statistics: { mean: Tensor | undefined; rstd: Tensor },
    /** @internal */
    readonly call: Call,
  ) {
    super([inputs.x, inputs.gain, statistics.mean, statistics.rstd]);
  }
}

class LayerNormSaved extends NormSaved {}
class RmsNormSaved extends NormSaved {}

function checkEps(value: unknown = 1e-6): number {
  const eps = checkNumber('eps', value);
  if (eps >= 0 && Number.isFinite(Math.fround(eps))) return eps;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'eps', got: show(eps), wanted: 'a float32 of at least 0' });
}

function codes(x: Tensor, { rms, onePlus, groups }: Call) {
  return { dtype: dtypeCode(x.dtype), ...rowsOf(x), groups, rms, onePlus };
}

function normForward({ x, gain, shift }: Inputs, call: Call, eps: number) {
  const output = emptyLike(x);
  const { rows } = rowsOf(x);
  const mean = call.rms ? undefined : emptyTensor([rows], 'float32', x.device);
  const rstd = emptyTensor([rows], 'float32', x.device);
  if (x.size > 0) {
    native().normForward({
      ...codes(x, call),
      eps,
      x: handleOf(x, 'x'),
      gain: handleIfAny(gain, 'gain'),
      shift: handleIfAny(shift, 'shift'),
      output: handleOf(output, 'output'),
      mean: handleIfAny(mean, 'mean'),
      rstd: handleOf(rstd, 'rstd'),
    });
  }
  const held = {
    x: share(x),
    gain: gain === undefined ? undefined : share(gain),
    shift: shift === undefined ? undefined : modelOf(shift),
  };
  return { output, held, statistics: { mean, rstd } };
}

function normBackward(saved: NormSaved, doutput: Tensor, wanted: { gain: boolean; shift: boolean }) {
  const { inputs, statistics, call } = saved;
  const { x, gain, shift } = inputs;
  const dx = emptyLike(x);
  const dgain = gain !== undefined && wanted.gain ? emptyLike(gain) : undefined;
  const dshift = shift !== undefined && wanted.shift ? emptyLike(shift) : undefined;
  if (call.groups > 0) {
    native().normBackward({
      ...codes(x, call),
      x: handleOf(x, 'saved'),
      gain: handleIfAny(gain, 'saved'),
      mean: handleIfAny(statistics.mean, 'saved'),
      rstd: handleOf(statistics.rstd, 'saved'),
      doutput: handleOf(doutput, 'grads.output'),
      dx: handleOf(dx, 'x'),
      dgain: handleIfAny(dgain, 'gain'),
      dshift: handleIfAny(dshift, 'shift'),
    });
  }
  return { dx, dgain, dshift };
}

/**
 * `output = (x - mean) / sqrt(variance + eps) * weight + bias` along the channels, in fp32; or with a modulation
 * `... * (1 + scale) + shift`, one for each batch entry. Statistics come in two passes, so that a mean large beside the
 * deviation costs no accuracy. Sources: Ba et al., Layer Normalization (arXiv 1607.06450); the modulation: Peebles and
 * Xie, Scalable Diffusion Models with Transformers (arXiv 2212.09748).
 */
export const layerNorm = {
  /**
   * @throws VsaRangeError ERR_SHAPE, ERR_ARGUMENT (eps); VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED,
   *   ERR_ARGUMENT, also for weights beside a modulation.
   */
  forward(options: LayerNormOptions): { output: Tensor; saved: LayerNormSaved } {
    checkOptions('options', options, ['x', 'weight', 'bias', 'scale', 'shift', 'eps']);
    const modulated = options.scale !== undefined || options.shift !== undefined;
    const x = checkChannelsLast('x', options.x, modulated ? '[B, ..., C]' : '[..., C]', modulated ? 2 : 1);
    const eps = checkEps(options.eps);
    for (const name of ['weight', 'bias'] as const) {
      if (!modulated || options[name] === undefined) continue;
      const got = `${show(options[name])} beside a modulation`;
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: name,
        got,
        wanted: 'weights or a modulation, not both',
      });
    }
    const [B, C] = [x.shape[0]!, x.shape.at(-1)!];
    const parameter = (name: 'weight' | 'bias' | 'scale' | 'shift') => {
      const [shape, layout] = modulated ? [[B, C], '[B, C]'] : [[C], '[C]'];
      return options[name] === undefined ? undefined : checkParameter(name, options[name], shape, layout, x);
    };
    const gain = parameter(modulated ? 'scale' : 'weight');
    const shift = parameter(modulated ? 'shift' : 'bias');
    const call = { rms: false, onePlus: modulated, groups: modulated ? B : 1 };
    return tidy(() => {
      const { output, held, statistics } = normForward({ x, gain, shift }, call, eps);
      return { output, saved: new LayerNormSaved(held, statistics, call) };
    });
  },

  /** @returns The gradients of the inputs that were given, those in `wanted` if that is. */
  backward(saved: LayerNormSaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): LayerNormGradients {
    const { inputs, call } = checkSaved('layerNorm', saved, LayerNormSaved);
    const doutput = checkOutputGradient(grads, inputs.x);
    const [gainName, shiftName] = call.onePlus ? (['scale', 'shift'] as const) : (['weight', 'bias'] as const);
    return tidy(() => {
      const want = { gain: isWanted(wanted, gainName), shift: isWanted(wanted, shiftName) };
      const { dx, dgain, dshift } = normBackward(saved, doutput, want);
      return {
        ...(isWanted(wanted, 'x') && { x: dx }),
        ...(dgain !== undefined && { [gainName]: dgain }),
        ...(dshift !== undefined && { [shiftName]: dshift }),
      };
    });
  },
};

/**
 * `output = x / sqrt(mean of x^2 + eps) * weight` along the channels, in fp32. Source: Zhang and Sennrich, Root Mean
 * Square Layer Normalization (arXiv 1910.07467).
 */
export const rmsNorm = {
  /** @throws As layerNorm. */
  forward(options: RmsNormOptions): { output: Tensor; saved: RmsNormSaved } {
    checkOptions('options', options, ['x', 'weight', 'eps']);
    const x = checkChannelsLast('x', options.x);
    const eps = checkEps(options.eps);
    const { weight } = options;
    const gain = weight === undefined ? undefined : checkParameter('weight', weight, [x.shape.at(-1)!], '[C]', x);
    const call = { rms: true, onePlus: false, groups: 1 };
    return tidy(() => {
      const { output, held, statistics } = normForward({ x, gain, shift: undefined }, call, eps);
      return { output, saved: new RmsNormSaved(held, statistics, call) };
    });
  },

  /** @returns The gradients of the inputs that were given, those in `wanted` if that is. */
  backward(saved: RmsNormSaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): RmsNormGradients {
    const { inputs } = checkSaved('rmsNorm', saved, RmsNormSaved);
    const doutput = checkOutputGradient(grads, inputs.x);
    return tidy(() => {
      const { dx, dgain } = normBackward(saved, doutput, { gain: isWanted(wanted, 'weight'), shift: false });
      return { ...(isWanted(wanted, 'x') && { x: dx }), ...(dgain !== undefined && { weight: dgain }) };
    });
  },
};
