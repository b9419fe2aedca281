/** Random graphs of sums, products and multiples, against float64 derivatives carried forward through the same graph. */
import fc from 'fast-check';
import { checkpoint } from '../../lib/autograd/index.js';
import { type Tensor, tidy } from '../../lib/index.js';
import { holds, useGuardedMemory } from '../attention/support.js';
import { add, leaf, multiply, numbers, scale, sum } from './support.js';

useGuardedMemory();

/** One call; inputs are counted back from the value before it, so every graph is valid. */
interface Step {
  kind: 'add' | 'multiply' | 'scale' | 'checkpoint' | 'reshape' | 'clone';
  a: number;
  b: number;
  by: number;
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    kind: fc.constantFrom('add' as const, 'multiply' as const, 'scale', 'checkpoint', 'reshape', 'clone'),
    a: fc.nat(12),
    b: fc.nat(12),
    by: fc.constantFrom(-1, 0.5, 0.25, 2, 0),
  }),
  { minLength: 1, maxLength: 14 },
);
const leaves = fc.array(fc.tuple(fc.integer({ min: -8, max: 8 }), fc.integer({ min: -8, max: 8 })), {
  minLength: 1,
  maxLength: 4,
});

/** A value in float64, and its derivative with respect to each leaf. */
interface Dual {
  value: number;
  slopes: number[];
}

function evaluate<T>(inputs: readonly T[], graph: readonly Step[], call: (step: Step, a: T, b: T) => T): T {
  const values = [...inputs];
  for (const step of graph) {
    const at = (back: number) => values[values.length - 1 - (back % values.length)]!;
    values.push(call(step, at(step.a), at(step.b)));
  }
  return values.at(-1)!;
}

function dual({ kind, by }: Step, a: Dual, b: Dual): Dual {
  const slopes = (f: (a: number, b: number) => number) => a.slopes.map((slope, i) => f(slope, b.slopes[i]!));
  switch (kind) {
    case 'add':
      return { value: a.value + b.value, slopes: slopes((x, y) => x + y) };
    case 'multiply':
      return { value: a.value * b.value, slopes: slopes((x, y) => x * b.value + y * a.value) };
    case 'scale':
      return { value: a.value * by, slopes: slopes((x) => x * by) };
    case 'checkpoint': // a * b * by + a
      return {
        value: a.value * b.value * by + a.value,
        slopes: slopes((x, y) => (x * b.value + y * a.value) * by + x),
      };
    default:
      return a;
  }
}

function tensorStep({ kind, by }: Step, a: Tensor, b: Tensor): Tensor {
  switch (kind) {
    case 'add':
      return add({ a, b });
    case 'multiply':
      return multiply({ a, b });
    case 'scale':
      return scale({ x: a, by });
    case 'checkpoint':
      return checkpoint((x, y) => add({ a: scale({ x: multiply({ a: x, b: y }), by }), b: x }), a, b);
    case 'reshape':
      return a.reshape([2, 1]).reshape([2]);
    case 'clone':
      return a.clone();
  }
}

test('gradients of random graphs', async () => {
  let compared = 0;
  await holds(150, fc.tuple(leaves, steps), async ([values, graph]) => {
    // Sixteenths of small numbers: a shallow graph is exact, a deep one has float32's roundings.
    const inputs = values.map((pair) => pair.map((value) => value / 4));
    const expected = [0, 1].map((i) =>
      evaluate<Dual>(
        inputs.map((pair, at) => ({ value: pair[i]!, slopes: inputs.map((_, other) => (other === at ? 1 : 0)) })),
        graph,
        dual,
      ),
    );
    const sizes = expected.flatMap(({ value, slopes }) => [value, ...slopes].map(Math.abs));
    if (Math.max(...sizes) > 1e6) return; // towers of squares
    const tensors = inputs.map((pair) => leaf(pair));
    try {
      tidy(() => {
        const root = evaluate(tensors, graph, tensorStep);
        sum({ x: root }).backward();
      });
      for (const [at, tensor] of tensors.entries()) {
        const wanted = expected.map(({ slopes }) => slopes[at]!);
        // A leaf that the result does not come from has no gradient at all.
        const got = (await numbers(tensor.grad)) ?? [0, 0];
        for (const i of [0, 1]) {
          expect(Math.abs(got[i]! - wanted[i]!)).toBeLessThanOrEqual(1e-4 * Math.max(1, ...sizes));
          compared += Math.abs(wanted[i]!) > 0 ? 1 : 0;
        }
      }
    } finally {
      for (const tensor of tensors) tensor.dispose();
    }
  });
  expect(compared).toBeGreaterThan(200);
});
