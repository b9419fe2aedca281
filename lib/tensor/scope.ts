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

/** The resources of one running `tidy`, in the order they were made; those that left it stay until it is cleaned. */
interface Scope {
  resources: Scoped[];
  left: number;
}

/** Scopes that are not worth cleaning. */
const FEW = 64;

const scopes: Scope[] = [];

let scopeOf: (resource: Scoped) => Scope | undefined;
let setScope: (resource: Scoped, scope: Scope | undefined) => void;
let isScoped: (value: object) => value is Scoped;

/** A resource that `tidy` disposes. It knows its scope itself: sets of resources would cost more than most calls. */
export abstract class Scoped implements Resource {
  #scope: Scope | undefined = undefined;

  static {
    scopeOf = (resource) => resource.#scope;
    setScope = (resource, scope) => {
      resource.#scope = scope;
    };
    isScoped = (value): value is Scoped => #scope in value;
  }

  abstract dispose(): void;
  abstract get disposed(): boolean;
}

/** Enters a resource, new or of no scope, into the running `tidy`, if there is one. */
export function track(resource: Scoped): void {
  const scope = scopes[scopes.length - 1];
  if (scope === undefined) return;
  setScope(resource, scope);
  scope.resources.push(resource);
}

/** Forgets a resource that is disposed: a long loop inside one `tidy` must not collect what it has disposed itself. */
export function untrack(resource: Scoped): void {
  const scope = scopeOf(resource);
  if (scope === undefined) return;
  setScope(resource, undefined);
  scope.left += 1;
  if (scope.left < FEW || 2 * scope.left < scope.resources.length) return;
  scope.resources = scope.resources.filter((one) => scopeOf(one) === scope);
  scope.left = 0;
}

function isOwner(value: object): value is Owner {
  return typeof (value as Partial<Owner>).ownedResources === 'function';
}

/** Results are not as deep, but those that hold themselves: from here on it is remembered what was seen. */
const DEEP = 8;

/** Every resource that a value holds: in arrays, maps, sets and plain objects, however deep. */
function collect(value: unknown, found: Scoped[], depth: number, seen?: Set<object>): void {
  if (typeof value !== 'object' || value === null) return;
  if (isScoped(value)) {
    found.push(value);
    return;
  }
  const owner = isOwner(value);
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

function resourcesOf(value: unknown): Scoped[] {
  const found: Scoped[] = [];
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
  const scope: Scope = { resources: [], left: 0 };
  scopes.push(scope);
  let kept: Scoped[] = [];
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
    for (const resource of kept) {
      if (scopeOf(resource) !== scope) continue; // of no scope, of one around, or met before
      setScope(resource, undefined);
      track(resource);
    }
    for (const resource of scope.resources) {
      if (scopeOf(resource) !== scope) continue;
      setScope(resource, undefined);
      resource.dispose();
    }
  }
}

/**
 * @internal Runs a function that makes nothing but its result, and disposes what it made if it throws: a `tidy` that
 * need not look for what to keep, which costs as much as making it.
 */
export function allOrNothing<T>(fn: () => T): T {
  const scope: Scope = { resources: [], left: 0 };
  scopes.push(scope);
  let made = false;
  try {
    const result = fn();
    made = true;
    return result;
  } finally {
    scopes.pop();
    for (const resource of scope.resources) {
      if (scopeOf(resource) !== scope) continue;
      setScope(resource, undefined);
      if (made) track(resource);
      else resource.dispose();
    }
  }
}

/** Takes what a value holds out of every running `tidy`; it must then be disposed by hand. Returns the value. */
export function keep<T>(value: T): T {
  for (const resource of resourcesOf(value)) untrack(resource);
  return value;
}
