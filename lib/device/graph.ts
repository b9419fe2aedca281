/** Work that was recorded once and runs again and again, without the cost of its calls. */

import { native, type NativeGraph } from '../binding.js';
import { VsaTypeError } from '../errors.js';

/**
 * What `device.graph(fn)` recorded. `replay()` runs it again on the same memory: update inputs with `copyFrom`, then
 * replay, then read the outputs. It keeps its inputs' memory and that of everything made inside alive until it is
 * disposed. Tensors in `output` are yours to dispose, before or after.
 */
export class Graph<T> implements Disposable {
  #native: NativeGraph | undefined;

  /** @internal */
  constructor(
    graph: NativeGraph,
    /** What the recorded function returned. Its tensors can be read once `replay()` was called. */
    readonly output: T,
  ) {
    this.#native = graph;
  }

  get disposed(): boolean {
    return this.#native === undefined;
  }

  /** Puts the recorded work on the device's queue, and returns. */
  replay(): void {
    if (this.#native === undefined) {
      throw new VsaTypeError({
        code: 'ERR_DISPOSED',
        argument: 'this',
        got: 'a disposed graph',
        wanted: 'a living one',
      });
    }
    native().replay(this.#native);
  }

  /** Gives back the graph and its memory, but what living tensors hold. Calling it again does nothing. */
  dispose(): void {
    if (this.#native === undefined) return;
    native().releaseGraph(this.#native);
    this.#native = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
