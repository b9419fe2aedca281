/** A training step as one launch: the host queues a graph, not two thousand operations. */

import type { Device } from '../device/device.js';
import type { Graph } from '../device/graph.js';
import { keep, tidy } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';

/** What a step gets from the host's side. */
export interface StepInputs {
  /** `[B, L, channels]` */
  readonly noisy: Tensor;
  /** Of the same shape. */
  readonly target: Tensor;
  /** The times as `VideoDiT.timeWaves` gives them. */
  readonly waves: Tensor;
}

export interface StepOutputs {
  /** float32 `[]` */
  readonly loss: Tensor;
  /** float32 `[2]`: the gradient's norm, and what the optimizer multiplied gradients by: clipping, less a loss scale. */
  readonly norm: Tensor;
}

const NAMES = ['noisy', 'target', 'waves'] as const satisfies readonly (keyof StepInputs)[];

/** The work of a step, on inputs of its own. */
export class RecordedStep implements Disposable {
  readonly #inputs: StepInputs;
  readonly #graph: Graph<StepOutputs>;

  /**
   * Records and does not run. `inputs` tell the shapes.
   *
   * @throws OutOfMemoryError: a graph holds the activations of a step for itself.
   */
  constructor(device: Device, inputs: StepInputs, work: (inputs: StepInputs) => StepOutputs) {
    const { noisy, target, waves } = inputs;
    this.#inputs = keep(tidy(() => ({ noisy: noisy.clone(), target: target.clone(), waves: waves.clone() })));
    try {
      this.#graph = device.graph(() => work(this.#inputs));
      keep(this.#graph.output);
    } catch (error) {
      for (const name of NAMES) this.#inputs[name].dispose();
      throw error;
    }
  }

  /** @returns Tensors for the caller to dispose. */
  replay(inputs: StepInputs): StepOutputs {
    for (const name of NAMES) this.#inputs[name].copyFrom(inputs[name]);
    this.#graph.replay();
    const { loss, norm } = this.#graph.output;
    return { loss: loss.clone(), norm: norm.clone() };
  }

  dispose(): void {
    const { loss, norm } = this.#graph.output;
    for (const one of [loss, norm, this.#graph]) one.dispose();
    for (const name of NAMES) this.#inputs[name].dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
