import {
  geluTanhBackward,
  geluTanhForward,
  gatedResidualBackward,
  gatedResidualForward,
  layerNormBackward,
  layerNormForward,
  linearBackward,
  linearForward,
  meanSquaredErrorBackward,
  meanSquaredErrorForward,
  rmsNormBackward,
  rmsNormForward,
  rotaryAngles,
  rotaryBackward,
  rotaryForward,
  siluBackward,
  siluForward,
  sinusoids,
} from '../../lib/oracle/index.js';
import { expectGradient, inner, normal } from './helpers.js';

const values = (...numbers: number[]) => Float64Array.from(numbers);

function expectClose(got: Float64Array, want: readonly number[], places = 12): void {
  expect(got.length).toBe(want.length);
  got.forEach((value, i) => {
    expect(value).toBeCloseTo(want[i]!, places);
  });
}

describe('by hand', () => {
  test('linear', () => {
    const inputs = { x: values(1, 2, 3, 4), weight: values(5, 6, 7, 8, 9, 10), bias: values(100, 200, 300) };
    const shape = { rows: 2, inputs: 2, outputs: 3 };
    expect([...linearForward(inputs, shape)]).toEqual([117, 223, 329, 139, 253, 367]);
    expect([...linearForward({ x: inputs.x, weight: inputs.weight }, shape)]).toEqual([17, 23, 29, 39, 53, 67]);
  });

  test('norms', () => {
    const x = values(1, 3, -2, 2);
    const shape = { rows: 2, width: 2, groups: 2, eps: 3 };
    // Rows of mean 2 and 0, variance 1 and 4, mean square 5 and 4.
    const [gain, shift] = [values(1, 10, 100, 1000), values(0, 1, 2, 3)];
    const [r, s] = [1 / Math.sqrt(7), 1 / Math.sqrt(8)];
    expectClose(layerNormForward({ x, gain, shift }, shape), [-0.5, 6, 2 - 200 * r, 3 + 2000 * r]);
    expectClose(layerNormForward({ x }, { ...shape, groups: 1 }), [-0.5, 0.5, -2 * r, 2 * r]);
    expectClose(rmsNormForward({ x, gain }, shape), [s, 30 * s, -200 * r, 2000 * r]);
    expectClose(layerNormForward({ x: values(5, 5) }, { rows: 1, width: 2 }), [0, 0]);
    expectClose(
      rmsNormForward({ x: values(0.003, 0.004) }, { rows: 1, width: 2 }),
      [0.816496580927726, 1.08866210790363],
      12,
    );
  });

  test('activations', () => {
    expectClose(siluForward(values(0, 1, -1, 1000, -1000)), [0, 0.7310585786300049, -0.2689414213699951, 1000, 0]);
    expectClose(geluTanhForward(values(0, 1, -1, 50, -50)), [0, 0.8411919906082768, -0.15880800939172324, 50, 0]);
  });

  test('gated residual: a gate for each batch entry', () => {
    const inputs = {
      x: values(1, 2, 3, 4, 5, 6, 7, 8),
      branch: values(1, 1, 1, 1, 2, 2, 2, 2),
      gate: values(10, 20, 30, 40),
    };
    const want = [11, 22, 13, 24, 65, 86, 67, 88];
    expect([...gatedResidualForward(inputs, { groups: 2, rows: 2, width: 2 })]).toEqual(want);
  });

  test('mean squared error', () => {
    expect(meanSquaredErrorForward(values(1, 2, 5), values(1, 4, 4))).toBeCloseTo(5 / 3, 14);
    expectClose(meanSquaredErrorBackward(values(1, 2, 5), values(1, 4, 4)), [0, -4 / 3, 2 / 3]);
  });

  test('sinusoids: cosines, then sines, from 1 down to almost 1 / maxPeriod', () => {
    const { cos, sin } = Math;
    const want = [cos(3), cos(0.03), sin(3), sin(0.03), 1, 1, 0, 0];
    expectClose(sinusoids([3, 0], 4), want);
    expectClose(sinusoids([2], 4, 100), [cos(2), cos(0.2), sin(2), sin(0.2)]);
  });
});

describe('rotary embedding', () => {
  test('64 pairs are split 22, 21, 21 over t, y, x', () => {
    const angles = rotaryAngles({ tokens: [2, 3, 4], headDim: 128 });
    const [t, y, x] = [1, 2, 3];
    const token = angles.subarray(((t * 3 + y) * 4 + x) * 64, ((t * 3 + y) * 4 + x + 1) * 64);
    const axis = (place: number, n: number) => Array.from({ length: n }, (_, i) => place / 10000 ** (i / n));
    expectClose(token, [...axis(t, 22), ...axis(y, 21), ...axis(x, 21)]);
  });

  test('a prefix is not turned, and theta is the base', () => {
    const angles = rotaryAngles({ tokens: [2, 1, 1], headDim: 4, theta: 100, prefix: 3 });
    expectClose(angles, [0, 0, 0, 0, 0, 0, 0, 0, 1, 0.1]);
  });

  test('adjacent channels turn together', () => {
    const quarter = Math.PI / 2;
    const shape = { batch: 1, length: 2, heads: 1, headDim: 4 };
    const x = values(1, 2, 3, 4, 1, 2, 3, 4);
    expectClose(rotaryForward(x, values(0, 0, quarter, 2 * quarter), shape), [1, 2, 3, 4, -2, 1, -3, -4]);
  });

  test('the product of two turned vectors depends on their offset alone', () => {
    const headDim = 12;
    const [tokens, heads] = [[3, 4, 5] as const, 2];
    const shape = { batch: 1, length: 60, heads, headDim };
    const angles = rotaryAngles({ tokens, headDim });
    const everywhere = (seed: number) => {
      const one = normal(heads * headDim, seed);
      return rotaryForward(
        Float64Array.from({ length: 60 * heads * headDim }, (_, i) => one[i % one.length]!),
        angles,
        shape,
      );
    };
    const [q, k] = [everywhere(1), everywhere(2)];
    const score = (from: readonly number[], to: readonly number[], head: number) => {
      const at = ([t, y, x]: readonly number[]) => (((t! * 4 + y!) * 5 + x!) * heads + head) * headDim;
      return inner(q.subarray(at(from), at(from) + headDim), k.subarray(at(to), at(to) + headDim));
    };
    for (const head of [0, 1]) {
      expect(score([0, 1, 1], [1, 3, 2], head)).toBeCloseTo(score([1, 0, 2], [2, 2, 3], head), 12);
      expect(Math.abs(score([0, 1, 1], [1, 3, 2], head) - score([0, 1, 1], [2, 3, 2], head))).toBeGreaterThan(1e-3);
    }
  });
});

describe('gradients', () => {
  const tensors = {
    x: normal(24, 1),
    weight: normal(20, 2),
    bias: normal(5, 3),
    gain: normal(12, 4),
    shift: normal(12, 5),
    branch: normal(24, 6),
    gate: normal(12, 7),
  };
  type Name = keyof typeof tensors;

  /** Every gradient that a backward gives against the forward. */
  function check(
    names: readonly Name[],
    forward: (inputs: typeof tensors) => Float64Array,
    backward: (inputs: typeof tensors, dy: Float64Array) => Partial<Record<Name, Float64Array>>,
  ): void {
    const dy = normal(forward(tensors).length, 9);
    const gradients = backward(tensors, dy);
    for (const name of names) {
      const loss = (changed: Float64Array) => inner(dy, forward({ ...tensors, [name]: changed }));
      expectGradient(loss, tensors[name], gradients[name]!, { elements: 8 });
    }
  }

  test('linear', () => {
    const shape = { rows: 6, inputs: 4, outputs: 5 };
    check(
      ['x', 'weight', 'bias'],
      (t) => linearForward(t, shape),
      (t, dy) => linearBackward(t, dy, shape),
    );
  });

  test.each([1, 3])('layer norm and RMS norm, %i groups', (groups) => {
    const shape = { rows: 6, width: 4, groups };
    const of = ({ x, gain, shift }: typeof tensors) => ({
      ...{ x, gain: gain.subarray(0, 4 * groups), shift: shift.subarray(0, 4 * groups) },
    });
    const padded = ({ x, gain, shift }: Record<'x' | 'gain', Float64Array> & { shift?: Float64Array }) => {
      const whole = (part: Float64Array) => Float64Array.from({ length: 12 }, (_, i) => part[i] ?? 0);
      return { x, gain: whole(gain), ...(shift !== undefined && { shift: whole(shift) }) };
    };
    const names = ['x', 'gain', 'shift'] as const;
    check(
      names,
      (t) => layerNormForward(of(t), shape),
      (t, dy) => padded(layerNormBackward(of(t), dy, shape)),
    );
    const rms = ({ x, gain }: typeof tensors) => ({ x, gain: gain.subarray(0, 4 * groups) });
    check(
      ['x', 'gain'],
      (t) => rmsNormForward(rms(t), shape),
      (t, dy) => padded(rmsNormBackward(rms(t), dy, shape)),
    );
    check(
      ['x'],
      (t) => layerNormForward({ x: t.x }, shape),
      (t, dy) => layerNormBackward({ x: t.x }, dy, shape),
    );
    check(
      ['x'],
      (t) => rmsNormForward({ x: t.x }, shape),
      (t, dy) => rmsNormBackward({ x: t.x }, dy, shape),
    );
  });

  test('activations', () => {
    check(
      ['x'],
      (t) => siluForward(t.x),
      (t, dy) => ({ x: siluBackward(t.x, dy) }),
    );
    check(
      ['x'],
      (t) => geluTanhForward(t.x),
      (t, dy) => ({ x: geluTanhBackward(t.x, dy) }),
    );
  });

  test('gated residual', () => {
    const shape = { groups: 3, rows: 2, width: 4 };
    check(
      ['x', 'branch', 'gate'],
      (t) => gatedResidualForward(t, shape),
      (t, dy) => gatedResidualBackward(t, dy, shape),
    );
  });

  test('rotary embedding', () => {
    const angles = rotaryAngles({ tokens: [1, 1, 3], headDim: 4 });
    const shape = { batch: 1, length: 3, heads: 2, headDim: 4 };
    check(
      ['x'],
      (t) => rotaryForward(t.x, angles, shape),
      (_, dy) => ({ x: rotaryBackward(dy, angles, shape) }),
    );
  });

  test('mean squared error', () => {
    const loss = (x: Float64Array) => meanSquaredErrorForward(x, tensors.branch);
    expectGradient(loss, tensors.x, meanSquaredErrorBackward(tensors.x, tensors.branch));
  });
});

test('wrong lengths are errors', () => {
  const shape = { rows: 2, width: 3 };
  expect(() => layerNormForward({ x: normal(5, 1) }, shape)).toThrow('x: got 5 elements, wanted [2, 3]');
  expect(() => rmsNormForward({ x: normal(6, 1) }, { ...shape, groups: 4 })).toThrow('wanted a multiple of groups');
  expect(() => meanSquaredErrorForward(normal(2, 1), normal(3, 1))).toThrow('target: got 3 elements');
  expect(() => linearForward({ x: normal(6, 1), weight: normal(5, 1) }, { rows: 2, inputs: 3, outputs: 2 })).toThrow(
    'weight: got 5 elements',
  );
});
