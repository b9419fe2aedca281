/** Modules: parameters under dotted names, in modules within modules. */

import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { noGrad } from '../autograd/index.js';
import { FLOAT_DTYPES } from '../tensor/dtype.js';
import { type Owner, type Resource, tidy } from '../tensor/scope.js';
import { handleOf, Tensor } from '../tensor/tensor.js';
import { checkBoolean, checkChoice, checkOptions, sameShape } from '../validate.js';

export interface LoadOptions {
  /** Whether an entry that is no parameter here is an error (default) or passed over. */
  strict?: boolean;
  /** A parameter without an entry: an error (default), or kept as it is. */
  missing?: 'error' | 'keep';
}

/** Names as an error shows them: the first few, and how many there are. */
function list(names: readonly string[]): string {
  const shown = names.slice(0, 4).map((name) => show(name));
  return names.length > 4 ? `${shown.join(', ')} and ${String(names.length - 4)} more` : shown.join(', ');
}

/**
 * What holds parameters: tensors of its own and those of modules inside it, `blocks.0.attention.q.weight`. It owns
 * them all: `dispose()` gives them back with their gradients, and a `tidy` that returns a module keeps them.
 *
 * @example
 * class Projection extends Module {
 *   readonly linear = this.child('linear', new Linear({ inputs: 64, outputs: 32 }));
 *   readonly gain = this.parameter('gain', Tensor.full([32], 1));
 * }
 * new Projection().parameters(); // Map { 'gain', 'linear.weight', 'linear.bias' }
 */
export abstract class Module implements Owner, Resource, Disposable {
  readonly #parameters = new Map<string, Tensor>();
  readonly #children = new Map<string, Module>();
  readonly #others: Resource[] = [];
  #disposed = false;

  /** Takes a tensor over as a parameter: a leaf that gathers gradients. */
  protected parameter(name: string, tensor: Tensor): Tensor {
    this.#checkName(name);
    tensor.requiresGrad = true;
    this.#parameters.set(name, tensor);
    return tensor;
  }

  /** Takes a module over; its parameters are named after it. */
  protected child<M extends Module>(name: string, module: M): M {
    this.#checkName(name);
    this.#children.set(name, module);
    return module;
  }

  /** Takes over what is no parameter, as a table that is computed once. */
  protected own<R extends Resource>(resource: R): R {
    this.#others.push(resource);
    return resource;
  }

  #checkName(name: string): void {
    if (name !== '' && !this.#parameters.has(name) && !this.#children.has(name)) return;
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: 'name',
      got: `${show(name)} in ${this.constructor.name}`,
      wanted: 'a name that no other parameter or module there has',
    });
  }

  /** Every parameter under its dotted name: this module's own, then those of the modules inside, as they were made. */
  parameters(): Map<string, Tensor> {
    const found = new Map(this.#parameters);
    for (const [prefix, module] of this.#children) {
      for (const [name, tensor] of module.parameters()) found.set(`${prefix}.${name}`, tensor);
    }
    return found;
  }

  /** Number of trained values. */
  get parameterCount(): number {
    let count = 0;
    for (const tensor of this.parameters().values()) count += tensor.size;
    return count;
  }

  /**
   * Overwrites parameters with values of the same names and shapes, of any float dtype, on any device. Nothing changes
   * if it throws.
   *
   * @throws VsaTypeError ERR_ARGUMENT naming missing and unexpected entries, ERR_DTYPE, ERR_DISPOSED; VsaRangeError
   *   ERR_SHAPE naming misshapen ones.
   */
  load(values: ReadonlyMap<string, Tensor>, options: LoadOptions = {}): this {
    checkOptions('options', options, ['strict', 'missing']);
    const strict = checkBoolean('strict', options.strict ?? true);
    const missing = checkChoice('missing', options.missing ?? 'error', ['error', 'keep']);
    if (!isMap(values)) {
      const wanted = 'a Map of tensors by name';
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'values', got: show(values), wanted });
    }
    const parameters = this.parameters();
    const absent = [...parameters.keys()].filter((name) => !values.has(name));
    if (missing === 'error') failFor(absent, 'no entry', "one for every parameter, or missing: 'keep'");
    const unexpected = [...values.keys()].filter((name) => !parameters.has(name));
    if (strict) failFor(unexpected, 'an entry', 'parameters of this module only, or strict: false');
    const pairs: [Tensor, Tensor][] = [];
    for (const [name, parameter] of parameters) {
      handleOf(parameter, name);
      const value = values.get(name);
      if (values.has(name)) pairs.push([parameter, checkValue(name, value, parameter)]);
    }
    noGrad(() => {
      tidy(() => {
        const here = pairs.map(([parameter, value]) => value.to(parameter.device));
        pairs.forEach(([parameter], index) => parameter.copyFrom(here[index]!));
      });
    });
    return this;
  }

  get disposed(): boolean {
    if (this.#disposed) return true;
    for (const resource of this.ownedResources()) if (resource.disposed) return true;
    return false;
  }

  /** Disposes every parameter and its gradient. */
  dispose(): void {
    this.#disposed = true;
    for (const resource of this.ownedResources()) resource.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal */
  *ownedResources(): Iterable<Resource> {
    yield* this.#parameters.values();
    yield* this.#others;
    for (const module of this.#children.values()) yield* module.ownedResources();
  }
}

/** Not a type guard: that would forget what the map holds. */
function isMap(value: unknown): boolean {
  return value instanceof Map;
}

function failFor(names: readonly string[], what: string, wanted: string): void {
  if (names.length === 0) return;
  throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'values', got: `${what} for ${list(names)}`, wanted });
}

/** A value that a parameter can take. */
function checkValue(name: string, value: unknown, parameter: Tensor): Tensor {
  const argument = `values: ${name}`;
  if (!(value instanceof Tensor)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted: 'a Tensor' });
  }
  handleOf(value, argument);
  if (!FLOAT_DTYPES.includes(value.dtype)) {
    throw new VsaTypeError({ code: 'ERR_DTYPE', argument, got: value.dtype, wanted: FLOAT_DTYPES.join(' or ') });
  }
  if (sameShape(value.shape, parameter.shape)) return value;
  const [got, wanted] = [show(value.shape), show(parameter.shape)];
  throw new VsaRangeError({ code: 'ERR_SHAPE', argument, got, wanted });
}
