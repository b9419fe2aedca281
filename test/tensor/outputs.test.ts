/** Outputs whose memory the operation makes that fills them. */

import { native } from '../../lib/binding.js';
import { TileGrid } from '../../lib/attention/grid.js';
import { orderCode } from '../../lib/attention/checks.js';
import { memory, tidy } from '../../lib/index.js';
import { dtypeCode } from '../../lib/tensor/dtype.js';
import { handleOf, outputTensor, Tensor } from '../../lib/tensor/tensor.js';
import { here } from '../under-test.js';
import { leaveNothingBehind } from './support.js';

leaveNothingBehind();

const grid = new TileGrid({ tokens: '2x3x4' });
const shape = [1, grid.length, 1, 64];
const means = [1, 1, 1, 64];
const pool = (x: Tensor, output: Tensor) =>
  native().poolingForward({
    ...{ dtype: dtypeCode('float32'), B: 1, H: 1, D: 64, grid: grid.native(), order: orderCode('grid') },
    ...{ x: handleOf(x, 'x'), output: handleOf(output, 'output') },
  });

test('one has memory once its operation was called, and gives it back as others do', () => {
  using x = Tensor.full(shape, 3, { device: here });
  const before = memory();
  const output = outputTensor(means, 'float32', here);
  expect(memory()).toEqual(before);
  pool(x, output);
  expect(memory()).toEqual({ numTensors: before.numTensors + 1, numBytes: before.numBytes + output.byteLength });
  expect(output.dataSync()).toEqual(new Float32Array(64).fill(3));
  output.dispose();
  expect(memory()).toEqual(before);
});

test('one whose operation was never called can be disposed, and is no input', () => {
  using x = Tensor.zeros(shape, { device: here });
  const before = memory();
  tidy(() => {
    const never = outputTensor(shape, 'float32', here);
    using output = outputTensor(means, 'float32', here);
    expect(() => pool(never, output)).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }) as Error);
    expect(() => never.dataSync()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }) as Error);
  });
  expect(memory()).toEqual(before);
  // Handles are used again.
  using again = outputTensor(means, 'float32', here);
  pool(x, again);
  expect(again.dataSync()).toEqual(new Float32Array(64));
});

test('memory is made on the device of an input, so there must be one before', () => {
  using bits = outputTensor([1, 1, 1, 1], 'int32', here);
  const call = () =>
    native().listsToBits({ B: 1, H: 1, rows: 1, columns: 1, lists: undefined, bits: handleOf(bits, '') });
  expect(call).toThrow('bits: got a handle without memory, wanted some memory before it');
  expect(call).toThrow(expect.objectContaining({ code: 'ERR_INTERNAL' }) as Error);
});
