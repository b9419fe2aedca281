import { keep, memory, type Tensor, TileGrid, TileLists, tidy, VsaRangeError, VsaTypeError } from '../../lib/index.js';
import { type VideoDiTOptions } from '../../lib/models/config.js';
import { type LayerState, VideoDiT, type VideoDiTInputs } from '../../lib/models/video-dit.js';
import { checkFailure, type Expected, failureOf, leaveNothingBehind } from '../tensor/support.js';
import { fresh, here } from '../under-test.js';
import { bitsOf, gradientsOf, inputsOf, KINDS, numbersOf, TINY, tinyModel } from './support.js';

leaveNothingBehind();

const VSA = { ...TINY, attention: 'vsa', topK: 1 } as const;

describe('a new model', () => {
  test('has the parameters that checkpoints name', () => {
    using model = new VideoDiT({ ...VSA, layers: 1, fineGate: true, context: { tokens: 5, width: 24 } });
    const shapes = Object.fromEntries([...model.parameters()].map(([name, { shape }]) => [name, shape]));
    const square = (name: string) => ({ [`${name}.weight`]: [64, 64], [`${name}.bias`]: [64] });
    const attention = (name: string) => ({
      ...{ ...square(`${name}.q`), ...square(`${name}.k`), ...square(`${name}.v`), ...square(`${name}.output`) },
      ...{ [`${name}.normQ.weight`]: [64], [`${name}.normK.weight`]: [64] },
    });
    expect(shapes).toEqual({
      ...{ 'patch.weight': [64, 6], 'patch.bias': [64] },
      ...{ 'time.0.weight': [64, 256], 'time.0.bias': [64], ...square('time.2') },
      ...{ 'modulation.weight': [384, 64], 'modulation.bias': [384] },
      ...{ 'context.0.weight': [64, 24], 'context.0.bias': [64], ...square('context.2') },
      ...{ 'blocks.0.modulation': [6, 64], ...attention('blocks.0.attention') },
      ...square('blocks.0.attention.coarseGate'),
      ...square('blocks.0.attention.fineGate'),
      ...{ 'blocks.0.crossNorm.weight': [64], 'blocks.0.crossNorm.bias': [64], ...attention('blocks.0.cross') },
      ...{ 'blocks.0.ffn.0.weight': [96, 64], 'blocks.0.ffn.0.bias': [96] },
      ...{ 'blocks.0.ffn.2.weight': [64, 96], 'blocks.0.ffn.2.bias': [64] },
      ...{ 'head.modulation': [2, 64], 'head.weight': [6, 64], 'head.bias': [6] },
    });
    const count = Object.values(shapes).reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
    expect(model.parameterCount).toBe(count);
  });

  test('has only those that its options ask for', () => {
    const namesOf = (options: VideoDiTOptions) =>
      tidy(() => [...new VideoDiT({ ...options, layers: 1 }).parameters().keys()]);
    const full = namesOf(TINY);
    expect(full.filter((name) => /gate|cross|context/i.test(name))).toEqual([]);
    expect(namesOf({ ...VSA, coarseGate: false })).toEqual(full);
    expect(namesOf(VSA).filter((name) => !full.includes(name))).toEqual([
      'blocks.0.attention.coarseGate.weight',
      'blocks.0.attention.coarseGate.bias',
    ]);
  });

  test('begins at the same bits for the same seed, whatever else the model has, and gives 0', () => {
    tidy(() => {
      const parameters = new VideoDiT({ ...VSA, seed: 3 }).parameters();
      const again = new VideoDiT({ ...VSA, seed: 3n }).parameters();
      const deeper = new VideoDiT({ ...VSA, seed: 3, layers: 3, context: { tokens: 1, width: 2 } }).parameters();
      const bits = bitsOf(parameters);
      expect(bitsOf(again)).toEqual(bits);
      expect(bitsOf(deeper)).toMatchObject(bits);
      const other = bitsOf(new VideoDiT({ ...VSA, seed: 4 }).parameters());
      const weights = [...parameters].filter(([name, { rank }]) => rank === 2 && name !== 'head.weight');
      for (const [name] of weights) expect(other[name]).not.toBe(bits[name]);
      expect(new Set(weights.map(([name]) => bits[name])).size).toBe(weights.length);
      const model = new VideoDiT({ ...VSA, seed: 3 });
      expect(new Set(numbersOf(model.forward(inputsOf(model))))).toEqual(new Set([0]));
    });
  });

  test('says what it is, so that the same can be made again', () => {
    using model = new VideoDiT({ ...TINY, attention: 'vsa', sparsity: 0.5, dtype: 'bfloat16', tokens: '4x4x8' });
    expect(model.config).toEqual({
      ...{ tokens: [4, 4, 8], channels: 6, width: 64, heads: 1, layers: 2, ffn: 96, attention: 'vsa', topK: 1 },
      ...{ coarseGate: true, fineGate: false, dtype: 'bfloat16', checkpointing: false },
    });
    using again = new VideoDiT({ ...(JSON.parse(JSON.stringify(model.config)) as VideoDiTOptions), device: here });
    expect(again.config).toEqual(model.config);
    expect(model).toMatchObject({ topK: 1, device: here, grid: new TileGrid({ tokens: [4, 4, 8] }) });
  });

  test('gives everything back', () => {
    const before = memory();
    const model = new VideoDiT({ ...VSA, context: { tokens: 5, width: 24 } });
    expect(memory().numTensors).toBeGreaterThan(before.numTensors + model.parameters().size);
    model.dispose();
    expect(memory()).toEqual(before);
  });

  test('that does not fit is an error, and leaves nothing', async () => {
    const error = await failureOf(() => new VideoDiT({ ...VSA, channels: 2 ** 24, width: 2 ** 16, heads: 2 ** 10 }));
    expect(error).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    // The table of rotary angles is made last.
    const other = await failureOf(() => new VideoDiT({ ...VSA, tokens: [64, 4096, 4096] }));
    expect(other).toMatchObject({ code: 'ERR_SHAPE', argument: 'tokens' });
  });

  const bad = (options: object, expected: Partial<Expected>): [object, Partial<Expected>] => [options, expected];
  test.each([
    bad({ tokens: [4, 4] }, { type: VsaRangeError, code: 'ERR_GRID', argument: 'tokens' }),
    bad({ channels: 0 }, { type: VsaRangeError, argument: 'channels' }),
    bad({ layers: 1.5 }, { type: VsaRangeError, argument: 'layers' }),
    bad({ ffn: -1 }, { type: VsaRangeError, argument: 'ffn' }),
    bad(
      { width: 100 },
      {
        ...{ type: VsaRangeError, code: 'ERR_HEAD_DIM', argument: 'width' },
        ...{ got: '100 in 1 heads, 100 each', wanted: 'a head dim of 64, 96, 128' },
      },
    ),
    bad({ attention: 'sparse' }, { argument: 'attention', wanted: "'full' or 'vsa'" }),
    bad({ context: { tokens: 5 } }, { type: VsaRangeError, argument: 'context.width' }),
    bad({ context: { tokens: 5, width: 6, kind: 'text' } }, { argument: 'context' }),
    bad({ topK: 1 }, { argument: 'topK', got: "1 with attention 'full'", wanted: "attention: 'vsa'" }),
    bad({ sparsity: 0.5 }, { argument: 'sparsity' }),
    bad({ coarseGate: true }, { argument: 'coarseGate' }),
    bad({ fineGate: false }, { argument: 'fineGate' }),
    bad(
      { attention: 'vsa' },
      { argument: 'topK', got: 'neither topK nor sparsity', wanted: "one of the two with 'vsa'" },
    ),
    bad({ attention: 'vsa', topK: 1, sparsity: 0.5 }, { argument: 'topK', got: '1 beside a sparsity' }),
    bad({ attention: 'vsa', topK: 3 }, { type: VsaRangeError, code: 'ERR_TOP_K', argument: 'topK' }),
    bad({ attention: 'vsa', sparsity: 2 }, { type: VsaRangeError, argument: 'sparsity' }),
    bad({ attention: 'vsa', topK: 1, fineGate: 1 }, { argument: 'fineGate' }),
    bad({ dtype: 'int32' }, { code: 'ERR_DTYPE', argument: 'dtype' }),
    bad({ seed: 0.5 }, { type: VsaRangeError, argument: 'seed' }),
    bad({ checkpointing: 'yes' }, { argument: 'checkpointing' }),
    bad({ dropout: 0.1 }, { argument: 'options', got: "the unknown option 'dropout'" }),
  ])('%j is a typed error', async (options, expected) => {
    const error = await failureOf(() => new VideoDiT({ ...TINY, ...options }));
    checkFailure(error, { type: VsaTypeError, code: 'ERR_ARGUMENT', argument: '', got: /./, wanted: /./, ...expected });
  });
});

describe('forward', () => {
  test.each(Object.entries(KINDS))('%s: a token out for every token in, of the dtype of activations', (_, options) => {
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
      tidy(() => {
        const model = tinyModel({ ...options, dtype });
        const output = model.forward(inputsOf(model, { batch: 2 }));
        expect(output).toMatchObject({ shape: [2, 128, 6], dtype, device: here, requiresGrad: true });
        const numbers = numbersOf(output);
        expect(numbers.every(Number.isFinite)).toBe(true);
        expect(new Set(numbers.subarray(0, 768))).not.toEqual(new Set(numbers.subarray(768)));
      });
    }
  });

  test('batch entries do not see each other', () => {
    tidy(() => {
      const model = tinyModel({ ...KINDS['VSA with both gates and a context'] });
      const { x, times, context } = inputsOf(model, { batch: 2 });
      const both = numbersOf(model.forward({ x, times, context: context! }));
      const [xs, contexts] = [numbersOf(x), numbersOf(context!)];
      for (const b of [0, 1]) {
        const alone = model.forward({
          x: fresh.from(xs.slice(b * 768, (b + 1) * 768), [1, 128, 6]),
          times: [times[b]!],
          context: fresh.from(contexts.slice(b * 120, (b + 1) * 120), [1, 5, 24]),
        });
        const wanted = both.slice(b * 768, (b + 1) * 768);
        // On a GPU the algorithm of a matrix product, and with it the order of its sums, depends on the number of rows.
        if (here.type === 'cpu') expect(numbersOf(alone)).toEqual(wanted);
        else numbersOf(alone).forEach((value, i) => expect(Math.abs(value - wanted[i]!)).toBeLessThan(1e-4));
      }
    });
  });

  test('of no batch entry gives none, and gradients of 0', () => {
    tidy(() => {
      const model = tinyModel(KINDS['VSA']);
      const output = model.forward({ x: fresh.zeros([0, 128, 6]), times: [] });
      expect(output.shape).toEqual([0, 128, 6]);
      output.backward(fresh.zeros([0, 128, 6]));
      for (const gradient of gradientsOf(model).values()) expect(new Set(numbersOf(gradient))).toEqual(new Set([0]));
    });
  });

  test('depends on the time, the context and K', () => {
    tidy(() => {
      const model = tinyModel({ ...KINDS['VSA with both gates and a context'] });
      const inputs = inputsOf(model);
      const before = numbersOf(model.forward(inputs));
      expect(numbersOf(model.forward({ ...inputs, times: [0.31] }))).not.toEqual(before);
      expect(numbersOf(model.forward({ ...inputs, context: fresh.zeros([1, 5, 24]) }))).not.toEqual(before);
      model.topK = 2;
      expect(numbersOf(model.forward(inputs))).not.toEqual(before);
      model.topK = 1;
      expect(numbersOf(model.forward(inputs))).toEqual(before);
    });
  });

  test('an impossible K is an error, and any for full attention', async () => {
    using model = tinyModel(KINDS['VSA']);
    const error = await failureOf(() => {
      model.topK = 3;
    });
    expect(error).toMatchObject({ code: 'ERR_TOP_K', argument: 'topK' });
    expect(model.topK).toBe(1);
    using full = tinyModel();
    expect(full.topK).toBeUndefined();
    const other = await failureOf(() => {
      full.topK = 1;
    });
    expect(other).toMatchObject({ code: 'ERR_ARGUMENT', argument: 'topK', wanted: "attention: 'vsa'" });
  });

  const bad = (name: string, edit: (inputs: VideoDiTInputs) => object, expected: Partial<Expected>) =>
    [name, edit, expected] as const;
  test.each([
    bad('no x', () => ({ x: undefined }), { argument: 'x', wanted: 'a Tensor [B, L, channels]' }),
    bad('a vector', () => ({ x: fresh.zeros([6]) }), { type: VsaRangeError, code: 'ERR_SHAPE', argument: 'x' }),
    bad('too few tokens', () => ({ x: fresh.zeros([1, 127, 6]) }), {
      ...{ type: VsaRangeError, code: 'ERR_SHAPE', argument: 'x' },
      ...{ got: '[1, 127, 6]', wanted: '[any, 128, 6] ([B, L, channels])' },
    }),
    bad('whole numbers', () => ({ x: fresh.zeros([1, 128, 6], { dtype: 'int32' }) }), {
      ...{ code: 'ERR_DTYPE', argument: 'x' },
    }),
    bad('no times', () => ({ times: undefined }), { argument: 'times', wanted: 'an array of numbers' }),
    bad('too many times', () => ({ times: [0, 1] }), {
      ...{ type: VsaRangeError, code: 'ERR_SHAPE', argument: 'times' },
      ...{ got: '2 times', wanted: '1, one for every batch entry of x' },
    }),
    bad('a time that is no number', () => ({ times: [NaN] }), {
      ...{ type: VsaRangeError, argument: 'times[0]', got: 'NaN', wanted: 'a number from 0 to 1' },
    }),
    bad('a time out of range', () => ({ times: [1.001] }), { type: VsaRangeError, argument: 'times[0]' }),
    bad('no context', () => ({ context: undefined }), { argument: 'context', got: 'none' }),
    bad('another context', () => ({ context: fresh.zeros([1, 6, 24]) }), {
      ...{ type: VsaRangeError, code: 'ERR_SHAPE', argument: 'context' },
      ...{ got: '[1, 6, 24]', wanted: '[1, 5, 24] ([B, S, channels])' },
    }),
    bad('no observer', () => ({ observe: 1 }), { argument: 'observe', wanted: 'a function' }),
    bad('an unknown input', () => ({ time: 1 }), { argument: 'inputs', got: "the unknown option 'time'" }),
    bad('a disposed x', ({ x }) => ({ x: (x.dispose(), x) }), { code: 'ERR_DISPOSED', argument: 'x' }),
  ])('%s is a typed error', async (_, edit, expected) => {
    using model = tinyModel(KINDS['VSA with both gates and a context']);
    const error = await failureOf(() =>
      tidy(() => {
        const inputs = inputsOf(model);
        model.forward({ ...inputs, ...edit(inputs) });
      }),
    );
    checkFailure(error, { type: VsaTypeError, code: 'ERR_ARGUMENT', argument: '', got: /./, wanted: /./, ...expected });
  });

  test('of a disposed model, or with a context it does not have, is a typed error', async () => {
    const model = tinyModel();
    const { x, times } = inputsOf(model);
    using context = fresh.zeros([1, 5, 24]);
    expect(await failureOf(() => model.forward({ x, times, context }))).toMatchObject({
      ...{ code: 'ERR_ARGUMENT', argument: 'context', got: 'a context', wanted: 'none: the model was made without' },
    });
    model.dispose();
    expect(await failureOf(() => model.forward({ x, times }))).toMatchObject({
      code: 'ERR_DISPOSED',
      argument: 'this',
    });
    x.dispose();
  });
});

describe('an observer', () => {
  test.each([false, true])('is shown every layer once, with gradients (checkpointing: %s)', (checkpointing) => {
    tidy(() => {
      const model = tinyModel({ ...KINDS['VSA'], checkpointing });
      const seen: LayerState[] = [];
      const output = model.forward({ ...inputsOf(model), observe: (state) => seen.push(state) });
      output.backward(fresh.full(output.shape, 1));
      expect(seen.map(({ layer }) => layer)).toEqual([0, 1]);
    });
  });

  test('may keep lists and tensors beyond the call', async () => {
    const model = tinyModel(KINDS['VSA']);
    const kept: { lists: TileLists; q: Tensor; lse: Tensor }[] = [];
    tidy(() => {
      const observe = ({ lists, q, lse }: LayerState) => {
        kept.push(keep({ lists: lists.to(here), q: q.to(here), lse: lse.to(here) }));
      };
      model.forward({ ...inputsOf(model), observe });
    });
    for (const { lists, q, lse } of kept) {
      expect(q.shape).toEqual([1, 128, 1, 64]);
      expect(lse.shape).toEqual([1, 1, 128]);
      const arrays = await lists.toArrays();
      expect(arrays.map((row) => row.length)).toEqual([1, 1]);
      for (const resource of [lists, q, lse]) resource.dispose();
    }
    expect(kept).toHaveLength(2);
    model.dispose();
  });

  test('sees full lists of full attention; one that throws stops the forward and leaves nothing', async () => {
    using model = tinyModel();
    const full: boolean[] = [];
    const { x, times } = inputsOf(model);
    const before = memory();
    tidy(() => model.forward({ x, times, observe: ({ lists }) => full.push(lists.isFull) }) && undefined);
    expect(full).toEqual([true, true]);
    const observe = () => {
      throw new Error('enough');
    };
    expect(await failureOf(() => model.forward({ x, times, observe }))).toMatchObject({ message: 'enough' });
    expect(memory()).toEqual(before);
    x.dispose();
  });
});
