/** What the tensor tests share: typed failures, and a check that nothing is left behind. */

import { memory } from '../../lib/device/device.js';
import { type ErrorCode, VsaError, VsaRangeError, VsaTypeError } from '../../lib/errors.js';

export type Failure = VsaError | VsaTypeError | VsaRangeError;

/** A failure as it is wanted: class, code, argument, and what it says it got and wanted. */
export interface Expected {
  type: typeof VsaError | typeof VsaTypeError | typeof VsaRangeError;
  code: ErrorCode;
  argument: string;
  got: string | RegExp;
  wanted: string | RegExp;
}

export function checkFailure(error: unknown, expected: Expected): Failure {
  expect(error).toBeInstanceOf(expected.type);
  const failure = error as Failure;
  expect(failure).toMatchObject({ code: expected.code, argument: expected.argument, name: expected.type.name });
  for (const part of ['got', 'wanted'] as const) {
    const wanted = expected[part];
    if (typeof wanted === 'string') expect(failure[part]).toBe(wanted);
    else expect(failure[part]).toMatch(wanted);
  }
  expect(failure.message).toBe(`${expected.argument}: got ${failure.got!}, wanted ${failure.wanted!}`);
  return failure;
}

/** What a call throws, or what its promise rejects with. */
export async function failureOf(call: () => unknown): Promise<unknown> {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error('a failure was expected');
}

/** Every test of a file must dispose what it makes; one that does not fails alone. */
export function leaveNothingBehind(): void {
  let left = { numTensors: 0, numBytes: 0 };
  beforeAll(() => {
    left = memory();
  });
  afterEach(() => {
    const before = left;
    left = memory();
    expect(left).toEqual(before);
  });
}

/** The bits of float32 numbers. */
export function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}
