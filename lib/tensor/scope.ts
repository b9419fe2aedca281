/**
 * Deterministic release of memory. The collector's finalizers do not run inside a synchronous loop, and a training
 * step is one, so memory is bounded by `dispose()`, `using` and `tidy` alone.
 */

import { show, VsaTypeError } from '../errors.js';

/** Whatever owns device memory: a tensor, lists, saved state. */
export interface Resource {
  dispose(): void;
  readonly disposed: boolean;
}

/** An object that owns several resources names them to `tidy` and `keep`. */
export interface Owner {
  ownedResources(): Iterable<Resource>;
}

const scopes: Set<Resource>[] = [];

/** Enters a new resource into the running `tidy`, if there is one. */
export function track(resource: Resource): void {
  if (scopes.length > 0) scopes[scopes.length - 1]!.add(resource);
}

/** Forgets a resource that is disposed: a long loop inside one `tidy` must not collect what it has disposed itself. */
export function untrack(resource: Resource): void {
  for (const scope of scopes) scope.delete(resource);
}

function isOwner(value: object): value is Owner {
  return typeof (value as Partial<Owner>).ownedResources === 'function';
}

function isResource(value: object): value is Resource {
  return typeof (value as Partial<Resource>).dispose === 'function' && 'disposed' in value;
}

/** Results are not as deep, but those that hold themselves: from here on it is remembered what was seen. */
const DEEP = 8;

/** Every resource that a value holds: in arrays, maps, sets and plain objects, however deep. */
function collect(value: unknown, found: Set<Resource>, depth: number, seen?: Set<object>): void {
  if (typeof value !== 'object' || value === null) return;
  const owner = isOwner(value);
  if (!owner && isResource(value)) {
    found.add(value);
    return;
  }
  if (depth === DEEP) seen = new Set();
  if (seen?.has(value) === true) return;
  seen?.add(value);
  if (owner) {
    for (const resource of value.ownedResources()) collect(resource, found, depth + 1, seen);
  } else if (Array.isArray(value) || value instanceof Set) {
    for (const item of value as Iterable<unknown>) collect(item, found, depth + 1, seen);
  } else if (value instanceof Map) {
    for (const entry of value) collect(entry, found, depth + 1, seen);
  } else {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype === null || prototype === Object.prototype || Object.getPrototypeOf(prototype) === null) {
      for (const item of Object.values(value)) collect(item, found, depth + 1, seen);
    }
  }
}

function resourcesOf(value: unknown): Set<Resource> {
  const found = new Set<Resource>();
  collect(value, found, 0);
  return found;
}

/**
 * Runs a synchronous function and disposes every tensor, list and saved state made inside it, but those in its result
 * (also within arrays, maps and plain objects) and those that `keep` took out. Also when it throws: then all of them.
 * Scopes nest: a result belongs to the scope around.
 *
 * @throws VsaTypeError ERR_ARGUMENT if `fn` is no function, or returns a promise: memory would be freed too early.
 */
export function tidy<T>(fn: () => T): T {
  if (typeof fn !== 'function') {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'fn', got: show(fn), wanted: 'a function' });
  }
  const scope = new Set<Resource>();
  scopes.push(scope);
  let kept = new Set<Resource>();
  try {
    const result = fn();
    if (typeof (result as { then?: unknown } | null | undefined)?.then === 'function') {
      // Nobody will see its outcome.
      (result as unknown as Promise<unknown>).then(undefined, () => undefined);
      throw new VsaTypeError({
        code: 'ERR_ARGUMENT',
        argument: 'fn',
        got: 'a function that returns a promise',
        wanted: 'a synchronous one (await outside of tidy)',
      });
    }
    kept = resourcesOf(result);
    return result;
  } finally {
    scopes.pop();
    for (const resource of scope) {
      if (kept.has(resource)) track(resource);
      else resource.dispose();
    }
  }
}

/** Takes what a value holds out of every running `tidy`; it must then be disposed by hand. Returns the value. */
export function keep<T>(value: T): T {
  for (const resource of resourcesOf(value)) untrack(resource);
  return value;
}
