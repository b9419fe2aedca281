import {
  backends,
  blockSparseAttention,
  coarseAttention,
  denseAttention,
  gatedCombination,
  type Tensor,
  TileGrid,
  tile,
  tilePooling,
  tileSelection,
  untile,
  videoSparseAttention,
} from '../../lib/index.js';
import { disposed, elsewhere, expectError, type Misuse, NO_TENSORS, testMisuses } from './misuse.js';
import { useGuardedMemory } from './support.js';
import { fresh, here } from '../under-test.js';

const GRID = new TileGrid({ tokens: [5, 3, 6] });
const OTHER = new TileGrid({ tokens: [4, 4, 8], prefix: 3 });
const L = GRID.length;
const TILES = GRID.totalTileCount;
const LISTS = { batch: 1, heads: 4, queryTiles: TILES, keyTiles: TILES };

/** Everything made in a test is disposed after it. */
const made: { dispose(): void }[] = [];
afterEach(() => {
  for (const resource of made.splice(0)) resource.dispose();
});
useGuardedMemory();

function own<T extends { dispose(): void }>(resource: T): T {
  made.push(resource);
  return resource;
}
const zeros = (shape: readonly number[], dtype: 'float32' | 'bfloat16' | 'int32' = 'float32') =>
  own(fresh.zeros(shape, { dtype }));
const moved = (tensor: Tensor) => own(elsewhere(tensor));

/** Backends that do not serve the device under test. */
const notServing = (['cpu', 'cuda', 'sm90'] as const).filter(
  (backend) => !backends(here).some((row) => row.backend === backend && row.serves),
);

/** What is wrong with options that every operation shares. */
const common = (): Misuse[] => [
  ['a misspelt option', { odrer: 'grid' }, 'ERR_ARGUMENT', 'options', "unknown option 'odrer'"],
  ['an unknown backend', { backend: 'tpu' }, 'ERR_ARGUMENT', 'backend', "'tpu'"],
  ...notServing.map((backend): Misuse => [
    `${backend} for tensors on ${here.toString()}`,
    { backend },
    'ERR_BACKEND',
    'backend',
    `'${backend}' for tensors on ${here.toString()}`,
  ]),
];
const grids = (): Misuse[] => [
  ['no grid', { grid: undefined }, 'ERR_GRID', 'grid', 'undefined'],
  ['a plain object as grid', { grid: { tokens: [5, 3, 6] } }, 'ERR_GRID', 'grid', 'a TileGrid'],
  ['a text as grid', { grid: '5x3x6' }, 'ERR_GRID', 'grid', "'5x3x6'"],
];
const orders = (): Misuse[] => [
  ['an unknown order', { order: 'rows' }, 'ERR_ARGUMENT', 'order', "'grid' or 'tiled'"],
  ['an order that is no text', { order: 1 }, 'ERR_ARGUMENT', 'order'],
];
const scales = (): Misuse[] => [
  ...[NaN, Infinity, '0.1', null, 1n].map((scale): Misuse => [
    'a bad scale',
    { scale },
    'ERR_ARGUMENT',
    'scale',
    'finite',
  ]),
  ...[1e300, -1e39, 3.4028236e38].map((scale): Misuse => [
    'a scale that is infinite in float32',
    { scale },
    'ERR_ARGUMENT',
    'scale',
    'a float32',
  ]),
];
/** A value for `name` that is no tensor, disposed, of another device, of whole numbers. */
const tensors = (name: string, good: Tensor, option = (value: unknown): object => ({ [name]: value })): Misuse[] => [
  ...NO_TENSORS.filter((value) => value !== undefined).map((value): Misuse => [
    `${name} is no tensor`,
    option(value),
    'ERR_ARGUMENT',
    name,
    'a Tensor',
  ]),
  [`${name} is disposed`, option(disposed(good)), 'ERR_DISPOSED', name, 'disposed'],
  [`${name} is int32`, option(zeros(good.shape, 'int32')), 'ERR_DTYPE', name, 'int32'],
  [
    `${name} is of rank 3`,
    option(own(good.reshape([-1, good.shape[2]!, good.shape[3]!]))),
    'ERR_SHAPE',
    name,
    'rank 4',
  ],
];

/** What is wrong with q, k and v of [1, Lq, 4, 64] and [1, Lk, 2, 64]; `dtype` is one that they do not have. */
function attention(q: Tensor, k: Tensor, dtype: 'float32' | 'bfloat16'): Misuse[] {
  const [Lq, Lk] = [q.shape[1]!, k.shape[1]!];
  return [
    ...[tensors('q', q), tensors('k', k), tensors('v', k)].flat(),
    ['no q', { q: undefined }, 'ERR_ARGUMENT', 'q', 'undefined'],
    ['no v', { v: undefined }, 'ERR_ARGUMENT', 'v', 'undefined'],
    ['k of another dtype', { k: zeros(k.shape, dtype) }, 'ERR_DTYPE', 'k', dtype],
    ['v of another dtype', { v: zeros(k.shape, dtype) }, 'ERR_DTYPE', 'v', dtype],
    ['k on another device', { k: moved(k) }, 'ERR_DEVICE', 'k', /cuda:7.*, where q is/],
    ['v on another device', { v: moved(k) }, 'ERR_DEVICE', 'v'],
    ['a head dim of 80', { q: zeros([1, Lq, 4, 80], dtypeOf(q)) }, 'ERR_HEAD_DIM', 'q', /80, wanted 64, 96, 128/],
    ['a head dim of 0', { q: zeros([1, Lq, 4, 0], dtypeOf(q)) }, 'ERR_HEAD_DIM', 'q'],
    ['another head dim of k', { k: zeros([1, Lk, 2, 128], dtypeOf(q)) }, 'ERR_SHAPE', 'k', '[1, '],
    ['another batch of k', { k: zeros([2, Lk, 2, 64], dtypeOf(q)) }, 'ERR_SHAPE', 'k'],
    ['v unlike k in rows', { v: zeros([1, Lk + 1, 2, 64], dtypeOf(q)) }, 'ERR_SHAPE', 'v'],
    ['v unlike k in heads', { v: zeros([1, Lk, 4, 64], dtypeOf(q)) }, 'ERR_SHAPE', 'v'],
    ['v unlike k in head dim', { v: zeros([1, Lk, 2, 96], dtypeOf(q)) }, 'ERR_SHAPE', 'v'],
    ['4 heads on 3', heads(3), 'ERR_SHAPE', 'k', '3 key heads for 4 query heads'],
    ['4 heads on 8', heads(8), 'ERR_SHAPE', 'k', '8 key heads for 4 query heads'],
    ['4 heads on 0', heads(0), 'ERR_SHAPE', 'k', '0 key heads'],
    ['0 heads on 2', { q: zeros([1, Lq, 0, 64], dtypeOf(q)) }, 'ERR_SHAPE', 'k', '0 query heads'],
  ];
  function heads(count: number): object {
    const kv = zeros([1, Lk, count, 64], dtypeOf(q));
    return { k: kv, v: kv };
  }
}
function dtypeOf(tensor: Tensor): 'float32' | 'bfloat16' {
  return tensor.dtype as 'float32' | 'bfloat16';
}

/** Rows that do not fit the grid, and grids. */
const tokenRows = (q: Tensor, k: Tensor): Misuse[] => [
  ['a token too many in q', { q: zeros([1, L + 1, 4, 64], dtypeOf(q)) }, 'ERR_SHAPE', 'q', `${L}`],
  ['a token too few in k', { k: zeros([1, L - 1, 2, 64], dtypeOf(k)) }, 'ERR_SHAPE', 'k', `${L}`],
  ['grid order called tiled', { order: 'tiled' }, 'ERR_SHAPE', 'q', String(GRID.slots)],
  ['another grid', { grid: OTHER }, 'ERR_SHAPE', 'q', String(OTHER.length)],
  ['another key grid', { keyGrid: OTHER }, 'ERR_SHAPE', 'k', String(OTHER.length)],
  ['a key grid that is none', { keyGrid: 'grid' }, 'ERR_GRID', 'keyGrid', "'grid'"],
];

const listsOf = (shape: object = {}) => own(fresh.fullLists({ ...LISTS, ...shape }));
const lists = (): Misuse[] => {
  const gone = own(fresh.fullLists(LISTS));
  gone.dispose();
  const away = own(fresh.fullLists(LISTS));
  Object.defineProperty(away, 'device', { value: moved(zeros([1])).device });
  return [
    ['plain arrays as lists', { lists: [[0]] }, 'ERR_LISTS', 'lists', 'TileLists'],
    ['lists of another batch', { lists: listsOf({ batch: 2 }) }, 'ERR_LISTS', 'lists', '[2, 4, '],
    ['lists of the key heads', { lists: listsOf({ heads: 2 }) }, 'ERR_LISTS', 'lists'],
    ['lists of fewer query tiles', { lists: listsOf({ queryTiles: TILES - 1 }) }, 'ERR_LISTS', 'lists'],
    ['lists of more key tiles', { lists: listsOf({ keyTiles: TILES + 1 }) }, 'ERR_LISTS', 'lists', 'key tiles'],
    ['disposed lists', { lists: gone }, 'ERR_DISPOSED', 'lists', 'disposed'],
    ['lists on another device', { lists: away }, 'ERR_DEVICE', 'lists', 'cuda:7'],
  ];
};

const q = (dtype: 'float32' | 'bfloat16' = 'bfloat16') => zeros([1, L, 4, 64], dtype);
const k = (dtype: 'float32' | 'bfloat16' = 'bfloat16') => zeros([1, L, 2, 64], dtype);

test.each([undefined, null, 5, 'options', [], () => 5])('options that are %p', (options) => {
  const none = options as never;
  const calls: (() => unknown)[] = [
    () => tilePooling.forward(none),
    () => coarseAttention.forward(none),
    () => tileSelection.forward(none),
    () => blockSparseAttention.forward(none),
    () => denseAttention.forward(none),
    () => gatedCombination.forward(none),
    () => videoSparseAttention.forward(none),
    () => tile.forward(none),
    () => untile.forward(none),
  ];
  for (const call of calls) expectError(call, 'ERR_ARGUMENT', 'options', 'wanted an object');
});

describe('tilePooling', () => {
  testMisuses(
    (options) => {
      const { output, saved } = tilePooling.forward(options);
      own(output);
      own(saved);
    },
    () => ({ x: q(), grid: GRID }),
    () => [
      ...[common(), grids(), orders(), tensors('x', q())].flat(),
      ['no x', { x: undefined }, 'ERR_ARGUMENT', 'x', '[B, rows, H, D]'],
      ['a token too few', { x: zeros([1, L - 1, 4, 64]) }, 'ERR_SHAPE', 'x', `${L}`],
      ['grid order called tiled', { order: 'tiled' }, 'ERR_SHAPE', 'x', String(GRID.slots)],
    ],
  );
});

describe.each(['tile', 'untile'] as const)('%s', (name) => {
  const rows = name === 'tile' ? L : GRID.slots;
  testMisuses(
    (options) => {
      const { output, saved } = (name === 'tile' ? tile : untile).forward(options);
      own(output);
      own(saved);
    },
    () => ({ x: zeros([2, rows, 3]), grid: GRID }),
    () => [
      ...[common(), grids()].flat(),
      ...NO_TENSORS.map((x): Misuse => ['x is no tensor', { x }, 'ERR_ARGUMENT', 'x', 'a Tensor']),
      ['x is disposed', { x: disposed(zeros([2, rows, 3])) }, 'ERR_DISPOSED', 'x'],
      ['a row too many', { x: zeros([2, rows + 1, 3]) }, 'ERR_SHAPE', 'x', `[B, ${rows}, ...]`],
      ['rows of the other order', { x: zeros([2, rows === L ? GRID.slots : L]) }, 'ERR_SHAPE', 'x'],
      ['rank 1', { x: zeros([rows]) }, 'ERR_SHAPE', 'x'],
      ['an order', { order: 'grid' }, 'ERR_ARGUMENT', 'options', "unknown option 'order'"],
    ],
  );
});

describe('coarseAttention', () => {
  const [qc, kc] = [() => zeros([1, 5, 4, 64]), () => zeros([1, 7, 2, 64])];
  testMisuses(
    (options) => {
      const { output, saved } = coarseAttention.forward(options);
      own(output);
      own(saved);
    },
    () => ({ q: qc(), k: kc(), v: kc() }),
    () => [
      ...[common(), scales(), attention(qc(), kc(), 'bfloat16')].flat(),
      ['q that is not pooled', { q: q('bfloat16') }, 'ERR_DTYPE', 'q', /bfloat16, wanted float32/],
      ['a grid', { grid: GRID }, 'ERR_ARGUMENT', 'options', "unknown option 'grid'"],
    ],
  );
});

/** Rules of a selection, of 4 video key tiles. */
const rules = (): Misuse[] => [
  ...[0, -1, 5, 1.5, NaN, Infinity, '3', null, undefined].map((topK): Misuse => [
    'a bad K',
    { topK },
    'ERR_TOP_K',
    'topK',
    'a whole number from 1 to 4',
  ]),
  ['an unknown prefix mode', { prefix: 'none' }, 'ERR_ARGUMENT', 'prefix', "'exempt' or 'compete'"],
  ['includeSelf that is no boolean', { includeSelf: 1 }, 'ERR_ARGUMENT', 'includeSelf', 'true or false'],
];

describe('tileSelection', () => {
  const [qc, kc] = [() => zeros([1, TILES, 4, 64]), () => zeros([1, TILES, 2, 64])];
  const otherKey = () => ({ keyGrid: OTHER, k: zeros([1, OTHER.totalTileCount, 2, 64]) });
  testMisuses(
    (options) => {
      own(tileSelection.forward(options).lists);
    },
    () => ({ q: qc(), k: kc(), grid: GRID, topK: 2 }),
    () => [
      ...[common(), grids(), scales(), rules(), tensors('q', qc()), tensors('k', kc())].flat(),
      ['q that is not pooled', { q: q('bfloat16') }, 'ERR_DTYPE', 'q', 'float32'],
      ['k on another device', { k: moved(kc()) }, 'ERR_DEVICE', 'k'],
      ['tokens instead of tiles', { q: q('float32') }, 'ERR_SHAPE', 'q', `${TILES}`],
      ['a key tile too many', { k: zeros([1, TILES + 1, 2, 64]) }, 'ERR_SHAPE', 'k'],
      ['another batch of k', { k: zeros([2, TILES, 2, 64]) }, 'ERR_SHAPE', 'k'],
      ['another head dim', { k: zeros([1, TILES, 2, 96]) }, 'ERR_SHAPE', 'k'],
      ['a head dim of 48', { q: zeros([1, TILES, 4, 48]) }, 'ERR_HEAD_DIM', 'q'],
      ['4 heads on 3', { k: zeros([1, TILES, 3, 64]) }, 'ERR_SHAPE', 'k', '3 key heads for 4 query heads'],
      ['a key grid that is none', { keyGrid: 'grid' }, 'ERR_GRID', 'keyGrid'],
      ['K of more than its tiles', { ...otherKey(), topK: 3 }, 'ERR_TOP_K', 'topK', '1 to 2'],
      ['own tiles of other keys', { ...otherKey(), includeSelf: true }, 'ERR_GRID', 'includeSelf', 'equal grids'],
      ['returnScores that is no boolean', { returnScores: 'yes' }, 'ERR_ARGUMENT', 'returnScores', 'true or false'],
      ['an order', { order: 'grid' }, 'ERR_ARGUMENT', 'options', "unknown option 'order'"],
    ],
  );
});

describe('blockSparseAttention', () => {
  testMisuses(
    (options) => {
      const { output, saved } = blockSparseAttention.forward(options);
      own(output);
      own(saved);
    },
    () => ({ q: q(), k: k(), v: k(), grid: GRID, lists: listsOf() }),
    () => [
      ...[common(), grids(), orders(), scales(), lists(), attention(q(), k(), 'float32'), tokenRows(q(), k())].flat(),
      ['no lists', { lists: undefined }, 'ERR_LISTS', 'lists', 'undefined'],
      ['a K', { topK: 2 }, 'ERR_ARGUMENT', 'options', "unknown option 'topK'"],
    ],
  );
});

describe('denseAttention', () => {
  testMisuses(
    (options) => {
      const { output, saved } = denseAttention.forward(options);
      own(output);
      own(saved);
    },
    () => ({ q: q(), k: k(), v: k() }),
    () => [
      ...[common(), orders(), scales(), attention(q(), k(), 'float32')].flat(),
      ['tiled order without a grid', { order: 'tiled' }, 'ERR_GRID', 'grid', 'padding'],
      ['a grid that is none', { grid: 5 }, 'ERR_GRID', 'grid'],
      ['a key grid that is none', { keyGrid: 5 }, 'ERR_GRID', 'keyGrid'],
      ['a grid of other tokens', { grid: OTHER }, 'ERR_SHAPE', 'q', String(OTHER.length)],
      ['a key grid of other tokens', { keyGrid: OTHER }, 'ERR_SHAPE', 'k', String(OTHER.length)],
      ['no queries', { q: zeros([1, 0, 4, 64], 'bfloat16') }, 'ERR_SHAPE', 'q', 'at least one token'],
      ['no keys', noKeys(), 'ERR_SHAPE', 'k', 'at least one token'],
    ],
  );
  function noKeys() {
    const kv = zeros([1, 0, 2, 64], 'bfloat16');
    return { k: kv, v: kv };
  }
});

describe('gatedCombination', () => {
  const coarse = () => zeros([1, TILES, 4, 64]);
  testMisuses(
    (options) => {
      const { output, saved } = gatedCombination.forward(options);
      own(output);
      own(saved);
    },
    () => ({ fine: q(), coarse: coarse(), coarseGate: q(), fineGate: q(), grid: GRID }),
    () => [
      ...[common(), grids(), orders()].flat(),
      ...[tensors('fine', q()), tensors('coarseGate', q()), tensors('fineGate', q())].flat(),
      ...tensors('coarse', coarse()),
      ['no fine output', { fine: undefined }, 'ERR_ARGUMENT', 'fine'],
      ['a gate of nothing', { coarse: undefined }, 'ERR_ARGUMENT', 'coarse', 'beside a coarseGate'],
      ['a token too many', { fine: zeros([1, L + 1, 4, 64]) }, 'ERR_SHAPE', 'fine', `${L}`],
      ['a tile too many', { coarse: zeros([1, TILES + 1, 4, 64]) }, 'ERR_SHAPE', 'coarse', `${TILES}`],
      ['a coarse output of tokens', { coarse: q('float32') }, 'ERR_SHAPE', 'coarse'],
      [
        'a coarse output in 16 bits',
        { coarse: zeros([1, TILES, 4, 64], 'bfloat16') },
        'ERR_DTYPE',
        'coarse',
        'float32',
      ],
      ['a coarse gate of fewer heads', { coarseGate: k() }, 'ERR_SHAPE', 'coarseGate'],
      ['a fine gate of fewer heads', { fineGate: k() }, 'ERR_SHAPE', 'fineGate'],
      ['a coarse gate of another dtype', { coarseGate: q('float32') }, 'ERR_DTYPE', 'coarseGate', 'as fine has'],
      ['a fine gate of another dtype', { fineGate: q('float32') }, 'ERR_DTYPE', 'fineGate', 'as fine has'],
      ['a coarse output elsewhere', { coarse: moved(coarse()) }, 'ERR_DEVICE', 'coarse'],
      ['a fine gate elsewhere', { fineGate: moved(q()) }, 'ERR_DEVICE', 'fineGate'],
    ],
  );
});

describe('videoSparseAttention', () => {
  const gate = (name: 'coarse' | 'fine'): Misuse[] => [
    ...tensors(`${name}.gate`, q(), (value) => ({ [name]: { gate: value } })),
    ['an object without a gate', { [name]: {} }, 'ERR_ARGUMENT', `${name}.gate`, 'undefined'],
    ['a gate of fewer heads', { [name]: { gate: k() } }, 'ERR_SHAPE', `${name}.gate`, '[1, 90, 4, 64]'],
    ['a gate of another dtype', { [name]: { gate: q('float32') } }, 'ERR_DTYPE', `${name}.gate`, 'as q has'],
    ['a gate elsewhere', { [name]: { gate: moved(q()) } }, 'ERR_DEVICE', `${name}.gate`],
    ['a gate and more', { [name]: { gate: q(), bias: q() } }, 'ERR_ARGUMENT', name, "unknown option 'bias'"],
    ['an array', { [name]: [q()] }, 'ERR_ARGUMENT', name],
  ];
  const run = (options: never) => {
    const { output, saved } = videoSparseAttention.forward(options);
    own(output);
    own(saved);
  };
  testMisuses(
    run,
    () => ({ q: q(), k: k(), v: k(), grid: GRID, topK: 2 }),
    () => [
      ...[common(), grids(), orders(), scales(), rules(), attention(q(), k(), 'float32'), tokenRows(q(), k())].flat(),
      ...[gate('coarse'), gate('fine')].flat(),
      ['an unknown coarse mode', { coarse: 'gate' }, 'ERR_ARGUMENT', 'coarse', "'skip', 'add' or { gate: Tensor }"],
      ['a boolean coarse mode', { coarse: true }, 'ERR_ARGUMENT', 'coarse'],
      ['no coarse mode', { coarse: null }, 'ERR_ARGUMENT', 'coarse', 'null'],
      ['a text as fine', { fine: 'gate' }, 'ERR_ARGUMENT', 'fine', 'an object'],
      ['lists beside K', { lists: listsOf() }, 'ERR_ARGUMENT', 'topK', '2 beside lists'],
      ['own tiles of other keys', crossed({ includeSelf: true }), 'ERR_GRID', 'includeSelf', 'equal grids'],
      ['K of more than its tiles', crossed({ topK: 3 }), 'ERR_TOP_K', 'topK', '1 to 2'],
    ],
  );
  function crossed(options: object): object {
    const kv = zeros([1, OTHER.length, 2, 64], 'bfloat16');
    return { k: kv, v: kv, keyGrid: OTHER, ...options };
  }

  describe('with lists', () => {
    testMisuses(
      run,
      () => ({ q: q(), k: k(), v: k(), grid: GRID, lists: listsOf() }),
      () => [
        ...lists(),
        ['a prefix mode beside lists', { prefix: 'exempt' }, 'ERR_ARGUMENT', 'prefix', 'beside lists'],
        ['own tiles beside lists', { includeSelf: false }, 'ERR_ARGUMENT', 'includeSelf', 'beside lists'],
        ['neither lists nor K', { lists: undefined }, 'ERR_TOP_K', 'topK', 'undefined'],
      ],
    );
  });
});
