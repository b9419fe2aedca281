/**
 * The layers of a diffusion transformer and their gradients: linear, layer norm with modulation, RMS norm, SiLU,
 * GELU, gated residual, sinusoidal embedding, mean squared error. Rotary embedding is in rotary.ts.
 *
 * Arrays are rows of channels, row-major. Where a layer takes vectors per batch entry, rows come in `groups` of equal
 * size, one a batch entry. Every backward takes the inputs of its forward and the gradient of its output.
 */
import { requireInteger, requireLength } from './checks.js';
import { EXACT, axpyOf, dotOf } from './precision.js';

const { cos, exp, sin, sqrt, tanh } = Math; // by name: see rounding.ts

export interface LinearShape {
  readonly rows: number;
  /** K, channels of x. */
  readonly inputs: number;
  /** N, channels of the output. */
  readonly outputs: number;
}

export interface LinearInputs {
  /** [rows, K] */
  readonly x: Float64Array;
  /** [N, K] */
  readonly weight: Float64Array;
  /** [N]; 0 unless given. */
  readonly bias?: Float64Array | undefined;
}

function checkLinear({ x, weight, bias }: LinearInputs, { rows, inputs, outputs }: LinearShape): void {
  requireLength('x', x, [rows, inputs]);
  requireLength('weight', weight, [outputs, inputs]);
  if (bias !== undefined) requireLength('bias', bias, [outputs]);
}

/** y[r, n] = sum_k x[r, k] * weight[n, k] + bias[n]: [rows, N]. */
export function linearForward(tensors: LinearInputs, shape: LinearShape): Float64Array {
  checkLinear(tensors, shape);
  const { x, weight, bias } = tensors;
  const { rows, inputs, outputs } = shape;
  const dot = dotOf(EXACT);
  const y = new Float64Array(rows * outputs);
  for (let r = 0; r < rows; r++) {
    for (let n = 0; n < outputs; n++) {
      y[r * outputs + n] = dot(x, r * inputs, weight, n * inputs, inputs) + (bias?.[n] ?? 0);
    }
  }
  return y;
}

export function linearBackward(
  tensors: LinearInputs,
  dy: Float64Array,
  shape: LinearShape,
): { x: Float64Array; weight: Float64Array; bias: Float64Array } {
  checkLinear(tensors, shape);
  const { x, weight } = tensors;
  const { rows, inputs, outputs } = shape;
  requireLength('dy', dy, [rows, outputs]);
  const axpy = axpyOf(EXACT);
  const grads = {
    x: new Float64Array(rows * inputs),
    weight: new Float64Array(outputs * inputs),
    bias: new Float64Array(outputs),
  };
  for (let r = 0; r < rows; r++) {
    for (let n = 0; n < outputs; n++) {
      const g = dy[r * outputs + n]!;
      axpy(g, weight, n * inputs, grads.x, r * inputs, inputs);
      axpy(g, x, r * inputs, grads.weight, n * inputs, inputs);
      grads.bias[n]! += g;
    }
  }
  return grads;
}

export interface NormShape {
  readonly rows: number;
  readonly width: number;
  /** Batch entries, each with a gain and a shift of its own; 1 unless given. */
  readonly groups?: number;
  /** 1e-6 unless given. */
  readonly eps?: number;
}

export interface NormInputs {
  /** [rows, width] */
  readonly x: Float64Array;
  /** [groups, width]: what the normalised row is multiplied by, 1 + scale under a modulation; 1 unless given. */
  readonly gain?: Float64Array | undefined;
  /** [groups, width], added; 0 unless given. */
  readonly shift?: Float64Array | undefined;
}

export interface NormGradients {
  readonly x: Float64Array;
  /** Of the gain, and so of a modulation's scale. */
  readonly gain: Float64Array;
  readonly shift: Float64Array;
}

interface Row {
  readonly mean: number;
  /** 1 / sqrt(variance + eps), or of the mean square. */
  readonly rstd: number;
}

function rowOf(x: Float64Array, at: number, width: number, eps: number, centred: boolean): Row {
  let mean = 0;
  for (let c = 0; centred && c < width; c++) mean += x[at + c]! / width;
  let square = 0;
  for (let c = 0; c < width; c++) square += (x[at + c]! - mean) ** 2 / width;
  return { mean, rstd: 1 / sqrt(square + eps) };
}

function checkNorm({ x, gain, shift }: NormInputs, { rows, width, groups = 1 }: NormShape): void {
  requireInteger('groups', groups, 1);
  if (rows % groups !== 0) throw new RangeError(`rows: got ${rows}, wanted a multiple of groups = ${groups}`);
  requireLength('x', x, [rows, width]);
  if (gain !== undefined) requireLength('gain', gain, [groups, width]);
  if (shift !== undefined) requireLength('shift', shift, [groups, width]);
}

function normForward(inputs: NormInputs, shape: NormShape, centred: boolean): Float64Array {
  checkNorm(inputs, shape);
  const { x, gain, shift } = inputs;
  const { rows, width, groups = 1, eps = 1e-6 } = shape;
  const y = new Float64Array(x.length);
  for (let r = 0; r < rows; r++) {
    const { mean, rstd } = rowOf(x, r * width, width, eps, centred);
    const group = Math.floor((r * groups) / rows) * width;
    for (let c = 0; c < width; c++) {
      y[r * width + c] = (x[r * width + c]! - mean) * rstd * (gain?.[group + c] ?? 1) + (shift?.[group + c] ?? 0);
    }
  }
  return y;
}

/** With n the normalised row and g = dy * gain: dx = rstd * (g - mean(g) - n * mean(g * n)); no mean(g) under RMS. */
function normBackward(inputs: NormInputs, dy: Float64Array, shape: NormShape, centred: boolean): NormGradients {
  checkNorm(inputs, shape);
  const { x, gain } = inputs;
  const { rows, width, groups = 1, eps = 1e-6 } = shape;
  requireLength('dy', dy, [rows, width]);
  const [dx, dgain, dshift] = [x.length, groups * width, groups * width].map((n) => new Float64Array(n));
  for (let r = 0; r < rows; r++) {
    const at = r * width;
    const group = Math.floor((r * groups) / rows) * width;
    const { mean, rstd } = rowOf(x, at, width, eps, centred);
    let meanOfG = 0;
    let meanOfGn = 0;
    for (let c = 0; c < width; c++) {
      const n = (x[at + c]! - mean) * rstd;
      const g = dy[at + c]! * (gain?.[group + c] ?? 1);
      if (centred) meanOfG += g / width;
      meanOfGn += (g * n) / width;
      dgain![group + c]! += dy[at + c]! * n;
      dshift![group + c]! += dy[at + c]!;
    }
    for (let c = 0; c < width; c++) {
      const g = dy[at + c]! * (gain?.[group + c] ?? 1);
      dx![at + c] = rstd * (g - meanOfG - (x[at + c]! - mean) * rstd * meanOfGn);
    }
  }
  return { x: dx!, gain: dgain!, shift: dshift! };
}

/** (x - mean) / sqrt(variance + eps) * gain + shift, a row at a time. */
export function layerNormForward(inputs: NormInputs, shape: NormShape): Float64Array {
  return normForward(inputs, shape, true);
}

export function layerNormBackward(inputs: NormInputs, dy: Float64Array, shape: NormShape): NormGradients {
  return normBackward(inputs, dy, shape, true);
}

/** x / sqrt(mean(x^2) + eps) * gain, a row at a time. */
export function rmsNormForward(inputs: Omit<NormInputs, 'shift'>, shape: NormShape): Float64Array {
  return normForward(inputs, shape, false);
}

export function rmsNormBackward(
  inputs: Omit<NormInputs, 'shift'>,
  dy: Float64Array,
  shape: NormShape,
): Omit<NormGradients, 'shift'> {
  return normBackward(inputs, dy, shape, false);
}

const sigmoid = (x: number) => 1 / (1 + exp(-x));

/** x * sigmoid(x) */
export function siluForward(x: Float64Array): Float64Array {
  return x.map((value) => value * sigmoid(value));
}

export function siluBackward(x: Float64Array, dy: Float64Array): Float64Array {
  return x.map((value, i) => dy[i]! * sigmoid(value) * (1 + value * (1 - sigmoid(value))));
}

const GELU = sqrt(2 / Math.PI);

/** x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) */
export function geluTanhForward(x: Float64Array): Float64Array {
  return x.map((value) => (value / 2) * (1 + tanh(GELU * (value + 0.044715 * value ** 3))));
}

export function geluTanhBackward(x: Float64Array, dy: Float64Array): Float64Array {
  return x.map((value, i) => {
    const t = tanh(GELU * (value + 0.044715 * value ** 3));
    return dy[i]! * ((1 + t) / 2 + (value / 2) * (1 - t * t) * GELU * (1 + 3 * 0.044715 * value ** 2));
  });
}

export interface ResidualInputs {
  /** [groups, rows, width] */
  readonly x: Float64Array;
  /** As x. */
  readonly branch: Float64Array;
  /** [groups, width] */
  readonly gate: Float64Array;
}

export interface ResidualShape {
  readonly groups: number;
  /** Rows of one group. */
  readonly rows: number;
  readonly width: number;
}

function checkResidual({ x, branch, gate }: ResidualInputs, { groups, rows, width }: ResidualShape): void {
  requireLength('x', x, [groups, rows, width]);
  requireLength('branch', branch, [groups, rows, width]);
  requireLength('gate', gate, [groups, width]);
}

/** x + branch * gate, one gate for all rows of a group. */
export function gatedResidualForward(inputs: ResidualInputs, shape: ResidualShape): Float64Array {
  checkResidual(inputs, shape);
  const { rows, width } = shape;
  const gateAt = (i: number) => Math.floor(i / (rows * width)) * width + (i % width);
  return inputs.x.map((value, i) => value + inputs.branch[i]! * inputs.gate[gateAt(i)]!);
}

export function gatedResidualBackward(
  inputs: ResidualInputs,
  dy: Float64Array,
  shape: ResidualShape,
): { x: Float64Array; branch: Float64Array; gate: Float64Array } {
  checkResidual(inputs, shape);
  const { groups, rows, width } = shape;
  requireLength('dy', dy, [groups, rows, width]);
  const gate = new Float64Array(groups * width);
  const gateAt = (i: number) => Math.floor(i / (rows * width)) * width + (i % width);
  for (let i = 0; i < dy.length; i++) gate[gateAt(i)]! += dy[i]! * inputs.branch[i]!;
  return { x: dy.slice(), branch: dy.map((value, i) => value * inputs.gate[gateAt(i)]!), gate };
}

/** cos, then sin, of time * maxPeriod^(-i / (width / 2)): [times, width]. */
export function sinusoids(times: readonly number[], width: number, maxPeriod = 10000): Float64Array {
  const half = width / 2;
  requireInteger('width / 2', half, 1);
  const output = new Float64Array(times.length * width);
  times.forEach((time, b) => {
    for (let i = 0; i < half; i++) {
      const angle = time * maxPeriod ** (-i / half);
      output[b * width + i] = cos(angle);
      output[b * width + half + i] = sin(angle);
    }
  });
  return output;
}

/** mean((prediction - target)^2) */
export function meanSquaredErrorForward(prediction: Float64Array, target: Float64Array): number {
  requireLength('target', target, [prediction.length]);
  return prediction.reduce((sum, value, i) => sum + (value - target[i]!) ** 2, 0) / prediction.length;
}

/** Gradient with respect to the prediction. */
export function meanSquaredErrorBackward(prediction: Float64Array, target: Float64Array): Float64Array {
  requireLength('target', target, [prediction.length]);
  return prediction.map((value, i) => (2 * (value - target[i]!)) / prediction.length);
}
