import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { FILE_DTYPES, byteLengthOf, type HostArray } from '../../lib/files/host-array.js';
import { readNpy, writeNpy } from '../../lib/files/npy.js';
import { SafetensorsFile, readSafetensors, writeSafetensors } from '../../lib/files/safetensors.js';
import { VsaError } from '../../lib/errors.js';
import { npyBytes, put, safetensorsBytes, scratch, useScratchFolder } from './support.js';

useScratchFolder();

const arrays: fc.Arbitrary<HostArray> = fc
  .tuple(fc.constantFrom(...FILE_DTYPES), fc.array(fc.nat(5), { maxLength: 4 }), fc.nat())
  .map(([dtype, shape, seed]) => ({
    dtype,
    shape,
    data: Uint8Array.from({ length: byteLengthOf(dtype, shape) }, (_, i) => Math.imul(i + 1, seed) >>> 16),
  }));

const text = fc.string({ unit: 'binary', maxLength: 12 });
const names = text.filter((name) => name !== '__metadata__');

/** Resolves with whether the call succeeded; fails the test for anything but a typed error of a file. */
async function loads(call: () => Promise<unknown>): Promise<boolean> {
  try {
    await call();
    return true;
  } catch (error) {
    if (error instanceof VsaError && (error.code === 'ERR_FILE_FORMAT' || error.code === 'ERR_FILE')) return false;
    throw error;
  }
}

/** Damage to a file: bytes replaced, then cut or extended. Places are fractions of the length. */
const damage = fc.record({
  bytes: fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), fc.nat(255)), {
    maxLength: 4,
  }),
  cut: fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { freq: 3 }),
  more: fc.uint8Array({ maxLength: 3 }),
});

function damaged(
  original: Uint8Array,
  { bytes, cut, more }: { bytes: [number, number][]; cut: number | null; more: Uint8Array },
): Buffer {
  const copy = Buffer.from(original);
  for (const [place, value] of bytes) copy[Math.floor(place * copy.length)] = value;
  return Buffer.concat([copy.subarray(0, Math.floor((cut ?? 1) * copy.length)), more]);
}

describe('safetensors', () => {
  test('any tensors and metadata come back as they were, and are written the same again', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(names, arrays), { maxLength: 6 }),
        fc.array(fc.tuple(text, text), { maxLength: 3 }),
        fc.integer({ min: 1, max: 40 }),
        async (pairs, entries, chunkBytes) => {
          const tensors = new Map(pairs);
          const metadata = Object.create(null) as Record<string, string>;
          for (const [key, value] of entries) metadata[key] = value;
          await writeSafetensors(scratch(), tensors, { metadata });
          const written = readFileSync(scratch());

          const read = await readSafetensors(scratch());
          expect(new Map([...read.tensors].sort())).toEqual(new Map([...tensors].sort()));
          expect(Object.entries(read.metadata).sort()).toEqual(Object.entries(metadata).sort());
          const again = new Map([...read.tensors].reverse());
          await writeSafetensors(scratch('again'), again, { metadata: read.metadata });
          expect(readFileSync(scratch('again')).equals(written)).toBe(true);

          const file = await SafetensorsFile.open(scratch());
          for (const name of file.names()) {
            const chunks: Uint8Array[] = [];
            for await (const chunk of file.stream(name, chunkBytes)) chunks.push(chunk);
            expect(Buffer.concat(chunks).equals(tensors.get(name)?.data ?? Buffer.of(0))).toBe(true);
          }
          await file.close();
        },
      ),
      { numRuns: 30 },
    );
  });

  const header =
    '{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},' +
    '"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]},"c":{"dtype":"U8","shape":[0],"data_offsets":[14,14]}}';
  const original = safetensorsBytes(
    header,
    Uint8Array.from({ length: 14 }, (_, i) => i),
  );

  test('a damaged file loads or is refused, and never costs more than its size', async () => {
    const seen = { loaded: 0, refused: 0 };
    const before = process.memoryUsage().arrayBuffers;
    await fc.assert(
      fc.asyncProperty(damage, async (how) => {
        const path = put(damaged(original, how));
        seen[(await loads(() => readSafetensors(path))) ? 'loaded' : 'refused']++;
      }),
      { numRuns: 300 },
    );
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 24);
    // Both happen, or the damage is not what it is meant to be.
    expect(Math.min(seen.loaded, seen.refused)).toBeGreaterThan(0);
  });

  test('every truncation and every single flipped bit of the header', async () => {
    for (let size = 0; size < original.length; size++) {
      expect(await loads(() => readSafetensors(put(original.subarray(0, size))))).toBe(false);
    }
    for (let bit = 0; bit < (8 + header.length) * 8; bit++) {
      const copy = Buffer.from(original);
      copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      await loads(() => readSafetensors(put(copy)));
    }
  });

  test('any JSON for a header loads or is refused', async () => {
    await fc.assert(
      fc.asyncProperty(fc.json({ depthSize: 'small' }), fc.uint8Array({ maxLength: 8 }), async (json, data) => {
        await loads(() => readSafetensors(put(safetensorsBytes(json, data))));
        await loads(() => readSafetensors(put(safetensorsBytes(`{"x":${json}}`, data))));
        const shaped = `{"x":{"dtype":"U8","shape":${json},"data_offsets":[0,${data.byteLength}]}}`;
        await loads(() => readSafetensors(put(safetensorsBytes(shaped, data))));
      }),
      { numRuns: 100 },
    );
  });
});

describe('npy', () => {
  test('any array comes back as it was', async () => {
    await fc.assert(
      fc.asyncProperty(arrays, async (array) => {
        fc.pre(array.dtype !== 'bfloat16');
        await writeNpy(scratch(), array);
        expect(await readNpy(scratch())).toEqual(array);
      }),
      { numRuns: 30 },
    );
  });

  test('a damaged file loads or is refused, and never costs more than its size', async () => {
    const seen = { loaded: 0, refused: 0 };
    const before = process.memoryUsage().arrayBuffers;
    const header = `{'descr': '<i2', 'fortran_order': True, 'shape': (2, 2), }\n`;
    await fc.assert(
      fc.asyncProperty(damage, fc.constantFrom(1 as const, 2 as const, 3 as const), async (how, version) => {
        const path = put(damaged(npyBytes(header, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8), version), how));
        seen[(await loads(() => readNpy(path))) ? 'loaded' : 'refused']++;
      }),
      { numRuns: 300 },
    );
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 24);
    expect(Math.min(seen.loaded, seen.refused)).toBeGreaterThan(0);
  });
});
