/**
 * The tape: what was computed from what, for as long as somebody can still ask for gradients. A recorded call lives
 * while its output or a later call that used it lives; then what it saved is given back, at once and without the
 * collector.
 */

import { show, VsaError } from '../errors.js';
import { keep, type Resource } from '../tensor/scope.js';
import { share, Tensor, type Version, versionOf, whenDisposed } from '../tensor/tensor.js';
import { gradEnabled } from './mode.js';

/**
 * Gradients of a call's inputs from that of its output, in the order of the inputs; only those in `wanted` are used.
 * What it returns belongs to the tape; it must not dispose the gradient it is given.
 */
export type BackwardFunction = (gradient: Tensor, wanted: readonly boolean[]) => readonly (Tensor | undefined)[];

/** What a tensor is to the tape: a leaf that gathers gradients, or the output of a recorded call. */
export class History {
  requiresGrad = false;
  grad: Tensor | undefined;
  call: RecordedCall | undefined;
  /** Its tensor is disposed: nobody could ask for a gradient, nor dispose it. */
  forgotten = false;

  get tracked(): boolean {
    return this.requiresGrad || this.call !== undefined;
  }

  readonly forget = (): void => {
    this.forgotten = true;
    this.grad?.dispose();
    this.grad = undefined;
    this.call?.drop();
  };
}

const histories = new WeakMap<Tensor, History>();

interface Remembered {
  version: Version;
  count: number;
  shape: readonly number[];
}

let calls = 0;

export class RecordedCall {
  /** Later calls have larger numbers, so descending order is an order of the backward. */
  readonly number = ++calls;
  freed = false;
  readonly #remembered: Remembered[] = [];
  /** The output, the later calls that used it, and a backward that is about to run it. */
  #users = 1;

  constructor(
    readonly name: string,
    /** The tensors' histories; undefined where no gradient is wanted. */
    public inputs: readonly (History | undefined)[],
    readonly models: readonly Model[],
    private readonly saved: readonly Resource[],
    readonly backward: BackwardFunction,
  ) {
    for (const input of inputs) input?.call?.use();
    for (const tensor of tensorsIn(saved)) {
      const version = versionOf(tensor);
      this.#remembered.push({ version, count: version.count, shape: tensor.shape });
    }
  }

  use(): void {
    this.#users += 1;
  }

  /** Gives back what is saved where nobody is left to need it. */
  drop(): void {
    // A loop, not a recursion: a long chain must not end the stack.
    const dropped: RecordedCall[] = [this];
    for (let call = dropped.pop(); call !== undefined; call = dropped.pop()) {
      call.#users -= 1;
      if (call.#users === 0) dropped.push(...call.#free());
    }
  }

  /** After its backward: nothing of it is needed any more. */
  free(): void {
    for (const input of this.#free()) input.drop();
  }

  /** Disposes what is saved; the calls whose users this was. */
  #free(): RecordedCall[] {
    if (this.freed) return [];
    this.freed = true;
    for (const resource of this.saved) resource.dispose();
    const used = this.inputs.flatMap((input) => input?.call ?? []);
    this.inputs = [];
    return used;
  }

  checkReady(): void {
    if (this.freed) {
      throw new VsaError({
        code: 'ERR_GRADIENT',
        argument: 'this',
        got: `a graph in which ${this.name} is freed`,
        wanted: 'one backward() a forward, or backward(gradient, { retainGraph: true }) before',
      });
    }
    const overwritten = this.#remembered.find(({ version, count }) => version.count !== count);
    if (overwritten === undefined) return;
    throw new VsaError({
      code: 'ERR_GRADIENT',
      argument: 'this',
      got: `a graph in which a tensor ${show(overwritten.shape)} that ${this.name} needs was overwritten after its forward`,
      wanted: 'the values it was called with: overwrite after backward(), or clone() before',
    });
  }
}

/** What a gradient of an input must look like. */
interface Model {
  shape: readonly number[];
  dtype: Tensor['dtype'];
  device: Tensor['device'];
}

function* tensorsIn(resources: Iterable<Resource>): Iterable<Tensor> {
  for (const resource of resources) {
    if (resource instanceof Tensor) yield resource;
    const owner = resource as { ownedResources?: () => Iterable<Resource> };
    if (typeof owner.ownedResources === 'function') yield* tensorsIn(owner.ownedResources());
  }
}

export function historyOf(tensor: Tensor): History {
  let history = histories.get(tensor);
  if (history === undefined) {
    history = new History();
    histories.set(tensor, history);
    const { forget } = history;
    whenDisposed(tensor, forget);
  }
  return history;
}

/** What the tape knows of a tensor that gradients flow to. */
export function trackedHistory(tensor: Tensor): History | undefined {
  const history = histories.get(tensor);
  return history?.tracked === true ? history : undefined;
}

/** Whether gradients flow to a tensor. */
export function isTracked(tensor: Tensor): boolean {
  return trackedHistory(tensor) !== undefined;
}

/** Whether a tensor came from a recorded call. */
export function isRecorded(tensor: Tensor): boolean {
  return histories.get(tensor)?.call !== undefined;
}

export function gradOf(tensor: Tensor): Tensor | undefined {
  return histories.get(tensor)?.grad;
}

export function dropGrad(tensor: Tensor): void {
  const history = histories.get(tensor);
  history?.grad?.dispose();
  if (history !== undefined) history.grad = undefined;
}

/** Makes a tensor a leaf whose gradient is wanted, or no longer. */
export function setRequiresGrad(tensor: Tensor, value: boolean): void {
  if (!value && !histories.has(tensor)) return;
  historyOf(tensor).requiresGrad = value;
}

/**
 * Records that `output` came from `inputs`, if calls are recorded and a gradient of one is wanted; else gives back
 * what was saved.
 *
 * @param saved What the backward needs. It belongs to the tape from now on, and to no `tidy`.
 * @param always Also where no input wants a gradient: for functions that use tensors they do not name.
 */
export function record(
  name: string,
  inputs: readonly (Tensor | undefined)[],
  output: Tensor,
  saved: readonly Resource[],
  backward: BackwardFunction,
  always = false,
): void {
  const wanted = inputs.map((input) => (input !== undefined && isTracked(input) ? historyOf(input) : undefined));
  if (!gradEnabled() || !(always || wanted.some((history) => history !== undefined))) {
    for (const resource of saved) resource.dispose();
    return;
  }
  const models = inputs.map((input) => ({
    shape: input?.shape ?? [],
    dtype: input?.dtype ?? 'float32',
    device: input?.device ?? output.device,
  }));
  keep(saved);
  historyOf(output).call = new RecordedCall(name, wanted, models, saved, backward);
}

/** A function may return an input, or another tensor with a history, as it is; the output needs one of its own. */
export function outputOf(made: Tensor, inputs: readonly (Tensor | undefined)[]): Tensor {
  return isTracked(made) || inputs.includes(made) ? share(made) : made;
}
