import { annealedSparsity, TileGrid, topK } from '../../lib/index.js';
import { expectError } from './misuse.js';
import { useGuardedMemory } from './support.js';
import { fresh } from '../under-test.js';

useGuardedMemory();

const grid = (options: unknown) => () => new TileGrid(options as never);
const TOKENS = [4, 4, 4];

test('tokens and tiles that are not three positive whole numbers', () => {
  const bad = [undefined, null, 5, [], [4, 4], [4, 4, 4, 4], [4, 4, 0], [4, -1, 4], [4, 1.5, 4], [4, NaN, 4]];
  const worse = [[4, Infinity, 4], ['4', 4, 4], '', '4x4', '4x4x', '4x4x4x4', '4x-4x4', ' 4x4x4', '4X4X4', '0x4x4'];
  for (const tokens of [...bad, ...worse]) expectError(grid({ tokens }), 'ERR_GRID', 'tokens', 'three positive whole');
  for (const tile of [...bad, ...worse]) {
    if (tile === undefined || tile === null) continue; // the default
    expectError(grid({ tokens: TOKENS, tile }), 'ERR_GRID', 'tile', 'three positive whole');
  }
});

test('tiles of another volume', () => {
  for (const tile of [[3, 3, 3], [4, 4, 8], '1x1x1', '2x4x4', [64, 64, 64]]) {
    expectError(grid({ tokens: TOKENS, tile }), 'ERR_GRID', 'tile', 'a volume of 64');
  }
});

test('grids of too many tiles', () => {
  expectError(grid({ tokens: '999999999x999999999x999999999' }), 'ERR_GRID', 'tokens', 'fewer than 2^31');
  expectError(grid({ tokens: [4, 4 * 2 ** 16, 4 * 2 ** 16] }), 'ERR_GRID', 'tokens');
  expectError(grid({ tokens: TOKENS, prefix: 2 ** 37 }), 'ERR_GRID', 'tokens');
});

test('other options of a grid', () => {
  for (const prefix of [-1, 1.5, NaN, '3', 2 ** 41]) {
    expectError(grid({ tokens: TOKENS, prefix }), 'ERR_ARGUMENT', 'prefix', 'a whole number');
  }
  expectError(grid({ tokens: TOKENS, tiles: TOKENS }), 'ERR_ARGUMENT', 'grid', "unknown option 'tiles'");
  for (const options of [undefined, null, '4x4x4', TOKENS]) expectError(grid(options), 'ERR_ARGUMENT', 'grid');
  expectError(() => TileGrid.parse('4x4'), 'ERR_GRID', 'tokens');
  expectError(() => TileGrid.parse(5 as never), 'ERR_GRID', 'text');
  expectError(() => TileGrid.parse('4x4x4', { tokens: TOKENS } as never), 'ERR_ARGUMENT', 'options', "'tokens'");
  for (const length of [0, -1, 1.5, '5']) {
    expectError(() => TileGrid.sequence(length as number), 'ERR_ARGUMENT', 'length', 'at least 1');
  }
});

test('questions to a grid', () => {
  const eight = new TileGrid({ tokens: [8, 8, 8], prefix: 1 });
  for (const tile of [-1, 9, 0.5, NaN, '0']) {
    expectError(() => eight.valid(tile as number), 'ERR_ARGUMENT', 'tile', 'from 0 to 8');
  }
  expectError(() => eight.rows('row' as never), 'ERR_ARGUMENT', 'order');
});

test('topK and annealedSparsity', () => {
  const eight = new TileGrid({ tokens: [8, 8, 8] });
  for (const sparsity of [-0.1, 1.1, NaN, '0.9', undefined, null]) {
    expectError(() => topK(eight, { sparsity: sparsity as number }), 'ERR_ARGUMENT', 'sparsity');
  }
  expectError(() => topK('8x8x8' as never, { sparsity: 0.9 }), 'ERR_GRID', 'grid');
  expectError(() => topK(eight, { sparse: 0.9 } as never), 'ERR_ARGUMENT', 'options', "'sparse'");
  expectError(() => topK(eight, 0.9 as never), 'ERR_ARGUMENT', 'options');
  const anneal = (step: unknown, options: object) => () => annealedSparsity(step as number, options as never);
  for (const step of [-1, 0.5, NaN, '5', undefined]) expectError(anneal(step, { target: 0.9 }), 'ERR_ARGUMENT', 'step');
  for (const target of [-1, 2, NaN, undefined]) expectError(anneal(0, { target }), 'ERR_ARGUMENT', 'target');
  for (const interval of [0, 1.5, -50]) expectError(anneal(0, { target: 0.9, interval }), 'ERR_ARGUMENT', 'interval');
  for (const rate of [-0.03, 1.03, NaN]) expectError(anneal(0, { target: 0.9, rate }), 'ERR_ARGUMENT', 'rate');
  expectError(anneal(0, { target: 0.9, steps: 5 }), 'ERR_ARGUMENT', 'options', "'steps'");
});

const SHAPE = { batch: 1, heads: 1, queryTiles: 3, keyTiles: 5 };
const withShape = (lists: unknown, shape: unknown) => () => fresh.lists(lists as never, shape as never);
const from = (lists: unknown) => withShape(lists, SHAPE);

test('lists of your own', () => {
  const entry = (list: unknown) => from([[], list, []]);
  expectError(entry([2, 1]), 'ERR_LISTS', 'list 1, entry 1', /1 after 2, wanted ascending/);
  expectError(entry([0, 3, 3]), 'ERR_LISTS', 'list 1, entry 2', '3 twice');
  expectError(entry([0, 5]), 'ERR_LISTS', 'list 1, entry 1', 'from 0 to 4');
  for (const tile of [-1, 1.5, NaN, Infinity, 2 ** 32, '1', null]) {
    expectError(entry([tile]), 'ERR_LISTS', 'list 1, entry 0', 'from 0 to 4');
  }
  for (const list of [undefined, 3, 'a', { length: 1 }, Int32Array.of(1)]) {
    expectError(entry(list), 'ERR_LISTS', 'lists[1]', 'an array');
  }
  // Holes in arrays are no lists, and no tiles.
  expectError(entry(new Array(1)), 'ERR_LISTS', 'list 1, entry 0', 'undefined');
  expectError(from(new Array(3)), 'ERR_LISTS', 'lists[0]', 'undefined');
  for (const lists of [[], [[]], [[], []], [[], [], [], []]]) {
    expectError(from(lists), 'ERR_LISTS', 'lists', '3: B * H * Nq');
  }
  for (const lists of [undefined, null, 5, {}, new Int32Array(3), { offsets: [0], indices: [0] }]) {
    expectError(from(lists), 'ERR_LISTS', 'lists', 'Int32Array');
  }
});

test('lists as CSR', () => {
  const csr = (offsets: number[], indices: number[]) =>
    from({ offsets: Int32Array.from(offsets), indices: Int32Array.from(indices) });
  expectError(csr([0, 1, 2], [0, 0]), 'ERR_LISTS', 'lists.offsets', '4: B * H * Nq + 1');
  expectError(csr([1, 1, 2, 3], [0, 0, 0]), 'ERR_LISTS', 'lists.offsets', '0 first');
  expectError(csr([0, 2, 1, 3], [0, 1, 0]), 'ERR_LISTS', 'lists.offsets[2]', 'never falling');
  expectError(csr([0, -1, 1, 3], [0, 1, 0]), 'ERR_LISTS', 'lists.offsets[1]');
  expectError(csr([0, 1, 9, 3], [0, 1, 0]), 'ERR_LISTS', 'lists.offsets[2]');
  expectError(csr([0, 1, 1, 2], [0, 1, 2]), 'ERR_LISTS', 'lists.offsets', '3: the number of indices');
  expectError(csr([0, 2, 2, 3], [1, 0, 0]), 'ERR_LISTS', 'list 0, entry 1', 'ascending');
  expectError(csr([0, 0, 2, 3], [1, 1, 0]), 'ERR_LISTS', 'list 1, entry 1', 'twice');
  expectError(csr([0, 0, 2, 3], [1, 5, 0]), 'ERR_LISTS', 'list 1, entry 1', 'from 0 to 4');
  expectError(csr([0, 0, 2, 3], [-1, 2, 0]), 'ERR_LISTS', 'list 1, entry 0');
});

test('lists as a mask', () => {
  for (const mask of [undefined, null, [], new Uint8Array(14), new Uint8Array(16), new Int8Array(15), new Array(15)]) {
    expectError(() => fresh.listsFromMask(mask as never, SHAPE), 'ERR_LISTS', 'mask', 'a Uint8Array of 15 values');
  }
});

test('shapes of lists', () => {
  const makers = [
    (shape: unknown) => withShape([[], [], []], shape),
    (shape: unknown) => () => fresh.listsFromMask(new Uint8Array(15), shape as never),
    (shape: unknown) => () => fresh.fullLists(shape as never),
  ];
  for (const make of makers) {
    for (const name of ['batch', 'heads', 'queryTiles', 'keyTiles'] as const) {
      for (const value of [-1, 1.5, NaN, '1', undefined, 2 ** 31]) {
        expectError(make({ ...SHAPE, [name]: value }), 'ERR_ARGUMENT', `shape.${name}`, 'a whole number');
      }
    }
    expectError(make({ ...SHAPE, heads: 0 }), 'ERR_ARGUMENT', 'shape.heads');
    expectError(make({ ...SHAPE, tiles: 3 }), 'ERR_ARGUMENT', 'shape', "unknown option 'tiles'");
    expectError(make({ ...SHAPE, batch: 2 ** 16, heads: 2 ** 15 }), 'ERR_LISTS', 'shape', 'fewer than 2^31');
    for (const shape of [undefined, null, 5, [1, 1, 3, 5]]) expectError(make(shape), 'ERR_ARGUMENT', 'shape');
  }
});

test('other options of lists', () => {
  const options = { devise: 'cpu' } as never;
  expectError(() => fresh.lists([[], [], []], SHAPE, options), 'ERR_ARGUMENT', 'options', "'devise'");
  expectError(() => fresh.listsFromMask(new Uint8Array(15), SHAPE, options), 'ERR_ARGUMENT', 'options');
  expectError(() => fresh.fullLists(SHAPE, options), 'ERR_ARGUMENT', 'options');
  expectError(() => fresh.fullLists(SHAPE, { device: 'gpu' as never }), 'ERR_DEVICE', 'device', "'gpu'");
});

test.each(['from', 'full'] as const)('disposed lists of %s', async (kind) => {
  const lists = kind === 'full' ? fresh.fullLists(SHAPE) : fresh.lists([[], [1], []], SHAPE);
  lists.dispose();
  expectError(() => lists.bits(), 'ERR_DISPOSED', 'this', 'disposed lists');
  expectError(() => lists.transpose(), 'ERR_DISPOSED', 'this');
  await expect(lists.toArrays()).rejects.toMatchObject({ code: 'ERR_DISPOSED', argument: 'this' });
});
