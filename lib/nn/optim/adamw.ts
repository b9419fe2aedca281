/** Adam with decoupled weight decay. */

import { noGrad } from '../../autograd/mode.js';
import { type Native, native } from '../../binding.js';
import type { Device } from '../../device/device.js';
import { show, VsaError, VsaRangeError, VsaTypeError } from '../../errors.js';
import { keep, tidy } from '../../tensor/scope.js';
import { handleOf, share, Tensor, versionOf } from '../../tensor/tensor.js';
import { checkBoolean, checkOptions, sameShape } from '../../validate.js';
import { checkFactor } from '../ops/arithmetic.js';
import { checkAnyTensor, checkLike } from '../ops/checks.js';
import { sliceOf } from '../ops/shape.js';
import { type Cohort, type Slot, splitByGradient } from './cohorts.js';
import { checkParameters, checkState, overwrite, type Parameters as NamedTensors } from './parameters.js';

export interface AdamWOptions {
  /** Of steps that are given none. Default 1e-3. */
  learningRate?: number;
  /** Decays of the moments, from 0 to below 1. Default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Default 1e-8. */
  eps?: number;
  /** Default 0.01. */
  weightDecay?: number;
  /** Which parameters decay. Default: those of rank 2 and more, so no biases and no norms' gains. */
  decays?: (name: string, parameter: Tensor) => boolean;
}

export interface AdamWStepOptions {
  /** Of this step; rounded to float32, as all that depends on the step. Default: the optimizer's. */
  learningRate?: number;
  /** Gradients are multiplied by it: what `gradientNorm` returned, or a float32 tensor of one element. */
  gradientScale?: Tensor;
}

type NativeCall = Parameters<Native['adamW']>[0];

function checkRange(argument: string, value: unknown, below = Infinity): number {
  const number = checkFactor(argument, value);
  if (number >= 0 && number < below) return number;
  const wanted = below === Infinity ? 'a number of at least 0' : `a number from 0 to below ${String(below)}`;
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument, got: show(number), wanted });
}

function checkBetas(value: unknown): readonly [number, number] {
  if (Array.isArray(value) && value.length === 2) {
    return [checkRange('betas[0]', value[0], 1), checkRange('betas[1]', value[1], 1)];
  }
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'betas', got: show(value), wanted: 'two numbers' });
}

/**
 * AdamW (Loshchilov and Hutter, arXiv 1711.05101) of float32 parameters:
 *
 *     m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *     p -= learningRate * (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weightDecay * p)
 *
 * computed in float64 from float32 state and rounded once a step. t counts the steps of each parameter: one without a
 * `grad` in a step is left alone, its moments and its count too. Moments stay in memory until `dispose()`, whatever
 * `tidy` is around.
 */
export class AdamW implements Disposable {
  readonly #device: Device;
  readonly #slots: readonly Slot[];
  readonly #learningRate: number;
  readonly #betas: readonly [number, number];
  readonly #eps: number;
  readonly #weightDecay: number;
  #cohorts: Cohort[] = [];
  /** Those that a recorded step works on, as long as they are what they were then. */
  #recorded: Cohort[] | undefined;
  #disposed = false;

  /**
   * @throws VsaRangeError ERR_ARGUMENT; VsaTypeError ERR_ARGUMENT, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED; OutOfMemoryError.
   */
  constructor(parameters: NamedTensors, options: AdamWOptions = {}) {
    const { named, device } = checkParameters(parameters);
    checkOptions('options', options, ['learningRate', 'betas', 'eps', 'weightDecay', 'decays']);
    this.#learningRate = checkRange('learningRate', options.learningRate ?? 1e-3);
    this.#betas = checkBetas(options.betas ?? [0.9, 0.999]);
    this.#eps = checkRange('eps', options.eps ?? 1e-8);
    this.#weightDecay = checkRange('weightDecay', options.weightDecay ?? 0.01);
    const decays: unknown = options.decays ?? ((_: string, { rank }: Tensor) => rank >= 2);
    if (typeof decays !== 'function') {
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'decays', got: show(decays), wanted: 'a function' });
    }
    this.#device = device;
    const choose = decays as (name: string, parameter: Tensor) => boolean;
    const moments: Tensor[] = [];
    const zeros = ({ shape }: Tensor) => moments[moments.push(Tensor.zeros(shape, { device })) - 1]!;
    this.#slots = tidy(() => {
      const slots = [...named].map(([name, parameter]) => ({
        ...{ name, parameter, decays: checkBoolean('decays', choose(name, parameter)) },
        ...{ first: zeros(parameter), second: zeros(parameter) },
      }));
      this.#cohorts = [{ steps: 0, slots, rates: Tensor.zeros([3], { device }) }];
      keep([moments, this.#cohorts[0]!.rates]);
      return slots;
    });
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /**
   * Changes the parameters that have a `grad`, in place; one native call for all that decay and one for the others.
   * Where it throws nothing has changed.
   *
   * Inside of `device.graph` this records the change alone: call `prepareReplay` before every replay.
   */
  step(options: AdamWStepOptions = {}): void {
    checkOptions('options', options, ['learningRate', 'gradientScale']);
    this.#checkLiving();
    for (const { name, parameter } of this.#slots) handleOf(parameter, `parameters.${name}`);
    const learningRate = this.#rateOf(options);
    tidy(() => {
      const scale = this.#scaleOf(options.gradientScale);
      const active = this.#withGradients();
      const recording = native().capturing(this.#device.number);
      const calls = active.flatMap((cohort) => this.#callsOf(cohort, scale, recording));
      if (recording) this.#recorded = active;
      else this.#advance(active, learningRate);
      for (const call of calls) native().adamW(call);
      this.#count(active);
    });
  }

  /**
   * Before a graph is replayed in which `step` was recorded: sets the learning rate and bias corrections of that step.
   *
   * @throws VsaError ERR_CAPTURE where no step was recorded, or since then others of its parameters had gradients.
   */
  prepareReplay(options: Pick<AdamWStepOptions, 'learningRate'> = {}): void {
    checkOptions('options', options, ['learningRate']);
    this.#checkLiving();
    const learningRate = this.#rateOf(options);
    if (this.#recorded === undefined) {
      throw new VsaError({
        code: 'ERR_CAPTURE',
        argument: 'this',
        got: 'an optimizer without a recorded step that still holds',
        wanted: 'step() inside of device.graph() first, and after it the same parameters with gradients',
      });
    }
    this.#advance(this.#recorded, learningRate);
    this.#count(this.#recorded);
  }

  /** Disposes the gradients of all parameters. */
  zeroGrad(): void {
    for (const { parameter } of this.#slots) parameter.zeroGrad();
  }

  /**
   * What another optimizer of the same parameters needs to go on bit for bit: `NAME.first` and `NAME.second`, float32
   * of the parameter's shape, in tensors that share the optimizer's memory and change with the next step; and `steps`,
   * int32, each parameter's count. They are yours to dispose.
   */
  state(): Map<string, Tensor> {
    this.#checkLiving();
    return noGrad(() =>
      tidy(() => {
        const state = new Map<string, Tensor>();
        for (const { name, first, second } of this.#slots) {
          state.set(`${name}.first`, share(first)).set(`${name}.second`, share(second));
        }
        const counts = new Map(
          this.#cohorts.flatMap(({ steps, slots }) => slots.map((slot) => [slot, steps] as const)),
        );
        const steps = Int32Array.from(this.#slots, (slot) => counts.get(slot)!);
        return state.set('steps', Tensor.from(steps, undefined, { device: 'cpu' }));
      }),
    );
  }

  /**
   * Goes on from what `state()` gave, from any device: all of it, or nothing where it throws. Waits for the device.
   *
   * @throws VsaTypeError ERR_ARGUMENT, ERR_DTYPE, ERR_DISPOSED; VsaRangeError ERR_SHAPE, ERR_ARGUMENT.
   */
  loadState(state: ReadonlyMap<string, Tensor>): void {
    this.#checkLiving();
    const wanted = new Map<string, Pick<Tensor, 'shape' | 'dtype'>>();
    for (const { name, first, second } of this.#slots) wanted.set(`${name}.first`, first).set(`${name}.second`, second);
    checkState(state, wanted.set('steps', { shape: [this.#slots.length], dtype: 'int32' }));
    const steps = state.get('steps')!.dataSync() as Int32Array;
    const negative = steps.find((count) => count < 0);
    if (negative !== undefined) {
      const [got, range] = [show(negative), 'counts of at least 0'];
      throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'state.steps', got, wanted: range });
    }
    this.#recorded = undefined;
    for (const { rates } of this.#cohorts) rates?.dispose();
    this.#cohorts = [...new Set(steps)].map((count) => {
      return { steps: count, slots: this.#slots.filter((_, i) => steps[i] === count), rates: undefined };
    });
    noGrad(() => {
      for (const { name, first, second } of this.#slots) {
        overwrite(first, state.get(`${name}.first`)!);
        overwrite(second, state.get(`${name}.second`)!);
      }
    });
  }

  dispose(): void {
    this.#disposed = true;
    for (const { first, second } of this.#slots) {
      first.dispose();
      second.dispose();
    }
    for (const { rates } of this.#cohorts) rates?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #checkLiving(): void {
    if (!this.#disposed) return;
    throw new VsaTypeError({ code: 'ERR_DISPOSED', argument: 'this', got: 'a disposed AdamW', wanted: 'a living one' });
  }

  #rateOf({ learningRate }: AdamWStepOptions): number {
    return learningRate === undefined ? this.#learningRate : checkRange('learningRate', learningRate);
  }

  /** One number on the device. */
  #scaleOf(value: Tensor | undefined): Tensor | undefined {
    if (value === undefined) return undefined;
    const { shape } = checkAnyTensor('gradientScale', value, ['float32']);
    if (value.size !== 1 && !sameShape(shape, [2])) {
      const wanted = '[2], what gradientNorm returned, or one element';
      throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'gradientScale', got: show(shape), wanted });
    }
    checkLike('gradientScale', value, { shape, dtype: 'float32', device: this.#device }, 'every parameter');
    return value.size === 1 ? value : sliceOf(value, { dim: 0, start: 1, length: 1 });
  }

  #withGradients(): Cohort[] {
    const { active, split } = splitByGradient(this.#cohorts);
    if (split.some((cohort) => this.#recorded?.includes(cohort))) this.#recorded = undefined;
    return active;
  }

  /** One call for the members that decay, one for the others. */
  #callsOf(cohort: Cohort, scale: Tensor | undefined, recording: boolean): NativeCall[] {
    if (cohort.rates === undefined && recording) {
      const [got, wanted] = ['parameters whose first step this is', 'a step before it is recorded'];
      throw new VsaError({ code: 'ERR_CAPTURE', argument: 'this', got, wanted });
    }
    cohort.rates ??= keep(Tensor.zeros([3], { device: this.#device }));
    const [beta1, beta2] = this.#betas;
    const common = {
      ...{ beta1, beta2, eps: this.#eps, rates: handleOf(cohort.rates, 'this') },
      gradientScale: scale === undefined ? undefined : handleOf(scale, 'gradientScale'),
    };
    return [true, false].flatMap((decays) => {
      const slots = cohort.slots.filter((slot) => slot.decays === decays);
      if (slots.length === 0) return [];
      return {
        ...common,
        weightDecay: decays ? this.#weightDecay : 0,
        counts: slots.map(({ parameter }) => parameter.size),
        values: slots.map(({ name, parameter }) => handleOf(parameter, `parameters.${name}`)),
        gradients: slots.map(({ name, parameter }) => handleOf(parameter.grad!, `parameters.${name}.grad`)),
        firsts: slots.map(({ first }) => handleOf(first, 'this')),
        seconds: slots.map(({ second }) => handleOf(second, 'this')),
      };
    });
  }

  /** One step further: its learning rate and bias corrections on the device. */
  #advance(cohorts: readonly Cohort[], learningRate: number): void {
    for (const cohort of cohorts) {
      const corrections = this.#betas.map((beta) => 1 - beta ** (cohort.steps + 1));
      cohort.rates!.copyFrom(Float32Array.of(learningRate, ...corrections));
      cohort.steps += 1;
    }
  }

  /** Tells the tape what was overwritten. */
  #count(cohorts: readonly Cohort[]): void {
    for (const { parameter, first, second } of cohorts.flatMap(({ slots }) => slots)) {
      for (const tensor of [parameter, first, second]) versionOf(tensor).count += 1;
    }
  }
}
