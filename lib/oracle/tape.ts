/** Reverse accumulation over float64 arrays: what strings the layers' backwards together in the oracle of a model. */
import {
  type LinearShape,
  type NormShape,
  geluTanhBackward,
  geluTanhForward,
  gatedResidualBackward,
  gatedResidualForward,
  layerNormBackward,
  layerNormForward,
  linearBackward,
  linearForward,
  rmsNormBackward,
  rmsNormForward,
  type ResidualShape,
  siluBackward,
  siluForward,
} from './layers.js';
import { rotaryBackward, rotaryForward, type RotaryShape } from './rotary.js';
import { requireLength } from './checks.js';

/** A value and, after `backward`, the gradient of the loss with respect to it. */
export interface Variable {
  readonly value: Float64Array;
  readonly gradient: Float64Array;
}

function addTo(sum: Float64Array, term: Float64Array): void {
  requireLength('gradient', term, [sum.length]);
  for (let i = 0; i < sum.length; i++) sum[i]! += term[i]!;
}

/** Records what is applied to variables, and goes back through it. */
export class Tape {
  readonly #backwards: (() => void)[] = [];

  variable(value: Float64Array): Variable {
    return { value, gradient: new Float64Array(value.length) };
  }

  /** The result of a function of `inputs`; `backward` gives their gradients, in order, from that of the result. */
  apply(
    inputs: readonly (Variable | undefined)[],
    value: Float64Array,
    backward: (dy: Float64Array) => readonly (Float64Array | undefined)[],
  ): Variable {
    const output = this.variable(value);
    this.#backwards.push(() => {
      backward(output.gradient).forEach((gradient, i) => {
        const input = inputs[i];
        if (input !== undefined && gradient !== undefined) addTo(input.gradient, gradient);
      });
    });
    return output;
  }

  /** Adds to the gradient of everything that `output` was made of, given its own. Once a tape. */
  backward(output: Variable, gradient: Float64Array): void {
    addTo(output.gradient, gradient);
    for (const step of this.#backwards.splice(0).reverse()) step();
  }

  linear(x: Variable, weight: Variable, bias: Variable, shape: LinearShape): Variable {
    const inputs = { x: x.value, weight: weight.value, bias: bias.value };
    return this.apply([x, weight, bias], linearForward(inputs, shape), (dy) => {
      const grads = linearBackward(inputs, dy, shape);
      return [grads.x, grads.weight, grads.bias];
    });
  }

  /** With `modulated`, the gain is 1 + gain: a modulation's scale. */
  layerNorm(
    x: Variable,
    shape: NormShape,
    { gain, shift, modulated }: { gain: Variable; shift: Variable; modulated: boolean },
  ): Variable {
    const factor = modulated ? gain.value.map((value) => 1 + value) : gain.value;
    const inputs = { x: x.value, gain: factor, shift: shift.value };
    return this.apply([x, gain, shift], layerNormForward(inputs, shape), (dy) => {
      const grads = layerNormBackward(inputs, dy, shape);
      return [grads.x, grads.gain, grads.shift];
    });
  }

  rmsNorm(x: Variable, gain: Variable, shape: NormShape): Variable {
    const inputs = { x: x.value, gain: gain.value };
    return this.apply([x, gain], rmsNormForward(inputs, shape), (dy) => {
      const grads = rmsNormBackward(inputs, dy, shape);
      return [grads.x, grads.gain];
    });
  }

  rotary(x: Variable, angles: Float64Array, shape: RotaryShape): Variable {
    return this.apply([x], rotaryForward(x.value, angles, shape), (dy) => [rotaryBackward(dy, angles, shape)]);
  }

  silu(x: Variable): Variable {
    return this.apply([x], siluForward(x.value), (dy) => [siluBackward(x.value, dy)]);
  }

  geluTanh(x: Variable): Variable {
    return this.apply([x], geluTanhForward(x.value), (dy) => [geluTanhBackward(x.value, dy)]);
  }

  gatedResidual(x: Variable, branch: Variable, gate: Variable, shape: ResidualShape): Variable {
    const inputs = { x: x.value, branch: branch.value, gate: gate.value };
    return this.apply([x, branch, gate], gatedResidualForward(inputs, shape), (dy) => {
      const grads = gatedResidualBackward(inputs, dy, shape);
      return [grads.x, grads.branch, grads.gate];
    });
  }

  /** a + b, with b repeated where it is shorter. */
  add(a: Variable, b: Variable): Variable {
    const n = b.value.length;
    const sum = a.value.map((value, i) => value + b.value[i % n]!);
    return this.apply([a, b], sum, (dy) => {
      const db = new Float64Array(n);
      dy.forEach((value, i) => (db[i % n]! += value));
      return [dy, db];
    });
  }

  /** Row `index` of every group: [groups, rows, width] to [groups, width]. */
  row(x: Variable, index: number, { groups, rows, width }: ResidualShape): Variable {
    requireLength('x', x.value, [groups, rows, width]);
    const value = new Float64Array(groups * width);
    const place = (i: number) => (Math.floor(i / width) * rows + index) * width + (i % width);
    value.forEach((_, i) => (value[i] = x.value[place(i)]!));
    return this.apply([x], value, (dy) => {
      const dx = new Float64Array(x.value.length);
      dy.forEach((g, i) => (dx[place(i)] = g));
      return [dx];
    });
  }
}
