/** The layers' kernels against the CPU at sizes that reach every way through them, and their bits against themselves. */

import { Tensor, tidy } from '../../lib/index.js';
import type { DType } from '../../lib/tensor/dtype.js';
import { keep } from '../../lib/tensor/scope.js';
import { ops } from '../../lib/nn/index.js';
import { AdamW, gradientNorm, MovingAverage } from '../../lib/nn/optim/index.js';
import type { Device } from '../../lib/device/device.js';
import { bytesOf, cpu, describeGpu, gpu, runOnGpu } from './support.js';

// By name: a look-up of a global in every step of a loop is slow in Jest's sandbox.
const { abs } = Math;

type Tensors = Record<string, Tensor | undefined>;
/** A normal tensor of a shape, the same on every device. */
type Draw = (shape: readonly number[], dtype?: DType) => Tensor;

/** Beside the largest value: two roundings of the dtype for what is stored in it, and of sums in another order. */
const ROOM: Record<string, number> = { float32: 2e-5, bfloat16: 2 ** -7, float16: 2 ** -10 };

function on(device: Device, compute: (draw: Draw) => Tensors): Tensors {
  return tidy(() => {
    let seed = 0;
    return compute((shape, dtype = 'float32') => Tensor.randn(shape, { seed: (seed += 1), dtype, device }));
  });
}

/** Close to what the CPU computes, and the same bits every time. */
async function expectAgreement(compute: (draw: Draw) => Tensors, dtype: DType): Promise<void> {
  const [wanted, got, again] = [on(cpu, compute), on(gpu, compute), on(gpu, compute)];
  for (const [name, tensor] of Object.entries(got)) {
    const [values, reference] = [await tensor!.toFloat32(), await wanted[name]!.toFloat32()];
    let [largest, worst] = [0, 0];
    for (let i = 0; i < values.length; i++) {
      const difference = abs(values[i]! - reference[i]!);
      if (abs(reference[i]!) > largest) largest = abs(reference[i]!);
      worst = difference <= worst ? worst : difference; // NaN stays
    }
    expect({ name, close: worst <= ROOM[dtype]! * largest, worst, largest }).toMatchObject({ name, close: true });
    expect((await bytesOf(tensor!)).equals(await bytesOf(again[name]!))).toBe(true);
  }
  for (const tensors of [wanted, got, again]) for (const tensor of Object.values(tensors)) tensor!.dispose();
}

/** Widths of one warp a row, one block with one vector a thread, with four, rows that are read again; odd ones. */
const WIDTHS = [64, 768, 1536, 5120, 9000, 37, 777, 1999] as const;

describeGpu('layers', () => {
  describe.each(['float32', 'bfloat16', 'float16'] as const)('%s', (dtype) => {
    test.each(WIDTHS)('norms and residuals, width %i', async (width) => {
      await expectAgreement((draw) => {
        const [x, branch, g] = [draw([2, 90, width], dtype), draw([2, 90, width], dtype), draw([2, 90, width], dtype)];
        const [scale, shift, weight] = [draw([2, width]), draw([2, width]), draw([width])];
        const modulated = ops.layerNorm.forward({ x, scale, shift });
        const weighted = ops.layerNorm.forward({ x, weight });
        const rms = ops.rmsNorm.forward({ x, weight });
        const residual = ops.gatedResidual.forward({ x, branch, gate: scale });
        const dresidual = ops.gatedResidual.backward(residual.saved, { output: g });
        const named = (prefix: string, grads: object) =>
          Object.fromEntries(Object.entries(grads).map(([name, grad]) => [`${prefix}.${name}`, grad as Tensor]));
        return {
          ...{ modulated: modulated.output, weighted: weighted.output, rms: rms.output, residual: residual.output },
          ...named('modulated', ops.layerNorm.backward(modulated.saved, { output: g })),
          ...named('weighted', ops.layerNorm.backward(weighted.saved, { output: g })),
          ...named('rms', ops.rmsNorm.backward(rms.saved, { output: g })),
          ...{ dbranch: dresidual.branch, dgate: dresidual.gate },
        };
      }, dtype);
    });

    test.each([
      [700, 768, 3072],
      [1, 256, 768],
      [333, 131, 77],
    ])('linear, %i rows of %i to %i channels', async (rows, K, N) => {
      await expectAgreement((draw) => {
        const x = draw([rows, K], dtype);
        const { output, saved } = ops.linear.forward({ x, weight: draw([N, K]), bias: draw([N]) });
        const { x: dx, weight, bias } = ops.linear.backward(saved, { output: draw([rows, N], dtype) });
        return { output, dx, weight, bias };
      }, dtype);
    });

    test.each([
      [2, 100, 12, 64],
      [1, 33, 5, 96],
      [3, 7, 1, 6],
    ])('rotary embedding, [%i, %i, %i, %i]', async (B, L, H, D) => {
      await expectAgreement((draw) => {
        const x = draw([B, L, H, D], dtype);
        const { output, saved } = ops.rotaryEmbedding.forward({ x, table: draw([L, D / 2, 2]) });
        return { output, dx: ops.rotaryEmbedding.backward(saved, { output: x }).x };
      }, dtype);
    });

    test('element by element, and sums', async () => {
      await expectAgreement((draw) => {
        const [a, b, row] = [draw([201, 1023], dtype), draw([201, 1023], dtype), draw([1023], dtype)];
        const silu = ops.silu.forward({ x: a });
        const gelu = ops.geluTanh.forward({ x: a });
        const repeated = ops.add.forward({ a, b: row });
        const error = ops.meanSquaredError.forward({ prediction: a, target: b });
        return {
          ...{ silu: silu.output, dsilu: ops.silu.backward(silu.saved, { output: b }).x },
          ...{ gelu: gelu.output, dgelu: ops.geluTanh.backward(gelu.saved, { output: b }).x },
          ...{ repeated: repeated.output, drow: ops.add.backward(repeated.saved, { output: a }).b },
          ...{ product: ops.multiply.forward({ a, b }).output, scaled: ops.scale.forward({ x: a, by: 0.3 }).output },
          ...{ error: error.output },
          derror: ops.meanSquaredError.backward(error.saved, { output: error.output }).prediction,
          joined: ops.concat.forward({ tensors: [a, b.reshape([201, 1023])], dim: 1 }).output,
          part: ops.slice.forward({ x: a, dim: 1, start: 3, end: 1000 }).output,
        };
      }, dtype);
    });
  });

  test('an optimizer of more parameters than one launch takes', async () => {
    const shapes = Array.from({ length: 260 }, (_, i) => (i % 50 === 0 ? [129, 257] : [1 + (i % 7)]));
    await expectAgreement((draw) => {
      const parameters = shapes.map((shape) => draw(shape));
      using adamW = new AdamW(parameters, { learningRate: 0.1 });
      using average = new MovingAverage(parameters, { decay: 0.9 });
      for (const parameter of parameters) {
        parameter.requiresGrad = true;
        parameter.backward(draw(parameter.shape));
      }
      const norm = gradientNorm(parameters, { maxNorm: 1 });
      adamW.step({ gradientScale: norm });
      average.update();
      const results: Tensors = { norm };
      for (const [i, parameter] of parameters.entries()) {
        results[String(i)] = keep(parameter.detach().clone());
        results[`average ${String(i)}`] = keep(average.averages.get(String(i))!.clone());
        parameter.zeroGrad();
      }
      return results;
    }, 'float32');
  });

  test('a forward and a backward can be recorded', async () => {
    const x = Tensor.randn([64, 256], { dtype: 'bfloat16', device: gpu });
    const weight = Tensor.randn([128, 256], { device: gpu, std: 0.06, seed: 1 });
    const bias = Tensor.randn([128], { device: gpu, seed: 2 });
    const compute = () => {
      const { output, saved } = ops.linear.forward({ x, weight, bias });
      const norm = ops.layerNorm.forward({ x: output });
      const { x: dy } = ops.layerNorm.backward(norm.saved, { output });
      return { output: norm.output, ...ops.linear.backward(saved, { output: dy! }) };
    };
    let results: Tensors = {};
    const graph = gpu.graph(() => {
      results = keep(tidy(compute));
    });
    graph.replay();
    graph.replay();
    const wanted: Tensors = tidy(compute);
    for (const [name, tensor] of Object.entries(results)) {
      expect((await bytesOf(tensor!)).equals(await bytesOf(wanted[name]!))).toBe(true);
    }
    graph.dispose();
    for (const tensors of [results, wanted, { x, weight, bias }]) {
      for (const tensor of Object.values(tensors)) tensor!.dispose();
    }
  });

  test('without cuBLASLt a matrix product says what to install', async () => {
    const body = `
      const x = vsa.Tensor.zeros([2, 2], { device: gpu });
      try {
        vsa.nn.ops.linear.forward({ x, weight: x });
      } catch ({ code, message }) {
        report({ code, message });
      }`;
    const failure = await runOnGpu(body, { env: { VSA_CUBLASLT: '/nowhere/libcublasLt.so' } });
    expect(failure).toMatchObject({ code: 'ERR_BACKEND' });
    expect((failure as { message: string }).message).toMatch(/nowhere.*install it.*VSA_CUBLASLT/);
  });
});
