/** What the data's tests share. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';

import type { ClipShape } from '../../lib/media/shape.js';
import type { ClipSource, SourceDescription } from '../../lib/data/source.js';

/** The first 16 hex digits of the SHA-256 of an array's bytes. */
export function checksum(values: Float32Array): string {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16);
}

/** The module that test/data/fixtures/source.cjs makes sources of. */
const FIXTURE = join(__dirname, 'fixtures', 'source.cjs');

export interface FixtureOptions {
  /** What clip `at` does instead of giving its frames. */
  fault?: { at: number; does: 'throw' | 'throw ours' | 'crash' | 'exit' | 'hang' | 'spin' | 'short' };
  /** Int32: how many clips were asked for. */
  asked?: SharedArrayBuffer;
  /** Makes the module itself throw. */
  broken?: true;
}

/** A source whose clips are full of their number, as a worker makes it; here its clips cannot be had. */
export class Fixture implements ClipSource {
  readonly count: number;
  readonly shape: ClipShape = [1, 8, 8];
  readonly #options: FixtureOptions;

  constructor(options: FixtureOptions = {}, count = 100) {
    this.#options = options;
    this.count = count;
  }

  clip(): Promise<Float32Array> {
    return Promise.reject(new Error('asked here instead of in the worker'));
  }

  describe(): SourceDescription {
    return { kind: 'module', file: FIXTURE, options: { ...this.#options, count: this.count } };
  }
}

/** The same source in this thread: its clips are full of their number. */
export class Numbered implements ClipSource {
  readonly count: number;
  readonly shape: ClipShape = [1, 8, 8];

  constructor(count = 100) {
    this.count = count;
  }

  clip(index: number): Promise<Float32Array> {
    return Promise.resolve(new Float32Array(192).fill(index));
  }

  describe(): SourceDescription {
    return { kind: 'local' };
  }
}

/** Waits for something to become true. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resume) => setTimeout(resume, 5));
}
