/** What every operation of the benchmark offers to be run, timed and judged. */

import type { Device } from '../device/device.js';
import { Tensor } from '../tensor/tensor.js';
import type { BenchCase } from './cases.js';
import type { HostLists, ListsSummary } from './lists.js';
import type { Findings } from './verdict/findings.js';

/**
 * One operation on inputs of its own.
 *
 * @typeParam F What a forward returns: tensors, lists, saved state, as members of an object.
 * @typeParam G What a backward returns.
 */
export interface Workload<F extends object = object, G extends object = object> {
  /** Of the lists that it attends by; undefined if there are none. */
  readonly summary: ListsSummary | undefined;
  forward(): F;
  /** Undefined: there is none. */
  backward?(forward: F): G;
  /** Sampled rows against float64; what is wrong goes to the findings. */
  judgeForward(forward: F, findings: Findings): Promise<void>;
  judgeBackward?(forward: F, backward: G, findings: Findings): Promise<void>;
  dispose(): void;
}

/** What makes a workload. */
export interface Setup {
  readonly one: BenchCase;
  readonly device: Device;
  /** Made ahead, for operations that take lists; undefined: full ones. */
  readonly lists: HostLists | undefined;
}

/** Random normal inputs, each from a stream of its own. */
export function randomInputs(
  { one, device }: Pick<Setup, 'one' | 'device'>,
  shapes: Readonly<Record<string, readonly number[]>>,
  dtype: 'float32' | 'bfloat16' | 'float16',
): Record<string, Tensor> {
  const made: Record<string, Tensor> = {};
  try {
    for (const [stream, [name, shape]] of Object.entries(shapes).entries()) {
      const seed = BigInt(one.seed) * 65_536n + BigInt(stream + 1);
      made[name] = Tensor.randn(shape, { device, dtype, seed });
    }
    return made;
  } catch (error) {
    disposeAll(made);
    throw error;
  }
}

/** Of everything that an object holds. */
export function disposeAll(held: object): void {
  for (const value of Object.values(held)) {
    if (typeof value === 'object' && value !== null && Symbol.dispose in value) (value as Disposable)[Symbol.dispose]();
  }
}
