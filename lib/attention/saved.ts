/** What a forward keeps for its backward. */

import type { Owner, Resource } from '../tensor/scope.js';

/**
 * Saved state of one forward call. It owns what it holds through handles of its own: disposing an input or the output
 * after the forward does not touch it. Dispose it when its backward has run or will not be called.
 */
export abstract class Saved implements Owner, Resource, Disposable {
  readonly #resources: readonly Resource[];
  #disposed = false;

  /** @internal */
  constructor(resources: readonly (Resource | undefined)[]) {
    this.#resources = resources.filter((resource) => resource !== undefined);
  }

  /** @internal */
  ownedResources(): Iterable<Resource> {
    return this.#resources;
  }

  get disposed(): boolean {
    // A tidy around may have disposed what is held.
    return this.#disposed || this.#resources.some((resource) => resource.disposed);
  }

  dispose(): void {
    this.#disposed = true;
    for (const resource of this.#resources) resource.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
