import { readFileSync, truncateSync } from 'node:fs';
import { memory } from '../../lib/device/device.js';
import { fromTypedArray, type HostArray } from '../../lib/files/host-array.js';
import { readNpy, writeNpy } from '../../lib/files/npy.js';
import { readSafetensors, writeSafetensors } from '../../lib/files/safetensors.js';
import { loadNpy, loadSafetensors, saveNpy, saveSafetensors } from '../../lib/files/tensors.js';
import { tidy } from '../../lib/tensor/scope.js';
import type { Tensor } from '../../lib/tensor/tensor.js';
import { failure, npyBytes, put, scratch, scratchNames, useScratchFolder } from './support.js';
import { fresh, here } from '../under-test.js';

useScratchFolder();

let before = memory();
beforeEach(() => {
  before = memory();
});
// Whatever a test did or failed at, no tensor of a load or a save is left.
afterEach(() => {
  expect(memory()).toEqual(before);
});

function disposeAll(tensors: Iterable<Tensor>): void {
  for (const tensor of tensors) tensor.dispose();
}

function bytesOf(tensor: Tensor | undefined): Buffer {
  return Buffer.from(tensor?.dataSync().buffer as ArrayBuffer);
}

describe('safetensors', () => {
  test.each(['float32', 'bfloat16', 'float16', 'int32'] as const)(
    '%s tensors come back as they were',
    async (dtype) => {
      const tensors = {
        matrix: fresh.from([1, -2, 3.5, 1e5, 0, -7], [2, 3], { dtype }),
        scalar: fresh.from([3], [], { dtype }),
        empty: fresh.zeros([4, 0], { dtype }),
      };
      await saveSafetensors(scratch(), tensors, { metadata: { made: 'by a test' } });
      const loaded = await loadSafetensors(scratch(), { device: here });
      expect(loaded.metadata).toEqual({ made: 'by a test' });
      expect(Object.keys(loaded.tensors).sort()).toEqual(['empty', 'matrix', 'scalar']);
      for (const [name, tensor] of Object.entries(tensors)) {
        const copy = loaded.tensors[name];
        expect([copy?.dtype, copy?.shape, copy?.device]).toEqual([dtype, tensor.shape, here]);
        expect(copy?.dataSync()).toEqual(tensor.dataSync());
      }
      expect((await readSafetensors(scratch())).tensors.get('matrix')?.dtype).toBe(dtype);
      disposeAll([...Object.values(tensors), ...Object.values(loaded.tensors)]);
    },
  );

  test('a tensor of several chunks', async () => {
    using tensor = fresh.randbits([3, 1_500_007], { seed: 5 });
    await saveSafetensors(scratch(), { tensor });
    const { tensors } = await loadSafetensors(scratch(), { device: here });
    using copy = tensors['tensor'];
    expect(bytesOf(copy).equals(bytesOf(tensor))).toBe(true);
  });

  test('the tensors asked for, and no others', async () => {
    const values = new Map<string, HostArray>([
      ['a', fromTypedArray('float32', [1], Float32Array.of(1))],
      ['b', fromTypedArray('int64', [1], BigInt64Array.of(2n))],
      ['__proto__', fromTypedArray('int32', [1], Int32Array.of(3))],
    ]);
    await writeSafetensors(scratch(), values);
    const { tensors } = await loadSafetensors(scratch(), { names: ['__proto__', 'a', 'a'], device: here });
    expect(Object.getPrototypeOf(tensors)).toBeNull();
    expect(Object.entries(tensors).map(([name, tensor]) => [name, tensor.item()])).toEqual([
      ['__proto__', 3],
      ['a', 1],
    ]);
    disposeAll(Object.values(tensors));
    expect(Object.keys((await loadSafetensors(scratch(), { names: [] })).tensors)).toEqual([]);

    const error = await failure(loadSafetensors(scratch()), 'ERR_DTYPE', '"b"', 'int64', 'SafetensorsFile', 'bfloat16');
    expect(error.argument).toContain(scratch());
    await failure(loadSafetensors(scratch(), { names: ['a', 'c'] }), 'ERR_ARGUMENT', '"c"');
    await failure(loadSafetensors(scratch(), { names: 'a' as never }), 'ERR_ARGUMENT', 'names');
    await failure(loadSafetensors(scratch(), { name: ['a'] } as never), 'ERR_ARGUMENT', 'name');
    await failure(loadSafetensors(scratch(), { device: 'tpu' as never }), 'ERR_DEVICE', 'tpu');
    await failure(loadSafetensors(scratch('none')), 'ERR_FILE', 'ENOENT');
  });

  test('more dimensions than tensors have', async () => {
    const shape = Array<number>(9).fill(1);
    await writeSafetensors(scratch(), { x: { dtype: 'float32', shape, data: new Uint8Array(4) } });
    await failure(loadSafetensors(scratch()), 'ERR_SHAPE', '"x"', 'at most 8 dims');
  });

  test('a load that fails half-way leaves nothing behind', async () => {
    const rows = 1 << 20;
    using big = fresh.zeros([rows, 8]);
    using small = fresh.zeros([8]);
    await saveSafetensors(scratch(), { a: small, z: big });
    const loading = loadSafetensors(scratch(), { device: here });
    // The header has been read by the time the second tensor's bytes are gone.
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      if (memory().numTensors > before.numTensors + 3) break;
    }
    truncateSync(scratch(), 4096);
    await failure(loading, 'ERR_FILE_FORMAT', 'the end of the file');
  });

  test('tensors may be disposed once the save has begun, also by a tidy', async () => {
    const tensor = fresh.from([1, 2, 3]);
    const saving = tidy(() => {
      const scaled = fresh.from([4, 5]);
      return { promise: saveSafetensors(scratch(), { tensor, scaled }) };
    });
    tensor.dispose();
    await saving.promise;
    const { tensors } = await readSafetensors(scratch());
    expect([...(tensors.get('tensor')?.data ?? [])]).toEqual([...Buffer.from(Float32Array.of(1, 2, 3).buffer)]);
    expect([...(tensors.get('scaled')?.data ?? [])]).toEqual([...Buffer.from(Float32Array.of(4, 5).buffer)]);
  });

  test('does not block the event loop', async () => {
    using tensor = fresh.zeros([16, 1 << 20]);
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await saveSafetensors(scratch(), { tensor });
    const whileSaving = turns;
    const { tensors } = await loadSafetensors(scratch(), { device: here });
    clearInterval(timer);
    disposeAll(Object.values(tensors));
    // 64 MiB pass through in eight chunks, and other work gets its turn between them.
    expect(whileSaving).toBeGreaterThanOrEqual(4);
    expect(turns - whileSaving).toBeGreaterThanOrEqual(4);
  });

  test('what cannot be saved leaves the old file', async () => {
    const path = put('old');
    using tensor = fresh.zeros([2]);
    const gone = fresh.zeros([2]);
    gone.dispose();
    await failure(saveSafetensors(path, { tensor, gone }), 'ERR_DISPOSED', 'tensors["gone"]');
    await failure(saveSafetensors(path, { tensor: [1, 2] as never }), 'ERR_ARGUMENT', 'tensors["tensor"]', '[1, 2]');
    await failure(saveSafetensors(path, [tensor] as never), 'ERR_ARGUMENT', 'tensors');
    await failure(saveSafetensors(path, { __metadata__: tensor }), 'ERR_ARGUMENT', '__metadata__');
    await failure(saveSafetensors(path, { tensor }, { metadata: { a: 1 } as never }), 'ERR_ARGUMENT', 'metadata["a"]');
    await failure(saveSafetensors(path, { tensor }, { meta: {} } as never), 'ERR_ARGUMENT', 'meta');
    await failure(saveSafetensors(scratch('no/folder'), { tensor }), 'ERR_FILE', 'ENOENT');
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(scratchNames()).toEqual(['file']);
    await saveSafetensors(path, new Map([['tensor', tensor]]));
    expect((await readSafetensors(path)).tensors.size).toBe(1);
  });
});

describe('npy', () => {
  test.each(['float32', 'float16', 'int32'] as const)('%s comes back as it was', async (dtype) => {
    using tensor = fresh.from([1, -2, 3.5, 100, 0, -7], [3, 2], { dtype });
    await saveNpy(scratch(), tensor);
    using copy = await loadNpy(scratch(), { device: here });
    expect([copy.dtype, copy.shape]).toEqual([dtype, [3, 2]]);
    expect(copy.dataSync()).toEqual(tensor.dataSync());
    using asFloat = await loadNpy(scratch(), { dtype: 'float32', device: here });
    expect([asFloat.dtype, asFloat.shape]).toEqual(['float32', [3, 2]]);
    expect([...((await asFloat.data()) as Float32Array)]).toEqual([...(await tensor.toFloat32())]);
  });

  test('float64 is rounded when asked for, and only then', async () => {
    const values = Float64Array.of(0.1, -1e-50, 1 + 2 ** -24, 1 + 3 * 2 ** -24, 1e300, -0, NaN, Infinity);
    await writeNpy(scratch(), fromTypedArray('float64', [2, 4], values));
    await failure(loadNpy(scratch()), 'ERR_DTYPE', scratch(), 'float64', "{ dtype: 'float32' }");
    using tensor = await loadNpy(scratch(), { dtype: 'float32', device: here });
    expect(tensor.shape).toEqual([2, 4]);
    expect(tensor.dataSync()).toEqual(Float32Array.from(values, Math.fround));
  });

  test('a column-major big-endian array', async () => {
    const header = `{'descr': '>f4', 'fortran_order': True, 'shape': (2, 3), }`;
    const data = Buffer.alloc(24);
    for (const [i, value] of [1, 4, 2, 5, 3, 6].entries()) data.writeFloatBE(value, 4 * i);
    using tensor = await loadNpy(put(npyBytes(header, data)), { device: here });
    expect([...(tensor.dataSync() as Float32Array)]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('what tensors cannot hold', async () => {
    await writeNpy(scratch(), fromTypedArray('int64', [1], BigInt64Array.of(1n)));
    await failure(loadNpy(scratch()), 'ERR_DTYPE', 'int64', 'readNpy');
    await failure(loadNpy(scratch(), { dtype: 'float32' }), 'ERR_DTYPE', 'int64');
    await failure(loadNpy(scratch(), { dtype: 'float16' as never }), 'ERR_ARGUMENT', 'dtype', 'float16');
    await failure(loadNpy(scratch(), { cast: true } as never), 'ERR_ARGUMENT', 'cast');
    const shape = Array<number>(9).fill(1);
    await writeNpy(scratch(), { dtype: 'float32', shape, data: new Uint8Array(4) });
    await failure(loadNpy(scratch()), 'ERR_SHAPE', scratch(), 'at most 8 dims');
    await failure(loadNpy(put('no numpy file')), 'ERR_FILE_FORMAT');
  });

  test('what numpy cannot hold', async () => {
    using tensor = fresh.zeros([2], { dtype: 'bfloat16' });
    await failure(saveNpy(scratch(), tensor), 'ERR_DTYPE', 'bfloat16', 'cast');
    await failure(saveNpy(scratch(), [1] as never), 'ERR_ARGUMENT', 'tensor');
    const gone = fresh.zeros([2]);
    gone.dispose();
    await failure(saveNpy(scratch(), gone), 'ERR_DISPOSED', 'tensor');
    expect(scratchNames()).toEqual([]);
  });

  test('saves the values the tensor had, also of pending operations', async () => {
    using tensor = fresh.randn([1 << 16], { seed: 1 });
    using cast = tensor.cast('float16');
    await saveNpy(scratch(), cast);
    expect(bytesOf(cast).equals((await readNpy(scratch())).data)).toBe(true);
  });
});
