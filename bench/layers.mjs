#!/usr/bin/env node
// Time of every layer operation on a GPU, and what of its memory's bandwidth or its tensor cores' rate that is.
//
//   node bench/layers.mjs [--device cuda:0] [--tokens 16384] [--width 768] [--dtype bfloat16] [--only NAME] [--out FILE]
//
// Caches are cold. Bytes are those that have to move: every input once, every output once. --out appends JSON lines.
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { built, native, vsa } from './built.mjs';

const { machineOf } = /** @type {typeof import('../lib/device/machine.js')} */ (built('device/machine.js'));
const { median } = /** @type {typeof import('../lib/bench/statistics.js')} */ (built('bench/statistics.js'));
const { time } = /** @type {typeof import('../lib/bench/timing.js')} */ (built('bench/timing.js'));
const { Tensor, nn } = vsa;
const { ops } = nn;

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    tokens: { type: 'string', default: '16384' },
    width: { type: 'string', default: '768' },
    dtype: { type: 'string', default: 'bfloat16' },
    only: { type: 'string' },
    out: { type: 'string' },
  },
});
const device = vsa.device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));
const dtype = /** @type {import('../lib/index.js').DType} */ (options.dtype);
const [L, C] = [Number(options.tokens), Number(options.width)];
const heads = C / 64;
const machine = machineOf(device);

let seed = 0;
/** @param {readonly number[]} shape @param {import('../lib/index.js').DType} [of] */
const draw = (shape, of = 'float32') => Tensor.randn(shape, { device, dtype: of, seed: (seed += 1) });
const size = dtype === 'float32' ? 4 : 2;
const rows = L * C * size; // bytes of [L, C]
const wide = L * 4 * C * size; // of [L, 4 C]

/** @typedef {{ name: string, bytes?: number, flop?: number, make: () => () => unknown }} Row */

/** The parameters of the whole model in one call: 120M of them, in matrices of C x 4 C. */
const matrices = Math.max(1, Math.round(120e6 / (4 * C * C)));
const parameters = matrices * 4 * C * C;
function makeParameters() {
  return Array.from({ length: matrices }, () => draw([4 * C, C]));
}
function withGradients() {
  const made = makeParameters();
  for (const parameter of made) {
    parameter.requiresGrad = true;
    parameter.backward(draw([4 * C, C]));
  }
  return made;
}

/** @type {Row[]} */
const table = [
  .../** @type {[string, number, number][]} */ ([
    ['C to 3 C', C, 3 * C],
    ['C to C', C, C],
    ['C to 4 C', C, 4 * C],
    ['4 C to C', 4 * C, C],
  ]).flatMap(([what, K, N]) => {
    const forward = () => {
      const [x, weight, bias] = [draw([L, K], dtype), draw([N, K], dtype), draw([N])];
      return () => ops.linear.forward({ x, weight, bias });
    };
    /** @param {string} name */
    const backward = (name) => () => {
      const { output, saved } = ops.linear.forward({
        x: draw([L, K], dtype),
        weight: draw([N, K], dtype),
        bias: draw([N]),
      });
      return () => ops.linear.backward(saved, { output }, new Set([name]));
    };
    const flop = 2 * L * K * N;
    return [
      { name: `linear ${what}`, flop, make: forward },
      { name: `linear ${what}, dx`, flop, make: backward('x') },
      { name: `linear ${what}, dweight`, flop, make: backward('weight') },
      { name: `linear ${what}, dbias`, bytes: L * N * size, make: backward('bias') },
    ];
  }),
  {
    name: 'layerNorm, modulated',
    bytes: 2 * rows,
    make: () => {
      const [x, scale, shift] = [draw([1, L, C], dtype), draw([1, C]), draw([1, C])];
      return () => ops.layerNorm.forward({ x, scale, shift });
    },
  },
  {
    name: 'layerNorm, modulated, backward',
    bytes: 3 * rows,
    make: () => {
      const [x, scale, shift] = [draw([1, L, C], dtype), draw([1, C]), draw([1, C])];
      const { output, saved } = ops.layerNorm.forward({ x, scale, shift });
      return () => ops.layerNorm.backward(saved, { output });
    },
  },
  {
    name: 'rmsNorm',
    bytes: 2 * rows,
    make: () => {
      const [x, weight] = [draw([1, L, C], dtype), draw([C])];
      return () => ops.rmsNorm.forward({ x, weight });
    },
  },
  {
    name: 'rmsNorm, backward',
    bytes: 3 * rows,
    make: () => {
      const { output, saved } = ops.rmsNorm.forward({ x: draw([1, L, C], dtype), weight: draw([C]) });
      return () => ops.rmsNorm.backward(saved, { output });
    },
  },
  {
    name: 'rotaryEmbedding',
    bytes: 2 * rows + L * 64 * 4,
    make: () => {
      const [x, table] = [draw([1, L, heads, 64], dtype), draw([L, 32, 2])];
      return () => ops.rotaryEmbedding.forward({ x, table });
    },
  },
  .../** @type {const} */ (['silu', 'geluTanh']).flatMap((name) => [
    {
      name,
      bytes: 2 * wide,
      make: () => {
        const x = draw([L, 4 * C], dtype);
        return () => ops[name].forward({ x });
      },
    },
    {
      name: `${name}, backward`,
      bytes: 3 * wide,
      make: () => {
        const { output, saved } = ops[name].forward({ x: draw([L, 4 * C], dtype) });
        return () => ops[name].backward(/** @type {never} */ (saved), { output });
      },
    },
  ]),
  {
    name: 'gatedResidual',
    bytes: 3 * rows,
    make: () => {
      const [x, branch, gate] = [draw([1, L, C], dtype), draw([1, L, C], dtype), draw([1, C])];
      return () => ops.gatedResidual.forward({ x, branch, gate });
    },
  },
  {
    name: 'gatedResidual, backward',
    bytes: 3 * rows,
    make: () => {
      const [x, gate] = [draw([1, L, C], dtype), draw([1, C])];
      const { output, saved } = ops.gatedResidual.forward({ x, branch: x, gate });
      return () => ops.gatedResidual.backward(saved, { output });
    },
  },
  {
    name: 'add',
    bytes: 3 * wide,
    make: () => {
      const [a, b] = [draw([L, 4 * C], dtype), draw([L, 4 * C], dtype)];
      return () => ops.add.forward({ a, b });
    },
  },
  {
    name: 'meanSquaredError',
    bytes: 2 * wide,
    make: () => {
      const [prediction, target] = [draw([L, 4 * C], dtype), draw([L, 4 * C], dtype)];
      return () => ops.meanSquaredError.forward({ prediction, target });
    },
  },
  {
    name: 'slice, half of every row',
    bytes: wide,
    make: () => {
      const x = draw([L, 4 * C], dtype);
      return () => ops.slice.forward({ x, dim: 1, end: 2 * C });
    },
  },
  {
    name: 'cast of 120M weights',
    bytes: parameters * (4 + size),
    make: () => {
      const x = draw([parameters]);
      return () => x.cast(dtype === 'float32' ? 'bfloat16' : dtype);
    },
  },
  {
    name: 'gradientNorm of 120M',
    bytes: 4 * parameters,
    make: () => {
      const made = withGradients();
      return () => nn.gradientNorm(made, { maxNorm: 1 });
    },
  },
  {
    name: 'AdamW of 120M',
    bytes: 28 * parameters,
    make: () => {
      const made = withGradients();
      const adamW = new nn.AdamW(made);
      return () => adamW.step();
    },
  },
  {
    name: 'MovingAverage of 120M',
    bytes: 12 * parameters,
    make: () => {
      const average = new nn.MovingAverage(makeParameters(), { decay: 0.99 });
      return () => average.update();
    },
  },
];

console.log(`${device.name}, ${L} tokens of ${C} channels, ${dtype}, commit ${native().build().commit}\n`);
console.log('| operation | ms | GB/s | TFLOP/s | of the peak | host us |\n|---|---|---|---|---|---|');
for (const { name, bytes, flop, make } of table) {
  if (options.only !== undefined && !name.includes(options.only)) continue;
  // What it is made of stays until the process ends.
  const timing = await time(device, make(), { cache: 'cold', samples: 40 });
  const ms = median(timing.samples);
  const gbs = bytes === undefined ? null : bytes / ms / 1e6;
  const tflops = flop === undefined ? null : flop / ms / 1e9;
  const peak = gbs !== null ? machine?.hbm : dtype === 'float32' ? undefined : machine?.bf16;
  const share = peak === undefined ? null : (gbs ?? tflops ?? 0) / peak;
  const cell = (/** @type {number | null} */ value, digits = 0) => (value === null ? '' : value.toFixed(digits));
  console.log(
    `| ${name} | ${ms.toFixed(4)} | ${cell(gbs)} | ${cell(tflops)} | ${share === null ? '' : `${cell(100 * share)} %`} | ${timing.hostUs.toFixed(0)} |`,
  );
  if (options.out === undefined) continue;
  const about = { op: name, device: device.name, tokens: L, width: C, dtype, commit: native().build().commit };
  const found = { ms, gbs, tflops, hostUs: timing.hostUs, ...timing.sensors, date: new Date().toISOString() };
  appendFileSync(options.out, `${JSON.stringify({ ...about, ...found })}\n`);
}
