import { native } from '../../lib/binding.js';
import { memory } from '../../lib/device/device.js';
import { TileGrid } from '../../lib/attention/grid.js';
import { videoSparseAttention } from '../../lib/attention/vsa.js';
import { keep, tidy } from '../../lib/tensor/scope.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import { leaveNothingBehind } from './support.js';
import { fresh } from '../under-test.js';

leaveNothingBehind();

const one = (value = 0): Tensor => fresh.full([1], value);
// The addon counts for the process: a suite that ran in it before may have failed and left something behind.
let before = memory();
beforeEach(() => {
  before = memory();
});
const living = (): number => memory().numTensors - before.numTensors;
const added = (): { numTensors: number; numBytes: number } => ({
  numTensors: living(),
  numBytes: memory().numBytes - before.numBytes,
});

describe('tidy', () => {
  test('disposes everything but the result', () => {
    const inside: Tensor[] = [];
    const result = tidy(() => {
      const a = one(2);
      const b = a.cast('bfloat16');
      inside.push(a, b, a.reshape([]), a.clone());
      return b.cast('float32');
    });
    expect(inside.map((tensor) => tensor.disposed)).toEqual([true, true, true, true]);
    expect([result.item(), living()]).toEqual([2, 1]);
    result.dispose();
  });

  test('keeps results in arrays, maps, sets and plain objects, however deep', () => {
    const result = tidy(() => {
      one(-1);
      const cycle: { self?: unknown; tensor: Tensor } = { tensor: one(5) };
      cycle.self = cycle;
      return {
        list: [one(0), [one(1)]],
        map: new Map<unknown, unknown>([
          ['key', one(2)],
          [one(3), 'value'],
        ]),
        set: new Set([one(4)]),
        cycle,
        bare: Object.assign(Object.create(null) as Record<string, Tensor>, { tensor: one(6) }),
        nothing: null,
        text: 'text',
      };
    });
    const tensors = [
      ...result.list.flat(),
      ...[...result.map].flat().filter((item) => item instanceof Tensor),
      ...result.set,
      result.cycle.tensor,
      result.bare['tensor'],
    ];
    expect(tensors.map((tensor) => tensor.item())).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(living()).toBe(7);
    tensors.forEach((tensor) => tensor.dispose());
  });

  test('keeps what lies deep, and ends where a result holds itself there', () => {
    type Nest = unknown[];
    const nest = (depth: number): { outermost: Nest; innermost: Nest } => {
      const innermost: Nest = [];
      let outermost = innermost;
      for (let i = 0; i < depth; i++) outermost = [outermost, outermost];
      return { outermost, innermost };
    };
    const deep = tidy(() => {
      one(-1);
      const { outermost, innermost } = nest(12);
      innermost.push(one(3), outermost, innermost);
      return { outermost, innermost };
    });
    expect(living()).toBe(1);
    const [tensor] = deep.innermost as [Tensor];
    expect(tensor.item()).toBe(3);
    tensor.dispose();
  });

  test('keeps lists and saved state, and all that they own', () => {
    const grid = new TileGrid({ tokens: [4, 4, 8] });
    const { saved, lists } = tidy(() => {
      const q = fresh.randn([1, grid.length, 1, 64]);
      const { saved } = videoSparseAttention.forward({ q, k: q, v: q, grid, topK: 1, coarse: 'add' });
      return {
        saved,
        lists: fresh.lists([[0], [1]], { batch: 1, heads: 1, queryTiles: 2, keyTiles: 2 }),
      };
    });
    expect([saved.disposed, lists.disposed]).toEqual([false, false]);
    using gradient = fresh.zeros([1, grid.length, 1, 64]);
    const grads = videoSparseAttention.backward(saved, { output: gradient });
    expect(Object.values(grads).every((tensor: Tensor) => !tensor.disposed)).toBe(true);
    Object.values(grads).forEach((tensor: Tensor) => tensor.dispose());
    saved.dispose();
    lists.dispose();
  });

  test('disposes lists and saved state that are no result', () => {
    const grid = new TileGrid({ tokens: [4, 4, 8] });
    const result = tidy(() => {
      const q = fresh.randn([1, grid.length, 1, 64]);
      return [videoSparseAttention.forward({ q, k: q, v: q, grid, topK: 1 })].map(({ saved }) => ({
        saved: [saved].length,
      }));
    });
    expect([result, living()]).toEqual([[{ saved: 1 }], 0]);
  });

  test('nests: a result belongs to the scope around', () => {
    const seen: boolean[] = [];
    const outer = tidy(() => {
      const a = tidy(() => {
        one();
        return [one(1), one(2)] as const;
      });
      seen.push(a[0].disposed, a[1].disposed);
      return a[0];
    });
    expect([seen, outer.item(), living()]).toEqual([[false, false], 1, 1]);
    outer.dispose();
  });

  test('leaves alone what was made before', () => {
    using before = one();
    tidy(() => {
      before.clone();
    });
    expect(before.disposed).toBe(false);
  });

  test('disposes everything when the function throws, at every level, and passes the error on', () => {
    const error = new Error('mine');
    let kept: Tensor | undefined;
    const failing = () =>
      tidy(() => {
        one();
        kept = keep(one(3));
        tidy(() => {
          one();
          throw error;
        });
      });
    expect(failing).toThrow(error);
    expect([living(), kept?.item()]).toEqual([1, 3]);
    kept?.dispose();
    using after = one(); // the scopes are gone: nobody disposes this one
    expect(after.disposed).toBe(false);
  });

  test('a result that was disposed inside is returned as it is', () => {
    const result = tidy(() => {
      const tensor = one();
      tensor.dispose();
      return tensor;
    });
    expect(result.disposed).toBe(true);
  });

  test('a result may hold a tensor twice, and one of a scope around', () => {
    const inner: Tensor[] = [];
    const result = tidy(() => {
      const around = one(1);
      const held = tidy(() => {
        const tensor = one(2);
        inner.push(tensor, one(3));
        return { first: tensor, again: [tensor], around };
      });
      expect([held.first.disposed, held.around.disposed, inner[1]!.disposed]).toEqual([false, false, true]);
      return held.first;
    });
    // The one around was no result of the scope that it belongs to.
    expect([result.item(), living()]).toEqual([2, 1]);
    result.dispose();
  });

  test('an operation that fails midway leaves nothing of its parts, and the next call is right', async () => {
    const grid = new TileGrid({ tokens: [4, 4, 8] });
    const q = fresh.randn([1, grid.length, 1, 64]);
    const call = () => videoSparseAttention.forward({ q, k: q, v: q, grid, topK: 1, coarse: { gate: q } });
    const wanted = tidy(() => call().output);
    const after = memory();
    for (const part of ['selection', 'coarseForward', 'fineForward'] as const) {
      jest.spyOn(native(), part).mockImplementationOnce(() => {
        throw new Error('this part');
      });
      expect(call).toThrow('this part');
      expect(memory()).toEqual(after);
    }
    jest.restoreAllMocks();
    const found = tidy(() => call().output);
    expect(await found.data()).toEqual(await wanted.data());
    for (const tensor of [q, wanted, found]) tensor.dispose();
  });

  test('refuses a function that returns a promise, and disposes what it had made', () => {
    let made: Tensor | undefined;
    const asynchronous = async () => {
      made = one();
      await Promise.resolve();
      throw new Error('nobody waits for this');
    };
    expect(() => tidy(asynchronous)).toThrow(
      expect.objectContaining({ name: 'VsaTypeError', code: 'ERR_ARGUMENT', argument: 'fn' }) as Error,
    );
    expect(made?.disposed).toBe(true);
    expect(() => tidy(() => ({ then: () => undefined }))).toThrow('promise');
  });
});

describe('keep', () => {
  test('takes a value out of every scope around, and returns it', () => {
    let kept: { deep: Tensor[] } | undefined;
    let alone: Tensor | undefined;
    tidy(() => {
      tidy(() => {
        kept = keep({ deep: [one(1), one(2)] });
        tidy(() => {
          alone = one(3);
          expect(keep(alone)).toBe(alone);
        });
      });
      one();
    });
    expect(kept?.deep.map((tensor) => tensor.item())).toEqual([1, 2]);
    expect([alone?.item(), living()]).toEqual([3, 3]);
    kept?.deep.forEach((tensor) => tensor.dispose());
    alone?.dispose();
  });

  test('keeps saved state with all that it owns', () => {
    const grid = new TileGrid({ tokens: [4, 4, 4] });
    let saved: { disposed: boolean; dispose(): void } | undefined;
    tidy(() => {
      const q = fresh.randn([1, 64, 1, 64]);
      saved = keep(videoSparseAttention.forward({ q, k: q, v: q, grid, topK: 1 }).saved);
    });
    expect(saved?.disposed).toBe(false);
    saved?.dispose();
  });

  test('outside of tidy does nothing', () => {
    using tensor = one();
    expect(keep(tensor)).toBe(tensor);
  });
});

describe('memory', () => {
  test('counts tensors, and shared bytes once', () => {
    const x = fresh.zeros([100], { dtype: 'bfloat16' });
    const y = x.reshape([10, 10]);
    const z = fresh.zeros([3], { dtype: 'int32' });
    expect(added()).toEqual({ numTensors: 3, numBytes: 212 });
    x.dispose();
    expect(added()).toEqual({ numTensors: 2, numBytes: 212 });
    y.dispose();
    expect(added()).toEqual({ numTensors: 1, numBytes: 12 });
    z.dispose();
  });

  test('tensors without elements take no bytes', () => {
    using x = fresh.zeros([0, 5]);
    expect([x.size, added()]).toEqual([0, { numTensors: 1, numBytes: 0 }]);
  });

  test('saved state holds its inputs, and gives everything back', () => {
    const grid = new TileGrid({ tokens: [4, 4, 8] });
    const bytes = grid.length * 64 * 4;
    const [q, k, v] = [1, 2, 3].map((seed) => fresh.randn([1, grid.length, 1, 64], { seed })) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const { output, saved } = videoSparseAttention.forward({ q, k, v, grid, topK: 1 });
    for (const tensor of [q, k, v, output]) tensor.dispose();
    const held = added().numBytes;
    expect(held).toBeGreaterThanOrEqual(4 * bytes); // q, k, v, the fine output
    saved.dispose();
    saved.dispose();
    expect(added()).toEqual({ numTensors: 0, numBytes: 0 });
  });
});
