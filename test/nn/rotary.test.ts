import { TileGrid, tidy } from '../../lib/index.js';
import * as functional from '../../lib/nn/functional.js';
import { rotaryEmbedding, rotaryTable } from '../../lib/nn/ops/rotary.js';
import { expectError, type Misuse } from '../attention/misuse.js';
import { bitsOfAll, useGuardedMemory } from '../attention/support.js';
import { fresh, here } from '../under-test.js';
import {
  away,
  dispose,
  expectBackwardMisuses,
  expectClose,
  expectGradients,
  expectMisuses,
  FORMATS,
  notTensors,
  operand,
  type Values,
} from './pairs.js';

useGuardedMemory();

/** Angles of every pair of a token at (t, y, x), by the definition. */
function anglesOf([t, y, x]: readonly number[], headDim: number, theta: number): number[] {
  const pairs = headDim / 2;
  const third = Math.floor(pairs / 3);
  const along = (place: number, n: number) => Array.from({ length: n }, (_, i) => place / theta ** (i / n));
  return [...along(t!, pairs - 2 * third), ...along(y!, third), ...along(x!, third)];
}

/** The table, token after token. */
function tableOf(tokens: readonly number[], headDim: number, theta: number, prefix: number): number[][] {
  const [T, Y, X] = tokens as [number, number, number];
  const rows: number[][] = Array.from({ length: prefix }, () => new Array<number>(headDim / 2).fill(0));
  for (let t = 0; t < T; t++) {
    for (let y = 0; y < Y; y++) for (let x = 0; x < X; x++) rows.push(anglesOf([t, y, x], headDim, theta));
  }
  return rows.map((angles) => angles.flatMap((angle) => [Math.cos(angle), Math.sin(angle)]));
}

describe('rotaryTable', () => {
  test.each([
    [[2, 3, 5], 128, 0, 10000],
    [[3, 1, 2], 96, 4, 10000],
    [[2, 2, 2], 2, 1, 500],
    [[2, 3, 2], 10, 0, 10000],
    [[1, 1, 1], 6, 0, 1],
  ] as const)('tokens %j, head dim %d, prefix %d, theta %d', async (tokens, headDim, prefix, theta) => {
    const table = rotaryTable({ tokens, headDim, prefix, theta, device: here });
    const rows = tableOf(tokens, headDim, theta, prefix);
    expect([table.shape, table.dtype, table.device]).toEqual([[rows.length, headDim / 2, 2], 'float32', here]);
    await expectClose(table, rows.flat(), 'table', 1e-8);
    table.dispose();
  });

  test('the split of 64 pairs is 22, 21, 21', async () => {
    const turning = async (tokens: [number, number, number]) => {
      const table = rotaryTable({ tokens, headDim: 128, device: here });
      const last = (await table.toFloat32()).subarray(128);
      table.dispose();
      return [...last.keys()].filter((i) => i % 2 === 1 && last[i] !== 0).map((i) => (i - 1) / 2);
    };
    const range = (start: number, end: number) => Array.from({ length: end - start }, (_, i) => start + i);
    expect(await turning([2, 1, 1])).toEqual(range(0, 22));
    expect(await turning([1, 2, 1])).toEqual(range(22, 43));
    expect(await turning([1, 1, 2])).toEqual(range(43, 64));
  });

  test('a permutation: rows of tiled order, padding not turned', async () => {
    const grid = new TileGrid({ tokens: [3, 5, 2], prefix: 3 });
    const permutation = grid.permutation();
    const table = rotaryTable({ tokens: [3, 5, 2], headDim: 8, prefix: 3, permutation, device: here });
    expect(table.shape).toEqual([grid.slots, 4, 2]);
    const rows = tableOf([3, 5, 2], 8, 10000, 3);
    const padding = [1, 0, 1, 0, 1, 0, 1, 0];
    await expectClose(
      table,
      [...permutation].flatMap((token) => rows[token] ?? padding),
      'table',
      1e-8,
    );
    const none = rotaryTable({ tokens: '3x5x2', headDim: 8, permutation: new Int32Array(0), device: here });
    expect(none.shape).toEqual([0, 4, 2]);
    dispose({ table, none });
  });

  test('bad input', () => {
    const wrong: Misuse[] = [
      ['no tokens', { tokens: undefined }, 'ERR_GRID', 'tokens'],
      ['two dims', { tokens: [2, 3] }, 'ERR_GRID', 'tokens'],
      ['no head dim', { headDim: undefined }, 'ERR_ARGUMENT', 'headDim'],
      ['an odd head dim', { headDim: 7 }, 'ERR_ARGUMENT', 'headDim', 'even'],
      ['a head dim of 0', { headDim: 0 }, 'ERR_ARGUMENT', 'headDim'],
      ['a negative theta', { theta: -1 }, 'ERR_ARGUMENT', 'theta'],
      ['theta NaN', { theta: NaN }, 'ERR_ARGUMENT', 'theta'],
      ['a negative prefix', { prefix: -1 }, 'ERR_ARGUMENT', 'prefix'],
      ['a plain array as permutation', { permutation: [0, 1] }, 'ERR_ARGUMENT', 'permutation', 'Int32Array'],
      ['a token too large', { permutation: Int32Array.of(0, 4) }, 'ERR_ARGUMENT', 'permutation[1]', 'below 4'],
      ['a token below -1', { permutation: Int32Array.of(-2) }, 'ERR_ARGUMENT', 'permutation[0]'],
      ['too large', { tokens: [100000, 1000, 100] }, 'ERR_SHAPE', 'tokens', '2^31'],
      ['too long', { tokens: [2 ** 32, 1, 1], permutation: Int32Array.of(0) }, 'ERR_SHAPE', 'tokens', '2^31'],
      ['an unknown option', { dim: 3 }, 'ERR_ARGUMENT', 'options', "'dim'"],
      ['an unknown device', { device: 'tpu' }, 'ERR_DEVICE', 'device'],
    ];
    for (const [, options, code, argument, says] of wrong) {
      const call = () => rotaryTable({ tokens: [1, 2, 2], headDim: 4, device: here, ...options } as never);
      expectError(call, code, argument, says);
    }
  });
});

describe('rotaryEmbedding', () => {
  /** As complex numbers. */
  function reference([B, L, H, D]: readonly number[], table: ArrayLike<number>, { x }: Values): Float64Array {
    const output = new Float64Array(x!.length);
    for (let i = 0; i < B! * L! * H! * D!; i += 2) {
      const token = Math.floor(i / (H! * D!)) % L!;
      const [cosine, sine] = [table[token * D! + (i % D!)]!, table[token * D! + (i % D!) + 1]!];
      output[i] = x![i]! * cosine - x![i + 1]! * sine;
      output[i + 1] = x![i]! * sine + x![i + 1]! * cosine;
    }
    return output;
  }

  describe.each(FORMATS)('%s', (format) => {
    test.each([[[2, 3, 2, 6]], [[1, 19, 1, 2]], [[3, 1, 3, 10]], [[2, 17, 1, 4]]])(
      '%j and its gradient',
      async (shape) => {
        const [, L, , D] = shape as [number, number, number, number];
        const [x, gradient] = [operand(shape, 1, format), operand(shape, 3, format)];
        // Any numbers, not only those of a rotation.
        const table = operand([L, D / 2, 2], 2);
        const { output, grads } = tidy(() => {
          const forward = rotaryEmbedding.forward({ x: x.tensor, table: table.tensor });
          dispose({ x: x.tensor, table: table.tensor });
          return {
            output: forward.output,
            grads: rotaryEmbedding.backward(forward.saved, { output: gradient.tensor }),
          };
        });
        const f = (inputs: Values) => reference(shape, table.values, inputs);
        await expectClose(output, f({ x: x.values }), 'output');
        await expectGradients({ ...grads }, f, { x: x.values }, gradient.values);
        dispose({ output, gradient: gradient.tensor });
      },
    );
  });

  test('scores depend on the distance of tokens alone', async () => {
    const table = rotaryTable({ tokens: [6, 1, 1], headDim: 6, device: here });
    const [q, k] = [fresh.from([1, 2, 3, 4, 5, 6], [6]), fresh.from([3, -1, 2, 5, -2, 1], [6])];
    const rows = async (x: typeof q) => {
      const values = await x.toFloat32();
      const everywhere = fresh.from(Array.from({ length: 6 }, () => [...values]).flat(), [1, 6, 1, 6]);
      const { output, saved } = rotaryEmbedding.forward({ x: everywhere, table });
      const turned = await output.toFloat32();
      dispose({ everywhere, output, saved });
      return turned;
    };
    const [qs, ks] = [await rows(q), await rows(k)];
    const score = (i: number, j: number) =>
      Array.from({ length: 6 }, (_, c) => qs[6 * i + c]! * ks[6 * j + c]!).reduce((a, b) => a + b);
    expect(score(4, 2)).toBeCloseTo(score(2, 0), 4);
    expect(score(5, 2)).toBeCloseTo(score(3, 0), 4);
    expect(Math.abs(score(5, 2) - score(4, 2))).toBeGreaterThan(0.1);
    dispose({ table, q, k });
  });

  test.each([[[0, 3, 2, 4]], [[2, 0, 2, 4]], [[2, 3, 0, 4]], [[2, 3, 2, 0]]])('empty %j', (shape) => {
    const [x, table] = [fresh.zeros(shape), fresh.zeros([shape[1]!, shape[3]! / 2, 2])];
    const { output, saved } = rotaryEmbedding.forward({ x, table });
    const grads = rotaryEmbedding.backward(saved, { output });
    expect([output.shape, grads.x!.shape]).toEqual([shape, shape]);
    expect(rotaryEmbedding.backward(saved, { output }, new Set())).toEqual({});
    dispose({ x, table, output, saved, dx: grads.x });
  });

  test('as a function', async () => {
    const [x, table] = [fresh.randn([2, 3, 1, 4]), fresh.randn([3, 2, 2])];
    x.requiresGrad = true;
    const output = functional.rotaryEmbedding({ x, table });
    output.backward(x);
    const { saved, ...expected } = rotaryEmbedding.forward({ x, table });
    const grads = rotaryEmbedding.backward(saved, { output: x });
    expect(await bitsOfAll({ output, x: x.grad })).toEqual(await bitsOfAll({ ...expected, ...grads }));
    dispose({ x, table, output, saved, expected: expected.output, dx: grads.x });
  });

  test('bad input', () => {
    const shape = [2, 3, 2, 4];
    const [x, table] = [fresh.zeros(shape), fresh.zeros([3, 2, 2])];
    expectMisuses(rotaryEmbedding, () => ({ x: fresh.zeros(shape), table: fresh.zeros([3, 2, 2]) }), [
      ...notTensors('x', x),
      ...notTensors('table', table),
      ['x of rank 3', { x: fresh.zeros([2, 3, 4]) }, 'ERR_SHAPE', 'x', '[B, L, H, D]'],
      ['an odd head dim', { x: fresh.zeros([2, 3, 2, 3]) }, 'ERR_SHAPE', 'x', 'D even'],
      ['a table of more tokens', { table: fresh.zeros([4, 2, 2]) }, 'ERR_SHAPE', 'table', '[L, D / 2, 2]'],
      ['a table of 16 bits', { table: fresh.zeros([3, 2, 2], { dtype: 'bfloat16' }) }, 'ERR_DTYPE', 'table'],
      away('table', table),
      ['an unknown option', { inverse: true }, 'ERR_ARGUMENT', 'options', "'inverse'"],
    ]);
    const { output, saved } = rotaryEmbedding.forward({ x, table });
    expectBackwardMisuses(rotaryEmbedding, saved, output);
    dispose({ x, table, output });
  });
});
