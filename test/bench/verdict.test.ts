/** The verdict must be able to fail: every result is corrupted, and the verdict has to say which. */

import type { BenchOptions } from '../../lib/bench/options.js';
import { makeLists } from '../../lib/bench/lists.js';
import { attentionWorkload } from '../../lib/bench/ops/attention.js';
import { coarseWorkload } from '../../lib/bench/ops/coarse.js';
import { listsWorkload, poolWorkload, selectWorkload } from '../../lib/bench/ops/tiles.js';
import { vsaWorkload } from '../../lib/bench/ops/vsa.js';
import { Findings } from '../../lib/bench/verdict/findings.js';
import { gather, gatherLse, TileRows } from '../../lib/bench/verdict/rows.js';
import type { Workload } from '../../lib/bench/workload.js';
import { TileGrid } from '../../lib/attention/grid.js';
import { memory } from '../../lib/device/device.js';
import { Tensor } from '../../lib/tensor/tensor.js';
import { here } from '../under-test.js';
import { onlyCase, SMALL } from './support.js';

let before: number;
const open: { dispose(): void }[] = [];
beforeEach(() => (before = memory().numTensors));
afterEach(() => {
  for (const one of open.splice(0)) one.dispose();
  expect(memory().numTensors).toBe(before);
});

function setupOf(options: BenchOptions) {
  const one = onlyCase({ ...SMALL, ...options });
  const made = one.lists !== null && one.lists !== 'selected' && one.lists !== 'dense';
  const lists = made ? makeLists('local', { B: one.B, H: one.H, grid: one.grid, K: one.K!, seed: 1 }) : undefined;
  return { one, device: here, lists };
}

function own<T extends { dispose(): void }>(one: T): T {
  open.push(one);
  return one;
}

/** Results that are disposed at the end. */
function results<T extends object>(result: T): T {
  for (const value of Object.values(result) as { dispose(): void }[]) own(value);
  return result;
}

/** Changes the values of a tensor in place. */
async function corrupt(tensor: Tensor, change: (values: Float32Array) => void): Promise<void> {
  const values = await tensor.toFloat32();
  change(values);
  tensor.copyFrom(tensor.dtype === 'float32' ? values : Float64Array.from(values));
}

const scaled = (values: Float32Array) => values.forEach((value, i) => (values[i] = value * 1.03));
/** In the first row of the first tile and head, which is always looked at. */
const oneElement = (values: Float32Array) => (values[5] = values[5]! + 1);
const notANumber = (values: Float32Array) => (values[5] = NaN);

async function problems<F extends object, G extends object>(workload: Workload<F, G>, forward: F, backward?: G) {
  const findings = new Findings(here);
  if (backward === undefined) await workload.judgeForward(forward, findings);
  else await workload.judgeBackward!(forward, backward, findings);
  return findings.problems;
}

describe.each(['bfloat16', 'float32', 'float16'])('attention in %s', (dtype) => {
  const options = { op: 'fine', dtype };

  test.each([
    ['all a little off', scaled],
    ['one element off', oneElement],
    ['NaN', notANumber],
  ])('output: %s', async (_, change) => {
    const workload = own(attentionWorkload(setupOf(options)));
    const forward = results(workload.forward());
    expect(await problems(workload, forward)).toEqual([]);
    await corrupt(forward.output, change);
    expect(await problems(workload, forward)).toEqual([expect.stringMatching(/^output: got .* batch 0, head 0/)]);
  });

  test('lse', async () => {
    const workload = own(attentionWorkload(setupOf(options)));
    const forward = results(workload.forward());
    await corrupt(forward.saved.lse, (values) => (values[0] = values[0]! + 0.01));
    expect(await problems(workload, forward)).toEqual([expect.stringMatching(/^lse/)]);
  });

  test.each(['q', 'k', 'v'] as const)('d%s', async (name) => {
    const workload = own(attentionWorkload(setupOf(options)));
    const forward = results(workload.forward());
    const grads = results(workload.backward!(forward));
    expect(await problems(workload, forward, grads)).toEqual([]);
    await corrupt(grads[name], scaled);
    expect(await problems(workload, forward, grads)).toEqual([expect.stringMatching(new RegExp(`^d${name}: got`))]);
  });

  test('a saved output that is wrong is found before gradients are judged by it', async () => {
    const workload = own(attentionWorkload(setupOf(options)));
    const forward = results(workload.forward());
    const grads = results(workload.backward!(forward));
    await corrupt(forward.saved.output, scaled);
    expect(await problems(workload, forward, grads)).toContainEqual(expect.stringMatching(/^output/));
  });
});

test('attention by other lists than it was given', async () => {
  const setup = setupOf({ op: 'fine' });
  const workload = own(attentionWorkload(setup));
  const { one } = setup;
  const other = makeLists('random', { B: 1, H: one.H, grid: one.grid, K: 3, seed: 77 });
  const wrong = own(attentionWorkload({ ...setup, lists: other }));
  expect(await problems(workload, results(wrong.forward()))).not.toEqual([]);
});

describe('padding that is not cleared', () => {
  const options = { order: 'tiled' };
  /** In the last slot of the last, partial tile. */
  const stray = (values: Float32Array) => (values[values.length - 1] = 1);

  test('in an output', async () => {
    const workload = own(attentionWorkload(setupOf({ ...options, op: 'fine' })));
    const forward = results(workload.forward());
    expect(await problems(workload, forward)).toEqual([]);
    await corrupt(forward.output, stray);
    expect(await problems(workload, forward)).toEqual([expect.stringMatching(/^output: got 1 in the padding/)]);
  });

  test.each(['q', 'k', 'v'] as const)('in the gradient of %s, of attention', async (name) => {
    const workload = own(attentionWorkload(setupOf({ ...options, op: 'fine' })));
    const forward = results(workload.forward());
    const grads = results(workload.backward!(forward));
    expect(await problems(workload, forward, grads)).toEqual([]);
    await corrupt(grads[name], stray);
    const kind = name === 'q' ? 'query' : 'key';
    expect(await problems(workload, forward, grads)).toEqual([
      expect.stringMatching(new RegExp(`^d${name}: got 1 in the padding of .*${kind} tile 17`)),
    ]);
  });

  test.each(['q', 'k', 'v', 'coarseGate', 'fineGate'] as const)('in the gradient of %s, of all of it', async (name) => {
    const workload = own(await vsaWorkload(setupOf({ ...options, op: 'vsa', fineGate: 'on', heads: '1' })));
    const forward = results(workload.forward());
    const grads = results(workload.backward!(forward));
    expect(await problems(workload, forward, grads)).toEqual([]);
    await corrupt(grads[name]!, stray);
    expect(await problems(workload, forward, grads)).toEqual([
      expect.stringMatching(new RegExp(`^d${name}: got 1 in the padding`)),
    ]);
  });
});

test('pooling', async () => {
  const workload = own(poolWorkload(setupOf({ op: 'pool' })));
  const forward = results(workload.forward());
  const grads = results(workload.backward!(forward));
  expect([...(await problems(workload, forward)), ...(await problems(workload, forward, grads))]).toEqual([]);
  await corrupt(forward.output, (values) => (values[5] = values[5]! * 1.0001));
  await corrupt(grads.x, scaled);
  expect(await problems(workload, forward)).toEqual([expect.stringMatching(/^output/)]);
  expect(await problems(workload, forward, grads)).toEqual([expect.stringMatching(/^dx/)]);
});

test('a selection of other tiles', async () => {
  const workload = own(await selectWorkload(setupOf({ op: 'select' })));
  const { lists } = results(workload.forward());
  expect(await problems(workload, { lists })).toEqual([]);
  const indices = (await lists.indices!.data()) as Int32Array;
  const N = lists.keyTiles;
  // The first list of three, with another tile in the place of its last.
  const free = Array.from({ length: N }, (_, j) => j).filter((j) => !indices.subarray(0, 3).includes(j));
  const { TileLists } = await import('../../lib/attention/lists.js');
  const changed = indices.slice();
  changed.set([indices[0]!, indices[1]!, free.at(-1)!].sort((a, b) => a - b));
  const offsets = (await lists.offsets!.data()) as Int32Array;
  const shape = { batch: 1, heads: 2, queryTiles: N, keyTiles: N };
  const wrong = own(TileLists.from({ offsets, indices: changed }, shape, { device: here }));
  expect(await problems(workload, { lists: wrong })).toEqual([expect.stringMatching(/^lists: tile .* was kept/)]);
});

test('lists', async () => {
  const workload = own(listsWorkload(setupOf({ op: 'lists' })));
  const forward = results(workload.forward());
  const backward = results(workload.backward!(forward));
  expect([...(await problems(workload, forward)), ...(await problems(workload, forward, backward))]).toEqual([]);
  const bits = (await forward.bits.data()) as Int32Array;
  bits[0]! ^= 1;
  forward.bits.copyFrom(bits);
  expect(await problems(workload, forward)).toEqual([expect.stringMatching(/^bits/)]);
  const grid = new TileGrid({ tokens: '5x9x10' });
  const lists = makeLists('random', { B: 1, H: 2, grid, K: 3, seed: 8 });
  const other = own(listsWorkload({ ...setupOf({ op: 'lists' }), lists }));
  const wrong = results(other.backward!(forward));
  expect(await problems(workload, forward, wrong)).not.toEqual([]);
});

test('coarse attention', async () => {
  const workload = own(coarseWorkload(setupOf({ op: 'coarse' })));
  const forward = results(workload.forward());
  const grads = results(workload.backward!(forward));
  expect(await problems(workload, forward, grads)).toEqual([]);
  await corrupt(grads.k, (values) => (values[5] = values[5]! + 1e-3));
  expect(await problems(workload, forward, grads)).toEqual([expect.stringMatching(/^dk/)]);
  await corrupt(forward.output, (values) => (values[5] = values[5]! + 1e-3));
  expect(await problems(workload, forward)).toEqual([expect.stringMatching(/^output/)]);
});

describe('the whole operator', () => {
  const options = { op: 'vsa', fineGate: 'on' };

  test('output and its parts', async () => {
    const workload = own(await vsaWorkload(setupOf(options)));
    const forward = results(workload.forward());
    expect(await problems(workload, forward)).toEqual([]);
    await corrupt(forward.output, scaled);
    expect(await problems(workload, forward)).toEqual([expect.stringMatching(/^output/)]);
  });

  test.each(['q', 'k', 'v', 'coarseGate', 'fineGate'] as const)('gradient of %s', async (name) => {
    const workload = own(await vsaWorkload(setupOf(options)));
    const forward = results(workload.forward());
    const grads = results(workload.backward!(forward));
    expect(await problems(workload, forward, grads)).toEqual([]);
    await corrupt(grads[name]!, scaled);
    expect(await problems(workload, forward, grads)).toEqual([expect.stringMatching(new RegExp(`^d${name}: got`))]);
  });

  test.each([1, 2])('smooth data: neighbouring rows share about half of their lists, seed %i', async (seed) => {
    const shape = { grid: '16x32x32', topK: '32', heads: '2', dtype: 'float32' };
    const workload = own(await vsaWorkload(setupOf({ op: 'vsa', data: 'smooth', seed, ...shape })));
    expect(workload.summary!.overlap).toBeGreaterThan(0.45);
    expect(workload.summary!.overlap).toBeLessThan(0.55);
  });

  test('without the coarse part of its gradients', async () => {
    const workload = own(await vsaWorkload(setupOf({ op: 'vsa', coarse: 'add', dtype: 'float32' })));
    const skipping = own(await vsaWorkload(setupOf({ op: 'vsa', coarse: 'skip', dtype: 'float32' })));
    const forward = results(workload.forward());
    const wrong = results(skipping.backward!(results(skipping.forward())));
    const found = await problems(workload, forward, wrong);
    for (const name of ['dq', 'dk', 'dv'])
      expect(found).toContainEqual(expect.stringMatching(new RegExp(`^${name}: `)));
  });
});

describe('rows', () => {
  test.each(['grid', 'tiled'] as const)('of tiles in %s order are where tiles lie', (order) => {
    const grid = new TileGrid({ tokens: '5x6x7', prefix: 70 });
    const rows = new TileRows(grid, order);
    const permutation = grid.permutation();
    const want = Array.from({ length: grid.totalTileCount }, (_, tile) =>
      [...permutation.subarray(tile * 64, tile * 64 + 64)]
        .map((token, slot) => (token < 0 ? -1 : order === 'grid' ? token : tile * 64 + slot))
        .filter((row) => row >= 0)
        .sort((a, b) => a - b),
    );
    want.forEach((list, tile) => expect([...rows.of(tile)]).toEqual(list));
    expect([...rows.all]).toEqual(want.flat().sort((a, b) => a - b));
    expect([...rows.ofAll([4, 1])]).toEqual([...want[4]!, ...want[1]!].sort((a, b) => a - b));
    rows.all.forEach((row, at) => expect(want[rows.tileOf[at]!]).toContain(row));
  });

  test.each(['float32', 'bfloat16', 'float16'] as const)('of %s tensors are read as they are', async (dtype) => {
    const tensor = own(Tensor.randn([2, 3000, 3, 64], { device: here, dtype, seed: 3 }));
    const all = await tensor.toFloat32();
    const picked = Int32Array.of(0, 1, 7, 8, 1500, 2999);
    const values = await gather(tensor, 1, 2, picked);
    picked.forEach((row, at) => {
      const from = ((3000 + row) * 3 + 2) * 64;
      expect([...values.subarray(at * 64, (at + 1) * 64)]).toEqual([...all.subarray(from, from + 64)]);
    });
    const lse = own(Tensor.randn([2, 3, 500], { device: here, seed: 4 }));
    const numbers = await lse.toFloat32();
    expect([...(await gatherLse(lse, 1, 1, Int32Array.of(3, 499)))]).toEqual([numbers[2003], numbers[2499]]);
  });
});
