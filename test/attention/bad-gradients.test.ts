import { tidy } from '../../lib/index.js';
import { type Inputs, makeInputs, type Operation, OPERATIONS } from './every-operation.js';
import { disposed, elsewhere, expectError } from './misuse.js';
import { useGuardedMemory } from './support.js';
import { fresh } from '../under-test.js';

let inputs: Inputs;
beforeEach(() => {
  inputs = makeInputs('float16');
});
afterEach(() => {
  for (const tensor of Object.values(inputs)) tensor.dispose();
});
useGuardedMemory();

/** The name under which every operation takes the gradient of its output. */
const GRADIENT: Readonly<Record<string, keyof Inputs>> = { tilePooling: 'dCoarse', coarseAttention: 'dCoarse' };
const gradientOf = ({ name }: Operation) => GRADIENT[name] ?? 'dOutput';

describe.each(OPERATIONS)('$name.backward', (operation) => {
  const backward = (saved: unknown, gradient?: unknown) =>
    operation.backward(saved as never, {
      ...inputs,
      ...(gradient !== undefined && { [gradientOf(operation)]: gradient }),
    });

  test('saved that is none', () => {
    for (const saved of [undefined, null, {}, 5, inputs.q]) {
      expectError(() => backward(saved), 'ERR_ARGUMENT', 'saved', `${operation.name}.forward returned`);
    }
  });

  test('saved by another operation', () => {
    // What block-sparse and dense attention save is the same: attention over lists.
    const alike = ['blockSparseAttention', 'denseAttention'];
    for (const other of OPERATIONS) {
      if (other === operation || (alike.includes(other.name) && alike.includes(operation.name))) continue;
      const { saved } = tidy(() => ({ saved: other.forward(inputs, 'grid').saved }));
      expectError(() => backward(saved), 'ERR_ARGUMENT', 'saved', `${operation.name}.forward returned`);
      saved.dispose();
    }
  });

  test('saved and disposed', () => {
    const { saved } = tidy(() => ({ saved: operation.forward(inputs, 'grid').saved }));
    saved.dispose();
    saved.dispose();
    expectError(() => backward(saved), 'ERR_DISPOSED', 'saved', 'disposed');
  });

  test('saved inside a tidy that is over', () => {
    let saved: unknown;
    tidy(() => {
      ({ saved } = operation.forward(inputs, 'grid'));
    });
    const holdsNothing = operation.name === 'tilePooling'; // shapes alone, nothing to dispose
    if (holdsNothing) tidy(() => void backward(saved));
    else expectError(() => backward(saved), 'ERR_DISPOSED', 'saved', 'disposed');
  });

  test('wrong gradients', () => {
    const { saved } = tidy(() => ({ saved: operation.forward(inputs, 'grid').saved }));
    const good = inputs[gradientOf(operation)];
    const [B, rows, H, D] = good.shape as [number, number, number, number];
    const wrong = [
      [B, rows + 1, H, D],
      [B + 1, rows, H, D],
      [B, rows, 2 * H, D / 2],
      [B, rows, H * D],
    ];
    for (const shape of wrong) {
      using gradient = fresh.zeros(shape, { dtype: good.dtype });
      expectError(() => backward(saved, gradient), 'ERR_SHAPE', 'grads.output', `[${shape.join(', ')}]`);
    }
    using bfloat16 = good.cast('bfloat16');
    expectError(() => backward(saved, bfloat16), 'ERR_DTYPE', 'grads.output', 'bfloat16');
    using away = elsewhere(good);
    expectError(() => backward(saved, away), 'ERR_DEVICE', 'grads.output', 'cuda:7');
    expectError(() => backward(saved, disposed(good)), 'ERR_DISPOSED', 'grads.output', 'disposed');
    for (const value of [null, 5, {}, new Float32Array(3)]) {
      expectError(() => backward(saved, value), 'ERR_ARGUMENT', 'grads.output', 'a Tensor');
    }
    for (const grads of [undefined, null, 5, [], 'output']) {
      const { backward: raw } = operation.pair;
      expectError(() => raw(saved as never, grads as never), 'ERR_ARGUMENT', 'grads', '{ output: Tensor }');
    }
    for (const more of [{ lse: good }, { ouput: undefined }]) {
      const { backward: raw } = operation.pair;
      const grads = { output: good, ...more };
      expectError(
        () => raw(saved as never, grads as never),
        'ERR_ARGUMENT',
        'grads',
        /the unknown option '(lse|ouput)'/,
      );
    }
    saved.dispose();
  });
});
