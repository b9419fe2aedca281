/** The exponential moving average of parameters. */

import { noGrad } from '../../autograd/mode.js';
import { native } from '../../binding.js';
import { show, VsaRangeError, VsaTypeError } from '../../errors.js';
import { keep, tidy } from '../../tensor/scope.js';
import { handleOf, share, type Tensor, versionOf } from '../../tensor/tensor.js';
import { checkOptions } from '../../validate.js';
import { checkParameters, checkState, overwrite, type Parameters } from './parameters.js';

export interface MovingAverageOptions {
  /** From 0 to 1; 0.999 averages over about the last thousand updates. */
  decay: number;
}

function checkDecay(value: unknown): number {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  const wanted = 'a number from 0 to 1';
  throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'decay', got: show(value), wanted });
}

/**
 * A copy of parameters that follows them slowly: `average += (1 - decay) * (value - average)` at every update, in
 * float64 from float32 and rounded once. It begins at the values. Its memory is its own until `dispose()`, whatever
 * `tidy` is around. Source: Polyak and Juditsky, 1992, with exponential weights.
 */
export class MovingAverage implements Disposable {
  /** The averages, float32 tensors that change with every update and are disposed with this. */
  readonly averages: ReadonlyMap<string, Tensor>;
  readonly #parameters: ReadonlyMap<string, Tensor>;
  readonly #decay: number;

  /**
   * @throws VsaRangeError ERR_ARGUMENT; VsaTypeError ERR_ARGUMENT, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED.
   */
  constructor(parameters: Parameters, options: MovingAverageOptions) {
    this.#parameters = checkParameters(parameters).named;
    checkOptions('options', options, ['decay']);
    this.#decay = checkDecay(options.decay);
    const copies = () => new Map([...this.#parameters].map(([name, tensor]) => [name, tensor.clone()]));
    this.averages = keep(noGrad(() => tidy(copies)));
  }

  get disposed(): boolean {
    return [...this.averages.values()].every(({ disposed }) => disposed);
  }

  /**
   * Moves the averages towards the values of now.
   *
   * @param options.decay For this update alone, where the average is to be shorter at first.
   */
  update(options: Partial<MovingAverageOptions> = {}): void {
    checkOptions('options', options, ['decay']);
    const decay = options.decay === undefined ? this.#decay : checkDecay(options.decay);
    this.#checkLiving();
    const entries = [...this.#parameters];
    native().movingAverage({
      counts: entries.map(([, { size }]) => size),
      averages: [...this.averages].map(([name, average]) => handleOf(average, `averages.${name}`)),
      values: entries.map(([name, value]) => handleOf(value, `parameters.${name}`)),
      decay,
    });
    for (const average of this.averages.values()) versionOf(average).count += 1;
  }

  /** The averages by name, in tensors of the same memory that are yours to dispose. */
  state(): Map<string, Tensor> {
    this.#checkLiving();
    return tidy(() => new Map([...this.averages].map(([name, average]) => [name, share(average)])));
  }

  /**
   * Overwrites the averages with what `state()` gave, bit for bit, from any device: all of it, or nothing where it
   * throws.
   */
  loadState(state: ReadonlyMap<string, Tensor>): void {
    this.#checkLiving();
    checkState(state, this.averages);
    noGrad(() => {
      for (const [name, average] of this.averages) overwrite(average, state.get(name)!);
    });
  }

  dispose(): void {
    for (const average of this.averages.values()) average.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #checkLiving(): void {
    if (!this.disposed) return;
    const [got, wanted] = ['a disposed MovingAverage', 'a living one'];
    throw new VsaTypeError({ code: 'ERR_DISPOSED', argument: 'this', got, wanted });
  }
}
