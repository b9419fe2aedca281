/** What an array to be written can be given as: bytes in memory, or bytes that are made on the way. */
import { types } from 'node:util';
import { VsaRangeError, VsaTypeError, show } from '../errors.js';
import { byteLengthOf, checkHostArray, type HostArray, type HostArrayStream } from './host-array.js';
import { checkObject, isIterable } from './io.js';

export type HostArraySource = HostArray | HostArrayStream;

/** Values by name: what functions that write several arrays take. */
export type Named<T> = ReadonlyMap<string, T> | Readonly<Record<string, T>>;

/**
 * Names and values, in the order given.
 * @throws VsaTypeError ERR_ARGUMENT for what is neither a Map nor a plain object, or has a name that is no string.
 */
export function entriesOf<T>(named: Named<T>, argument: string): (readonly [string, T])[] {
  const wanted = 'a Map or an object of values by name';
  checkObject(named, argument, wanted);
  if (!types.isMap(named)) {
    if (!isIterable(named)) return Object.entries(named);
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(named), wanted });
  }
  const entries = [...named];
  for (const [name] of entries) {
    if (typeof name === 'string') continue;
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: `the name ${show(name)}`, wanted: 'strings' });
  }
  return entries;
}

/**
 * Checks a source and returns its byte length.
 * @param argument the source's name in the error's sentence
 * @throws VsaTypeError ERR_ARGUMENT or ERR_DTYPE; VsaRangeError ERR_SHAPE.
 */
export function checkSource(source: HostArraySource, argument: string): number {
  const wanted = 'a HostArray { dtype, shape, data } or a stream { dtype, shape, chunks }';
  checkObject(source, argument, wanted);
  if (!('data' in source || 'chunks' in source)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(source), wanted });
  }
  if ('data' in source) return checkHostArray(source, argument);
  if (isIterable(source.chunks)) return byteLengthOf(source.dtype, source.shape, argument);
  throw new VsaTypeError({
    code: 'ERR_ARGUMENT',
    argument: `${argument}.chunks`,
    got: show(source.chunks),
    wanted: 'an iterable of Uint8Arrays',
  });
}

/**
 * The bytes of a source.
 * @throws VsaRangeError ERR_SHAPE if they turn out to be fewer or more than `byteLength`; VsaTypeError ERR_ARGUMENT for
 *   chunks that are no bytes; whatever the stream throws.
 */
export async function* sourceBytes(
  source: HostArraySource,
  byteLength: number,
  argument: string,
): AsyncGenerator<Uint8Array> {
  const chunks = 'data' in source ? [source.data] : source.chunks;
  let done = 0;
  const checkTotal = (right: boolean): void => {
    if (right) return;
    throw new VsaRangeError({
      code: 'ERR_SHAPE',
      argument,
      got: `chunks of ${done} bytes${done > byteLength ? ' so far' : ''}`,
      wanted: `${byteLength} bytes for ${source.dtype} ${show(source.shape)}`,
    });
  };
  for await (const chunk of chunks) {
    if (!types.isUint8Array(chunk)) {
      const got = `a chunk that is ${show(chunk)}`;
      throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got, wanted: 'Uint8Arrays' });
    }
    done += chunk.byteLength;
    checkTotal(done <= byteLength);
    yield chunk;
  }
  checkTotal(done === byteLength);
}
