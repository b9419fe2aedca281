import {
  type DitInputs,
  type DitSizes,
  ditForward,
  ditGradients,
  ditParameters,
  meanSquaredErrorForward,
} from '../../lib/oracle/index.js';
import { attend, inner, normal, plainVsa } from './helpers.js';

const SIZES: DitSizes = { channels: 3, width: 16, heads: 2, ffn: 10, blocks: 2, attention: 'full' };
const GRID = { tokens: [2, 2, 3], tile: [1, 2, 2] } as const;
const [BATCH, LENGTH, WORDS] = [2, 12, 3];

/** A model of random parameters: linear layers that keep the size of what they are given, gains around 1. */
function modelOf(changes: Partial<DitSizes> = {}, seed = 1): DitInputs {
  const sizes = { ...SIZES, ...changes };
  const parameters: Record<string, Float64Array> = {};
  Object.entries(ditParameters(sizes)).forEach(([name, shape], i) => {
    const values = normal(
      shape.reduce((count, dim) => count * dim, 1),
      1000 * seed + i,
    );
    const gain = /(normQ|normK|crossNorm)\.weight$/.test(name);
    const scale = gain || shape.length === 1 ? 0.3 : shape[1]! ** -0.5;
    parameters[name] = values.map((value) => scale * value + (gain ? 1 : 0));
  });
  return {
    sizes,
    grid: GRID,
    times: [0.013, 0.7],
    x: normal(BATCH * LENGTH * sizes.channels, seed + 1),
    ...(sizes.contextWidth !== undefined && { context: normal(BATCH * WORDS * sizes.contextWidth, seed + 2) }),
    parameters,
    ...(sizes.attention === 'vsa' && { choice: { topK: 2 } }),
  };
}

const MODELS: readonly (Partial<DitSizes> & { name: string })[] = [
  { name: 'full attention' },
  { name: 'full attention and a context', contextWidth: 5, blocks: 1 },
  { name: 'sparse attention', attention: 'vsa', blocks: 1 },
  { name: 'the fine stage alone', attention: 'vsa', coarseGate: false, blocks: 1 },
  { name: 'sparse attention with both gates and a context', attention: 'vsa', fineGate: true, contextWidth: 4 },
];

type Rows = number[][];

/** The model once more, one token after another, with vectors as plain arrays; forward only. */
function plainDit({ sizes, grid, times, x, context, parameters, choice }: DitInputs): number[] {
  const { width, heads, channels, contextWidth = 1 } = sizes;
  const headDim = width / heads;
  const rowsOf = (values: ArrayLike<number>, n: number): Rows =>
    Array.from({ length: values.length / n }, (_, r) => Array.from({ length: n }, (_, c) => values[r * n + c]!));
  const linear = (name: string) => (row: number[]) =>
    [...parameters[`${name}.bias`]!].map((b, n) =>
      row.reduce((sum, value, k) => sum + value * parameters[`${name}.weight`]![n * row.length + k]!, b),
    );
  const average = (row: number[]) => row.reduce((sum, value) => sum + value, 0) / row.length;
  const rms = (row: number[]) => row.map((value) => value / Math.sqrt(average(row.map((v) => v * v)) + 1e-6));
  const norm = (row: number[]) => rms(row.map((value) => value - average(row)));
  const scaled = (row: number[], by: ArrayLike<number>) => row.map((value, c) => value * by[c]!);
  const plus = (row: number[], by: ArrayLike<number>) => row.map((value, c) => value + by[c]!);
  const modulate = (row: number[], scale: number[], shift: number[]) =>
    norm(row).map((value, c) => value * (1 + scale[c]!) + shift[c]!);
  const silu = (row: number[]) => row.map((value) => value / (1 + Math.exp(-value)));
  const gelu = (row: number[]) =>
    row.map((v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v * v * v))));
  const [, Y, X] = grid.tokens;
  const rotate = (row: number[], token: number) => {
    const place = [Math.floor(token / (Y * X)), Math.floor(token / X) % Y, token % X];
    const third = Math.floor(headDim / 2 / 3);
    const turned: number[] = [];
    for (let pair = 0; pair < width / 2; pair++) {
      const inHead = pair % (headDim / 2);
      const first = headDim / 2 - 2 * third;
      const axis = inHead < first ? 0 : inHead < first + third ? 1 : 2;
      const [i, n] = axis === 0 ? [inHead, first] : [(inHead - first) % third, third];
      const angle = place[axis]! / Math.pow(10000, i / n);
      const [re, im] = [row[2 * pair]!, row[2 * pair + 1]!];
      turned.push(re * Math.cos(angle) - im * Math.sin(angle), re * Math.sin(angle) + im * Math.cos(angle));
    }
    return turned;
  };
  const dense = (q: Rows, k: Rows, v: Rows): Rows =>
    q.map((row) => {
      const part = (of: number[], h: number) => of.slice(h * headDim, (h + 1) * headDim);
      const headOf = (h: number) =>
        attend(
          part(row, h),
          k.map((key) => part(key, h)),
          v.map((value) => part(value, h)),
          headDim ** -0.5,
        ).output;
      return Array.from({ length: heads }, (_, h) => headOf(h)).flat();
    });
  const qkv = (name: string, from: Rows, to: Rows) => ({
    q: from.map(linear(`${name}.q`)).map((row) => scaled(rms(row), parameters[`${name}.normQ.weight`]!)),
    k: to.map(linear(`${name}.k`)).map((row) => scaled(rms(row), parameters[`${name}.normK.weight`]!)),
    v: to.map(linear(`${name}.v`)),
  });
  const selfAttention = (name: string, a: Rows): Rows => {
    const { q, k, v } = qkv(name, a, a);
    const [turnedQ, turnedK] = [q.map(rotate), k.map(rotate)];
    if (sizes.attention === 'full') return dense(turnedQ, turnedK, v).map(linear(`${name}.output`));
    const flat = (rows: Rows) => Float64Array.from(rows.flat());
    const { output } = plainVsa({
      ...{ batch: 1, heads, headDim, grid, choice: choice as { topK: number } },
      ...{ q: flat(turnedQ), k: flat(turnedK), v: flat(v) },
      ...(sizes.coarseGate !== false && { coarse: { gate: flat(a.map(linear(`${name}.coarseGate`))) } }),
      ...(sizes.fineGate === true && { fine: { gate: flat(a.map(linear(`${name}.fineGate`))) } }),
    });
    return rowsOf(output, width).map(linear(`${name}.output`));
  };

  return times.flatMap((time, b) => {
    const entry = <T>(rows: T[]) =>
      rows.slice((b * rows.length) / times.length, ((b + 1) * rows.length) / times.length);
    let h = entry(rowsOf(x, channels)).map(linear('patch'));
    const angles = Array.from({ length: 128 }, (_, i) => 1000 * time * Math.exp((-Math.log(10000) * i) / 128));
    const te = linear('time.2')(silu(linear('time.0')([...angles.map(Math.cos), ...angles.map(Math.sin)])));
    const e6 = rowsOf(linear('modulation')(silu(te)), width);
    const c =
      context && entry(rowsOf(context, contextWidth)).map(linear('context.0')).map(gelu).map(linear('context.2'));
    for (let i = 0; i < sizes.blocks; i++) {
      const name = `blocks.${i}`;
      const e = rowsOf(parameters[`${name}.modulation`]!, width).map((row, j) => plus(row, e6[j]!));
      const a = h.map((row) => modulate(row, e[1]!, e[0]!));
      const o = selfAttention(`${name}.attention`, a);
      h = h.map((row, n) => plus(row, scaled(o[n]!, e[2]!)));
      if (c !== undefined) {
        const [weight, bias] = ['weight', 'bias'].map((part) => parameters[`${name}.crossNorm.${part}`]!);
        const { q, k, v } = qkv(
          `${name}.cross`,
          h.map((row) => plus(scaled(norm(row), weight!), bias!)),
          c,
        );
        const crossed = dense(q, k, v).map(linear(`${name}.cross.output`));
        h = h.map((row, n) => plus(row, crossed[n]!));
      }
      const f = h.map((row) => linear(`${name}.ffn.2`)(gelu(linear(`${name}.ffn.0`)(modulate(row, e[4]!, e[3]!)))));
      h = h.map((row, n) => plus(row, scaled(f[n]!, e[5]!)));
    }
    const [shift, scale] = rowsOf(parameters['head.modulation']!, width).map((row) => plus(row, te));
    return h.flatMap((row) => linear('head')(modulate(row, scale!, shift!)));
  });
}

describe.each(MODELS)('$name', ({ name: _, ...changes }) => {
  const free = modelOf(changes);
  const { lists } = ditForward(free);
  // Selection is not differentiated: the lists of the unperturbed parameters are kept.
  const inputs: DitInputs = { ...free, ...(free.choice !== undefined && { choice: { lists } }) };
  const target = normal(free.x.length, 77);
  const gradients = ditGradients(inputs, target);

  test('the same as token after token', () => {
    const want = plainDit(free);
    const { output } = ditForward(free);
    expect(output.length).toBe(want.length);
    for (const [i, value] of output.entries()) expect(Math.abs(value - want[i]!)).toBeLessThan(1e-10);
    expect(gradients.output).toEqual(output);
    const error = want.reduce((sum, value, i) => sum + (value - target[i]!) ** 2, 0) / want.length;
    expect(gradients.loss).toBeCloseTo(error, 10);
    expect(lists.length).toBe(free.choice === undefined ? 0 : free.sizes.blocks);
  });

  test('the gradient of every parameter, along a random direction', () => {
    const lossOf = (parameters: DitInputs['parameters']) =>
      meanSquaredErrorForward(ditForward({ ...inputs, parameters }).output, target);
    const wrong: unknown[] = [];
    Object.entries(inputs.parameters).forEach(([name, values], i) => {
      const direction = normal(values.length, i);
      const length = Math.sqrt(inner(direction, direction));
      const at = (step: number) =>
        lossOf({ ...inputs.parameters, [name]: values.map((value, j) => value + (step * direction[j]!) / length) });
      const slope = (at(1e-5) - at(-1e-5)) / 2e-5;
      const claimed = inner(gradients.parameters[name]!, direction) / length;
      const within = Math.abs(slope - claimed) <= 1e-6 * Math.abs(slope) + 1e-9;
      if (!within || !(Math.abs(slope) > 1e-6)) wrong.push({ name, slope, claimed });
    });
    expect(wrong).toEqual([]);
    expect(Object.keys(gradients.parameters)).toEqual(Object.keys(ditParameters(inputs.sizes)).sort());
  });
});

test('sparse attention over all tiles without the coarse output is full attention', () => {
  const sparse = modelOf({ attention: 'vsa' });
  const parameters = { ...sparse.parameters };
  for (const name of Object.keys(parameters)) {
    if (name.includes('coarseGate')) parameters[name] = parameters[name]!.map(() => 0);
  }
  const all = ditForward({ ...sparse, parameters, choice: { topK: 4 } }).output;
  const shared = Object.entries(parameters).filter(([name]) => !name.includes('coarseGate'));
  const full = ditForward({ ...sparse, sizes: SIZES, parameters: Object.fromEntries(shared) }).output;
  for (const [i, value] of all.entries()) expect(value).toBeCloseTo(full[i]!, 12);
});

test('wrong models are errors', () => {
  const inputs = modelOf({ contextWidth: 5, attention: 'vsa' });
  const { 'head.bias': _, ...missing } = inputs.parameters;
  expect(() => ditForward({ ...inputs, parameters: missing })).toThrow('parameters: got ');
  expect(() => ditForward({ ...inputs, parameters: { ...inputs.parameters, other: missing['patch.bias']! } })).toThrow(
    'other',
  );
  const { choice, context, ...rest } = inputs;
  expect(() => ditForward({ ...rest, choice: choice! })).toThrow('context: got none');
  expect(() => ditForward({ ...rest, context: context! })).toThrow('choice: got none');
  expect(() => ditForward({ ...inputs, x: inputs.x.subarray(3) })).toThrow('x: got ');
});
