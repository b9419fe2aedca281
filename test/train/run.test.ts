import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { device, memory } from '../../lib/device/device.js';
import { machineOf } from '../../lib/device/machine.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import { loadCheckpoint, readCheckpointFacts, type RunTensors, saveCheckpoint } from '../../lib/train/checkpoint.js';
import { checkpointErrors, heldOutClips, velocityErrors } from '../../lib/train/held-out.js';
import type { LogRow } from '../../lib/train/log.js';
import { FILES } from '../../lib/train/run.js';
import { samplerModel } from '../../lib/train/sample.js';
import { parseTrainOptions, type TrainOptions } from '../../lib/train/settings.js';
import { Trainer } from '../../lib/train/trainer.js';
import { failureOf } from '../tensor/support.js';
import { here } from '../under-test.js';
import { checkpointOf, rowsOf, run, SMALL, temporaryFolder } from './support.js';

const folder = temporaryFolder();
const cpu = device('cpu');

/** Every number of a checkpoint, as bits. */
async function bitsOf(out: string): Promise<Map<string, string>> {
  const { tensors } = await loadCheckpoint(checkpointOf(out), cpu);
  const bits = new Map<string, string>();
  for (const part of Object.keys(tensors) as (keyof RunTensors)[]) {
    for (const [name, tensor] of tensors[part]) {
      const values = await tensor.data();
      bits.set(`${part}/${name}`, Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64'));
      tensor.dispose();
    }
  }
  return bits;
}

describe('a run', () => {
  const out = join(folder, 'plain');
  const peak = machineOf(here)?.bf16;
  beforeAll(() => run(out, SMALL));

  test('leaves settings, a log of every step and a checkpoint, and no memory behind', async () => {
    expect(readdirSync(out).sort()).toEqual([FILES.checkpoint, FILES.log, FILES.settings].sort());
    const rows = rowsOf(out);
    using model = samplerModel(parseTrainOptions(SMALL), here);
    const { parameterCount } = model;
    expect(rows.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    for (const row of rows) {
      expect(row).toMatchObject({ topK: 2, mfu: peak === undefined ? null : row.tflops / peak });
      // Weights, their gradients, moments and averages, and activations beside them.
      expect(row.memory).toBeGreaterThan(5 * 4 * parameterCount);
      for (const value of [row.loss, row.gradientNorm, row.learningRate, row.ms, row.tokensPerSecond, row.tflops]) {
        expect(value).toBeGreaterThan(0);
      }
    }
    expect(rows[5]!.flop).toBeCloseTo(6 * rows[0]!.flop, -3);
    expect((await readCheckpointFacts(checkpointOf(out))).step).toBe(6);
  });

  test('that is there is not overwritten', async () => {
    expect(await failureOf(() => run(out, SMALL))).toMatchObject({ code: 'ERR_FILE', argument: 'out' });
    expect(rowsOf(out)).toHaveLength(6);
  });

  test('is the same again for the same seed, and another for another', async () => {
    const [again, other] = [join(folder, 'again'), join(folder, 'other')];
    await run(again, SMALL);
    expect(await bitsOf(again)).toEqual(await bitsOf(out));
    await run(other, { ...SMALL, seed: 2 });
    expect(rowsOf(other)[0]!.loss).not.toBe(rowsOf(out)[0]!.loss);
  });

  test.each([1, 3, 4])('that is interrupted at step %i and resumed has the same bits', async (at) => {
    const resumed = join(folder, `resumed-${String(at)}`);
    const first = await run(resumed, SMALL, ({ step }, abort) => {
      if (step === at) abort();
    });
    expect(first.interrupted).toBe(true);
    expect(first.step).toBeLessThan(6);
    const facts = await readCheckpointFacts(checkpointOf(resumed));
    expect(facts.step).toBe(first.step);
    const second = await run(resumed, undefined);
    expect(second).toMatchObject({ step: 6, interrupted: false });
    expect(await bitsOf(resumed)).toEqual(await bitsOf(out));
    expect(rowsOf(resumed).map(({ loss }) => loss)).toEqual(rowsOf(out).map(({ loss }) => loss));
    expect(rowsOf(resumed)[5]!.flop).toBe(rowsOf(out)[5]!.flop);
  });

  test('that went on after its last checkpoint loses those steps alone', async () => {
    const crashed = join(folder, 'crashed');
    // Stopped hard after step 5: the error leaves through the loop as a crash would, without a checkpoint.
    const crash = run(crashed, SMALL, ({ step }) => {
      if (step === 5) throw new Error('crash');
    });
    await expect(crash).rejects.toThrow('crash');
    expect((await readCheckpointFacts(checkpointOf(crashed))).step).toBe(3);
    expect(rowsOf(crashed)).toHaveLength(5);
    await run(crashed, undefined);
    expect(rowsOf(crashed).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(await bitsOf(crashed)).toEqual(await bitsOf(out));
  });
});

describe('an interrupted run has the same bits', () => {
  const dense = join(folder, 'dense-weights');
  beforeAll(() => run(dense, { ...SMALL, attention: 'full', steps: 2, warmup: 0 }));

  // The adaptation's K is 4, 4, 3, 3, 2, 2: it falls with the first step after the resume, and within both parts.
  test.each<[string, number, TrainOptions]>([
    ['of full attention in bfloat16', 3, { attention: 'full', dtype: 'bfloat16' }],
    ['of VSA in float16', 2, { dtype: 'float16' }],
    ['of an adaptation', 2, { adapt: checkpointOf(dense), adaptInterval: 2, adaptRate: 0.25, fineGate: false }],
    ['of an adaptation', 3, { adapt: checkpointOf(dense), adaptInterval: 2, adaptRate: 0.25, fineGate: false }],
  ])('%s, stopped at step %i', async (name, at, options) => {
    const [whole, parts] = ['whole', 'parts'].map((what) => join(folder, `${what} ${name} ${String(at)}`));
    await run(whole!, { ...SMALL, ...options });
    const { interrupted } = await run(parts!, { ...SMALL, ...options }, ({ step }, abort) => {
      if (step === at) abort();
    });
    expect(interrupted).toBe(true);
    const before = rowsOf(parts!).length;
    expect(before).toBeLessThan(6);
    await run(parts!, undefined);
    expect(await bitsOf(parts!)).toEqual(await bitsOf(whole!));
    const facts = ({ loss, topK, gradientNorm, flop }: LogRow) => ({ loss, topK, gradientNorm, flop });
    expect(rowsOf(parts!).map(facts)).toEqual(rowsOf(whole!).map(facts));
    if (options.adapt !== undefined)
      expect(
        new Set(
          rowsOf(parts!)
            .slice(before - 1)
            .map(({ topK }) => topK),
        ).size,
      ).toBeGreaterThan(1);
  });
});

test('float16 loses no gradients of a mean over many numbers: they are scaled on their way, and back', async () => {
  const clips = Float32Array.from({ length: 4096 * 192 }, (_, i) => Math.sin(i));
  const sizes = { ...SMALL, video: [16, 128, 128], layers: 1, steps: 100, warmup: 0, learningRate: 1e-4 } as const;
  const length = (values: Float32Array) => Math.hypot(...values);
  const [exact, half] = await Promise.all(
    (['float32', 'float16'] as const).map(async (dtype) => {
      using trainer = new Trainer(parseTrainOptions({ ...sizes, dtype }), here, false);
      const norms: number[] = [];
      // The head begins at 0: only from the second step on do gradients get through it.
      for (let step = 0; step < 2; step++) {
        const { loss, norm } = trainer.step(clips, step);
        norms.push(((await norm.data()) as Float32Array)[0]!);
        loss.dispose();
        norm.dispose();
      }
      const moment = await trainer.withTensors(({ optimizer }) => optimizer.get('blocks.0.ffn.0.weight.first')!.data());
      return [...norms, length(moment as Float32Array)];
    }),
  );
  exact!.forEach((value, at) => {
    expect(value).toBeGreaterThan(0);
    expect(Math.abs(half![at]! / value - 1)).toBeLessThan(0.01); // unscaled, the moment is 0
  });
});

test('a recorded step, replayed, has the bits of the calls', async () => {
  for (const options of [{}, { attention: 'full' }, { dtype: 'bfloat16' }, { dtype: 'float16' }] as const) {
    const settings = parseTrainOptions({ ...SMALL, ...options });
    const clips = Float32Array.from({ length: 256 * 192 }, (_, i) => Math.sin(i));
    const bits = await Promise.all(
      [false, true].map(async (record) => {
        using trainer = new Trainer(settings, here, record);
        const found: string[] = [];
        for (let step = 0; step < 5; step++) {
          const { loss, norm } = trainer.step(clips, step);
          for (const one of [loss, norm]) {
            found.push(Buffer.from((await one.data()).slice().buffer).toString('hex'));
            one.dispose();
          }
        }
        return found;
      }),
    );
    expect(bits[1]).toEqual(bits[0]);
  }
});

test('a model learns to denoise', async () => {
  const out = join(folder, 'learning');
  await run(out, { ...SMALL, steps: 60, warmup: 5, learningRate: 3e-3, checkpointEvery: 60 });
  const losses = rowsOf(out).map(({ loss }) => loss);
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  expect(mean(losses.slice(-15))).toBeLessThan(0.85 * mean(losses.slice(0, 5)));
});

test('a dense model is adapted: its weights, gates at zero, K from all tiles down', async () => {
  const [dense, sparse] = [join(folder, 'dense'), join(folder, 'sparse')];
  await run(dense, { ...SMALL, attention: 'full' });
  const adapt = { adapt: checkpointOf(dense), adaptInterval: 2, adaptRate: 0.25, fineGate: false };
  await run(sparse, { ...SMALL, ...adapt });
  expect(rowsOf(dense).map(({ topK }) => topK)).toEqual([null, null, null, null, null, null]);
  expect(rowsOf(sparse).map(({ topK }) => topK)).toEqual([4, 4, 3, 3, 2, 2]);
});

test('errors on held-out clips: the same for every model, of the averages and of the weights, and of dense ones made sparse', async () => {
  const dense = join(folder, 'looked-at');
  const settings = parseTrainOptions({ ...SMALL, attention: 'full', steps: 20, warmup: 2 });
  await run(dense, { ...SMALL, attention: 'full', steps: 20, checkpointEvery: 20 });
  const clips = await heldOutClips(settings, { seed: 3, count: 2 });
  const request = { device: here, clips, times: [0.2, 0.8] };
  const found = await checkpointErrors(checkpointOf(dense), request);
  const mean = (errors: number[][]) => errors.flat().reduce((sum, one) => sum + one, 0) / 4;
  expect(found.weights.map((row) => row.length)).toEqual([2, 2]);
  expect(await checkpointErrors(checkpointOf(dense), request)).toEqual(found);
  // The averages look back to the beginning: they have learnt less in 20 steps.
  expect(mean(found.weights)).toBeLessThan(mean(found.averages!));
  // A head of zeros says 0 everywhere, so its error is the mean square of the target.
  using fresh = samplerModel(settings, here);
  const untrained = await velocityErrors(fresh, clips, request.times);
  expect(mean(found.weights)).toBeLessThan(mean(untrained));
  expect(untrained[0]![0]).toBeCloseTo(untrained[0]![1]!, 5);
  expect(untrained[0]![0]).not.toBeCloseTo(untrained[1]![0]!, 3);

  // All tiles are dense attention; fewer are not.
  const sparse = (sparsity: number) => parseTrainOptions({ ...SMALL, fineGate: false, sparsity });
  const all = await checkpointErrors(checkpointOf(dense), { ...request, sparse: sparse(0) });
  expect(mean(all.weights)).toBeCloseTo(mean(found.weights), 5);
  const few = await checkpointErrors(checkpointOf(dense), { ...request, sparse: sparse(0.75) });
  expect(few.weights).not.toEqual(all.weights);
});

test('a loss that is no number ends the run and names the step; the checkpoint before stays', async () => {
  const [dense, broken] = [join(folder, 'sound'), join(folder, 'broken')];
  await run(dense, { ...SMALL, attention: 'full', steps: 1, warmup: 0 });
  const { facts, tensors } = await loadCheckpoint(checkpointOf(dense), cpu);
  tensors.model.get('patch.bias')!.copyFrom(new Float32Array(64).fill(NaN));
  await saveCheckpoint(join(folder, 'nan.safetensors'), facts, tensors);
  for (const part of Object.values(tensors)) for (const tensor of part.values()) tensor.dispose();
  const failure = await failureOf(() => run(broken, { ...SMALL, adapt: join(folder, 'nan.safetensors') }));
  expect(failure).toMatchObject({ code: 'ERR_LOSS', argument: 'loss', got: 'NaN at step 1' });
  expect(existsSync(checkpointOf(broken))).toBe(false);
});

test('a folder without a run cannot be resumed', async () => {
  const failure = await failureOf(() => run(join(folder, 'nowhere'), undefined));
  expect(failure).toMatchObject({ code: 'ERR_FILE', argument: 'out' });
});

test('a file of another kind is no checkpoint', async () => {
  const path = join(folder, 'other.safetensors');
  const { saveSafetensors } = await import('../../lib/files/tensors.js');
  using tensor = Tensor.zeros([1], { device: 'cpu' });
  await saveSafetensors(path, { tensor });
  for (const metadata of [
    {},
    { 'vsa.train': '{' },
    { 'vsa.train': '{"version":9}' },
    { 'vsa.train': '{"version":1,"step":-1}' },
  ]) {
    await saveSafetensors(path, { tensor }, { metadata });
    expect(await failureOf(() => loadCheckpoint(path, cpu))).toMatchObject({ code: 'ERR_FILE_FORMAT', argument: path });
  }
});

const before = memory();
afterAll(() => expect(memory()).toEqual(before));
