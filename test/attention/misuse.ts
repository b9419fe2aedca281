/** Wrong calls and the typed errors they must give. */
import { Device, type ErrorCode, memory, Tensor, VsaError, VsaRangeError, VsaTypeError } from '../../lib/index.js';
import { here } from '../under-test.js';

/** What is wrong, the code, the argument that is named, and what the sentence must say besides. */
export type Misuse = readonly [
  what: string,
  options: object,
  code: ErrorCode,
  argument: string,
  says?: string | RegExp,
];

/** A call must throw a typed error: a code, and a sentence with the argument, what it got and what it wanted. */
export function expectError(call: () => unknown, code: ErrorCode, argument: string, says?: string | RegExp): void {
  const before = memory();
  let error: unknown;
  try {
    call();
  } catch (thrown) {
    error = thrown;
  }
  if (!(error instanceof VsaError || error instanceof VsaTypeError || error instanceof VsaRangeError)) {
    throw new Error(`a typed error with ${code} was expected, got ${String(error)}`, { cause: error });
  }
  expect({ code: error.code, argument: error.argument, message: error.message }).toEqual({
    code,
    argument,
    message: `${argument}: got ${error.got ?? 'nothing'}, wanted ${error.wanted ?? 'nothing'}`,
  });
  expect([error.got, error.wanted]).not.toContain(undefined);
  if (says !== undefined) expect(error.message).toMatch(says);
  expect(memory()).toEqual(before);
}

/** One test for each wrong way to call a function whose valid options are known. */
export function testMisuses(
  call: (options: never) => unknown,
  valid: () => object,
  misuses: () => readonly Misuse[],
): void {
  test.each([undefined, 'auto', here.type])('the valid call is valid, with backend %s', (backend) => {
    call({ ...valid(), ...(backend !== undefined && { backend }) } as never);
  });
  // Tables are made inside the test: they hold tensors.
  test('every wrong one is an error that says so', () => {
    for (const [what, options, code, argument, says] of misuses()) {
      const wrong = { ...valid(), ...options };
      try {
        expectError(() => call(wrong as never), code, argument, says);
      } catch (error) {
        throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
      }
    }
  });
}

/** The same memory, said to be on a GPU that is not there (`cuda:7`): what mixing devices looks like to a check. */
export function elsewhere(tensor: Tensor): Tensor {
  const other = Object.create(Device.prototype) as Device;
  Object.defineProperties(other, { type: { value: 'cuda' }, index: { value: 7 }, name: { value: 'a GPU' } });
  const moved = tensor.reshape(tensor.shape);
  Object.defineProperty(moved, 'device', { value: other });
  return moved;
}

export function disposed(tensor: Tensor): Tensor {
  const copy = tensor.clone();
  copy.dispose();
  return copy;
}

/** What is no tensor. */
export const NO_TENSORS: readonly unknown[] = [undefined, null, 5, 'q', {}, [], new Float32Array(4)];
