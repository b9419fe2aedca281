/** Rows that earlier runs have left in files. */

import { readFile } from 'node:fs/promises';
import { show, VsaError, VsaTypeError } from '../errors.js';
import type { BenchOptions } from './options.js';
import type { BenchRow } from './row.js';

/** What a field of a row may be; with a question mark also null, which is what one that is not there counts as. */
type Kind = 'text' | 'text?' | 'number' | 'number?' | 'flag' | 'flag?' | 'numbers' | 'times';

/** Files of before `peak_bytes` lack it. */
const FIELDS: Readonly<Record<keyof BenchRow, Kind>> = {
  ...{ op: 'text', direction: 'text', backend: 'text', B: 'number', H: 'number', Hkv: 'number', grid: 'text' },
  ...{ tokens: 'number', slots: 'number', D: 'number', dtype: 'text', tiles: 'number', tile: 'text', K: 'number?' },
  ...{ sparsity: 'number?', lists: 'text?', data: 'text', seed: 'number?', overlap: 'number?', order: 'text?' },
  ...{ prefix: 'number', coarse: 'text?', fineGate: 'flag?', cache: 'text', graph: 'flag', deterministic: 'flag?' },
  ...{ forced: 'flag', ms: 'number?', ms_p10: 'number?', ms_p90: 'number?', samples: 'numbers', host_us: 'number?' },
  ...{ stages: 'times', peak_bytes: 'number?', gflop: 'number?', tflops: 'number?', tflops_slots: 'number?' },
  ...{ mfu: 'number?', gbs: 'number?', bound: 'text?', bound_ms: 'number?', bound_share: 'number?', ok: 'flag?' },
  ...{ error: 'text?', device: 'text', driver: 'text?', cuda: 'text?', sm_mhz: 'number?', watts: 'number?' },
  ...{ celsius: 'number?', package: 'text?', commit: 'text?', date: 'text' },
};
const TYPES = { text: 'string', number: 'number', flag: 'boolean' } as const;
const WANTED = 'rows of vsa bench, as JSON lines or an array';

/**
 * Rows from a file: JSON lines, or one JSON array.
 * @throws VsaError ERR_FILE, ERR_FILE_FORMAT.
 */
export async function readRows(path: string): Promise<BenchRow[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new VsaError({ code: 'ERR_FILE', argument: path, got: 'no file', wanted: 'rows of vsa bench', cause });
  }
  return parse(text, path).map((value, i) => rowOf(value, path, i + 1));
}

function parse(text: string, path: string): unknown[] {
  if (text.trimStart().startsWith('[')) {
    try {
      return JSON.parse(text) as unknown[];
    } catch (cause) {
      throw formatError(path, 'no JSON', WANTED, cause);
    }
  }
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line, i) => {
    try {
      return JSON.parse(line) as unknown;
    } catch (cause) {
      throw formatError(path, `no JSON in line ${i + 1}`, WANTED, cause);
    }
  });
}

/** Fields that no row has (those of a comparison) are left out. */
function rowOf(value: unknown, path: string, number: number): BenchRow {
  if (typeof value !== 'object' || value === null || !('op' in value)) {
    throw formatError(path, `${show(value)} as row ${number}`, WANTED);
  }
  const given = value as Record<string, unknown>;
  const entries = Object.entries(FIELDS).map(([name, kind]) => {
    const field = valueOf(given[name], kind);
    if (field !== undefined) return [name, field] as const;
    throw formatError(path, `${name} ${show(given[name])} in row ${number}`, `${WANTED}: there, ${describe(kind)}`);
  });
  return Object.fromEntries(entries) as unknown as BenchRow;
}

/** Undefined: it is not of the kind. */
function valueOf(value: unknown, kind: Kind): unknown {
  if (kind === 'numbers')
    return value === undefined ? [] : Array.isArray(value) && allNumbers(value) ? value : undefined;
  if (kind === 'times') {
    if (value === undefined) return {};
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject && allNumbers(Object.values(value)) ? value : undefined;
  }
  const mayBeNull = kind.endsWith('?');
  if (value === null || value === undefined) return mayBeNull ? null : undefined;
  return typeof value === TYPES[kind.replace('?', '') as keyof typeof TYPES] ? value : undefined;
}

const allNumbers = (values: readonly unknown[]): boolean => values.every((value) => typeof value === 'number');

function describe(kind: Kind): string {
  if (kind === 'numbers') return 'an array of numbers';
  if (kind === 'times') return 'an object of numbers';
  const type = TYPES[kind.replace('?', '') as keyof typeof TYPES];
  return `a ${type}${kind.endsWith('?') ? ' or null' : ''}`;
}

function formatError(path: string, got: string, wanted: string, cause?: unknown): VsaError {
  return new VsaError({ code: 'ERR_FILE_FORMAT', argument: path, got, wanted, cause });
}

/** What goes with files of rows: how they are shown. */
const SHOWING: ReadonlySet<string> = new Set(['from', 'html', 'compare', 'json'] satisfies (keyof BenchOptions)[]);

/**
 * The rows of all files, one after another.
 *
 * @throws As readRows; VsaTypeError for options that are about measuring.
 */
export async function readRecorded(options: BenchOptions): Promise<BenchRow[]> {
  const paths = typeof options.from === 'string' ? [options.from] : (options.from ?? []);
  if (paths.length === 0 || paths.includes('')) {
    throw new VsaTypeError({
      code: 'ERR_ARGUMENT',
      argument: 'from',
      got: show(options.from),
      wanted: 'names of files',
    });
  }
  for (const [argument, value] of Object.entries(options)) {
    if (value === undefined || SHOWING.has(argument)) continue;
    const wanted = `none beside 'from': rows of files are shown, nothing is measured`;
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument, got: show(value), wanted });
  }
  return (await Promise.all(paths.map(readRows))).flat();
}
