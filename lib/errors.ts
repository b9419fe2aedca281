/**
 * The errors this package throws. Each carries a `code`, and where they apply the `argument`, what it `got` and what
 * it `wanted`; the message says all three in one sentence. Classes are made here, not in C++, so that `instanceof`
 * holds across realms that load the addon twice.
 */

/** Why a call failed, for programs. The message is for people. */
export type ErrorCode =
  /** Wrong type or value of an argument, or an unknown option. */
  | 'ERR_ARGUMENT'
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  /** Tensors on different devices, or a device that is not there. */
  | 'ERR_DEVICE'
  /** A fault on the GPU ended its context: everything on it is gone, and only a new process can use it again. */
  | 'ERR_DEVICE_LOST'
  /** Not possible while a graph is recorded, or before it has run. */
  | 'ERR_CAPTURE'
  | 'ERR_DISPOSED'
  | 'ERR_GRID'
  | 'ERR_HEAD_DIM'
  | 'ERR_TOP_K'
  /** User lists that are unsorted, duplicated, out of range or of the wrong count. */
  | 'ERR_LISTS'
  /** No gradient can be had: nothing was recorded, it is freed, or a value it needs was overwritten. */
  | 'ERR_GRADIENT'
  /** The loss of a training step is no number. */
  | 'ERR_LOSS'
  /** A forced backend cannot serve the call. */
  | 'ERR_BACKEND'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_ADDON_MISSING'
  | 'ERR_ADDON_INCOMPATIBLE'
  /** A corrupt, truncated or hostile file. */
  | 'ERR_FILE_FORMAT'
  /** A file that cannot be read or written; `cause` is the system's error. */
  | 'ERR_FILE'
  /** ffmpeg is missing, or the video does not decode. */
  | 'ERR_VIDEO'
  /** A worker thread ended in the middle of its work; `cause` is the error that ended it, if there is one. */
  | 'ERR_WORKER'
  /** A broken promise of this package: please report it. */
  | 'ERR_INTERNAL';

export interface ErrorDetails {
  code: ErrorCode;
  /** Name of the argument or option at fault. */
  argument?: string;
  got?: string;
  wanted?: string;
  /** Replaces the sentence made of the other fields. */
  message?: string;
  cause?: unknown;
}

function sentence({ code, argument, got, wanted, message }: ErrorDetails): string {
  if (message !== undefined) return message;
  const facts = [got === undefined ? '' : `got ${got}`, wanted === undefined ? '' : `wanted ${wanted}`];
  const text = facts.filter((fact) => fact !== '').join(', ') || code;
  return argument === undefined ? text : `${argument}: ${text}`;
}

function errorOptions({ cause }: ErrorDetails): ErrorOptions | undefined {
  return cause === undefined ? undefined : { cause };
}

/** A failure at run time: files, devices, memory, the addon. */
export class VsaError extends Error {
  readonly code: ErrorCode;
  readonly argument: string | undefined;
  readonly got: string | undefined;
  readonly wanted: string | undefined;

  constructor(details: ErrorDetails) {
    super(sentence(details), errorOptions(details));
    this.name = 'VsaError';
    this.code = details.code;
    this.argument = details.argument;
    this.got = details.got;
    this.wanted = details.wanted;
  }
}

/** An argument of the wrong kind: type, dtype, device, a disposed tensor, an unknown option. */
export class VsaTypeError extends TypeError {
  readonly code: ErrorCode;
  readonly argument: string | undefined;
  readonly got: string | undefined;
  readonly wanted: string | undefined;

  constructor(details: ErrorDetails) {
    super(sentence(details), errorOptions(details));
    this.name = 'VsaTypeError';
    this.code = details.code;
    this.argument = details.argument;
    this.got = details.got;
    this.wanted = details.wanted;
  }
}

/** An argument of the right kind with an impossible value: shape, grid, K, lists. */
export class VsaRangeError extends RangeError {
  readonly code: ErrorCode;
  readonly argument: string | undefined;
  readonly got: string | undefined;
  readonly wanted: string | undefined;

  constructor(details: ErrorDetails) {
    super(sentence(details), errorOptions(details));
    this.name = 'VsaRangeError';
    this.code = details.code;
    this.argument = details.argument;
    this.got = details.got;
    this.wanted = details.wanted;
  }
}

/** Memory for a tensor could not be had. Sizes in bytes. */
export class OutOfMemoryError extends VsaError {
  readonly wantedBytes: number;
  readonly freeBytes: number;
  readonly totalBytes: number;

  constructor(details: ErrorDetails & { wantedBytes: number; freeBytes: number; totalBytes: number }) {
    super(details);
    this.name = 'OutOfMemoryError';
    this.wantedBytes = details.wantedBytes;
    this.freeBytes = details.freeBytes;
    this.totalBytes = details.totalBytes;
  }
}

/** A value as an error sentence shows it: short, one line, never throwing. */
export function show(value: unknown): string {
  try {
    return shown(value, 0);
  } catch {
    return 'an object that cannot be looked at'; // a revoked proxy, a getter that throws
  }
}

/** `depth`: arrays around it. */
function shown(value: unknown, depth: number): string {
  if (typeof value === 'string') {
    const line = value.slice(0, 61).replace(/\p{Cc}/gu, (control) => JSON.stringify(control).slice(1, -1));
    return line.length > 60 ? `'${line.slice(0, 57)}...'` : `'${line}'`;
  }
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'number' || typeof value === 'boolean' || value === undefined || value === null) {
    return Object.is(value, -0) ? '-0' : String(value);
  }
  if (Array.isArray(value)) {
    if (depth > 1) return 'an array';
    const items = Array.from(value.slice(0, 8), (item) => shown(item, depth + 1)).join(', ');
    return value.length > 8 ? `[${items}, ... ${value.length} in all]` : `[${items}]`;
  }
  if (typeof value === 'function') return `function ${value.name || '(anonymous)'}`;
  if (typeof value === 'symbol') return value.toString();
  const name = (Object.getPrototypeOf(value) as { constructor?: { name?: string } } | null)?.constructor?.name;
  if (typeof name !== 'string' || name === '' || name === 'Object') return 'an object';
  return `${/^[AEIO]/.test(name) ? 'an' : 'a'} ${name}`;
}
