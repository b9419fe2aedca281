/** Which key tiles each query tile attends to. */

import { native, type NativeLists } from '../binding.js';
import { type Device, device as deviceOf, type DeviceString } from '../device/device.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { emptyTensor, handleOf, outputTensor, share, Tensor } from '../tensor/tensor.js';
import { type Owner, type Resource, tidy } from '../tensor/scope.js';
import { checkInteger, checkOptions } from '../validate.js';

export interface ListsShape {
  /** B */
  batch: number;
  /** H: query heads. */
  heads: number;
  /** Query tiles, those of a prefix included. */
  queryTiles: number;
  /** Key tiles, those of a prefix included. */
  keyTiles: number;
}

export interface ListsOptions {
  device?: Device | DeviceString;
}

const MAX_ENTRIES = 2 ** 31 - 1;

function fail(argument: string, got: string, wanted: string): never {
  throw new VsaRangeError({ code: 'ERR_LISTS', argument, got, wanted });
}

function checkShape(shape: unknown): ListsShape {
  checkOptions('shape', shape, ['batch', 'heads', 'queryTiles', 'keyTiles']);
  const { batch, heads, queryTiles, keyTiles } = shape as ListsShape;
  checkInteger('shape.batch', batch, 0, MAX_ENTRIES);
  checkInteger('shape.heads', heads, 1, MAX_ENTRIES);
  checkInteger('shape.queryTiles', queryTiles, 1, MAX_ENTRIES);
  checkInteger('shape.keyTiles', keyTiles, 1, MAX_ENTRIES);
  if (batch * heads * queryTiles >= MAX_ENTRIES)
    fail('shape', show(Object.values(shape as object)), 'fewer than 2^31 rows');
  return { batch, heads, queryTiles, keyTiles };
}

/** Offsets from 0, rising to the number of indices; in every row indices ascending and in range. */
function checkCsr(offsets: Int32Array, indices: Int32Array, shape: ListsShape): void {
  const rows = shape.batch * shape.heads * shape.queryTiles;
  if (offsets.length !== rows + 1) {
    fail('lists.offsets', `${String(offsets.length)} offsets`, `${String(rows + 1)}: B * H * Nq + 1`);
  }
  if (offsets[0] !== 0) fail('lists.offsets', `${String(offsets[0])} first`, '0 first');
  for (let row = 0; row < rows; row++) {
    const [from, to] = [offsets[row]!, offsets[row + 1]!];
    if (to < from || to > indices.length) {
      fail(
        `lists.offsets[${String(row + 1)}]`,
        String(to),
        `${String(from)} to ${String(indices.length)}, never falling`,
      );
    }
    for (let at = from; at < to; at++) {
      const tile = indices[at]!;
      const name = `list ${String(row)}, entry ${String(at - from)}`;
      if (tile < 0 || tile >= shape.keyTiles)
        fail(name, String(tile), `a key tile from 0 to ${String(shape.keyTiles - 1)}`);
      if (at === from) continue;
      const before = indices[at - 1]!;
      if (tile === before) fail(name, `${String(tile)} twice`, 'every key tile at most once');
      if (tile < before) fail(name, `${String(tile)} after ${String(before)}`, 'ascending key tiles');
    }
  }
  if (offsets[rows] !== indices.length) {
    fail('lists.offsets', `${String(offsets[rows])} last`, `${String(indices.length)}: the number of indices`);
  }
}

/**
 * For every (batch, head, query tile) the ascending key tiles it attends to, as CSR on the device. Row
 * `(b * H + h) * Nq + i` is query tile i. Lists may differ in length and be empty. Immutable; owns its memory.
 */
export class TileLists implements Owner, Resource, Disposable {
  readonly batch: number;
  readonly heads: number;
  readonly queryTiles: number;
  readonly keyTiles: number;
  readonly device: Device;
  /** int32 `[B * H * Nq + 1]`; undefined for full lists. */
  readonly offsets: Tensor | undefined;
  /** int32, all lists one after another; undefined for full lists. */
  readonly indices: Tensor | undefined;
  #fullDisposed = false;

  /** @internal */
  constructor(shape: ListsShape, csr: { offsets: Tensor; indices: Tensor } | undefined, device: Device) {
    this.batch = shape.batch;
    this.heads = shape.heads;
    this.queryTiles = shape.queryTiles;
    this.keyTiles = shape.keyTiles;
    this.device = device;
    this.offsets = csr?.offsets;
    this.indices = csr?.indices;
  }

  /**
   * Lists of your own.
   *
   * @param lists `B * H * Nq` arrays, row `(b * H + h) * Nq + i`; or CSR arrays. Each list ascending, without
   *   duplicates, within [0, Nk). Copied.
   * @throws VsaRangeError ERR_LISTS naming the list and the entry.
   */
  static from(
    lists: readonly (readonly number[])[] | { offsets: Int32Array; indices: Int32Array },
    shape: ListsShape,
    options: ListsOptions = {},
  ): TileLists {
    checkOptions('options', options, ['device']);
    const on = deviceOf(options.device);
    const dims = checkShape(shape);
    const { offsets, indices } = Array.isArray(lists)
      ? flatten(lists as readonly (readonly number[])[], dims)
      : ((lists ?? {}) as { offsets: Int32Array; indices: Int32Array });
    if (!isInt32Array(offsets) || !isInt32Array(indices)) {
      throw new VsaTypeError({
        code: 'ERR_LISTS',
        argument: 'lists',
        got: show(lists),
        wanted: 'an array of arrays, or { offsets: Int32Array, indices: Int32Array }',
      });
    }
    checkCsr(offsets, indices, dims);
    return TileLists.#upload(offsets, indices, dims, on);
  }

  /**
   * The lists of a mask.
   *
   * @param mask `[B, H, Nq, Nk]`, row-major; non-zero: attended to.
   */
  static fromMask(mask: Uint8Array, shape: ListsShape, options: ListsOptions = {}): TileLists {
    checkOptions('options', options, ['device']);
    const on = deviceOf(options.device);
    const dims = checkShape(shape);
    const rows = dims.batch * dims.heads * dims.queryTiles;
    if (mask?.[Symbol.toStringTag] !== 'Uint8Array' || mask.length !== rows * dims.keyTiles) {
      fail('mask', show(mask), `a Uint8Array of ${String(rows * dims.keyTiles)} values, [B, H, Nq, Nk]`);
    }
    const offsets = new Int32Array(rows + 1);
    const indices = new Int32Array(mask.reduce((count, bit) => count + (bit === 0 ? 0 : 1), 0));
    let count = 0;
    for (let row = 0; row < rows; row++) {
      for (let tile = 0; tile < dims.keyTiles; tile++) {
        if (mask[row * dims.keyTiles + tile] !== 0) indices[count++] = tile;
      }
      offsets[row + 1] = count;
    }
    return TileLists.#upload(offsets, indices, dims, on);
  }

  /** Every query tile attends to every key tile: dense attention. Takes no memory. */
  static full(shape: ListsShape, options: ListsOptions = {}): TileLists {
    checkOptions('options', options, ['device']);
    return new TileLists(checkShape(shape), undefined, deviceOf(options.device));
  }

  static #upload(offsets: Int32Array, indices: Int32Array, shape: ListsShape, on: Device): TileLists {
    return tidy(
      () =>
        new TileLists(
          shape,
          {
            offsets: Tensor.from(offsets, undefined, { device: on }),
            indices: Tensor.from(indices, undefined, { device: on }),
          },
          on,
        ),
    );
  }

  /** Whether these are full lists, which need no memory. */
  get isFull(): boolean {
    return this.offsets === undefined;
  }

  get disposed(): boolean {
    return this.offsets?.disposed ?? this.#fullDisposed;
  }

  /** The lists on the host: `B * H * Nq` ascending arrays. */
  async toArrays(): Promise<number[][]> {
    this.live('this');
    const rows = this.batch * this.heads * this.queryTiles;
    if (this.offsets === undefined || this.indices === undefined) {
      return Array.from({ length: rows }, () => Array.from({ length: this.keyTiles }, (_, tile) => tile));
    }
    const [offsets, indices] = await Promise.all([this.offsets.data(), this.indices.data()]);
    return Array.from({ length: rows }, (_, row) => [...indices.subarray(offsets[row], offsets[row + 1])]);
  }

  /** int32 `[B, H, Nq, ceil(Nk / 32)]`: bit j % 32 of word j / 32 is set where the list holds j. */
  bits(): Tensor {
    this.live('this');
    const { batch: B, heads: H, queryTiles: rows, keyTiles: columns } = this;
    return tidy(() => {
      // Full lists have no memory, whose device it could be made on.
      const bits = emptyTensor([B, H, rows, Math.ceil(columns / 32)], 'int32', this.device);
      native().listsToBits({ B, H, rows, columns, lists: this.native('this'), bits: handleOf(bits, 'bits') });
      return bits;
    });
  }

  /** For every (batch, head, key tile) the ascending query tiles that attend to it: rows are key tiles. */
  transpose(): TileLists {
    this.live('this');
    const { batch: B, heads: H, queryTiles: rows, keyTiles: columns } = this;
    const shape = { batch: B, heads: H, queryTiles: columns, keyTiles: rows };
    const lists = this.native('this');
    if (lists === undefined) return new TileLists(shape, undefined, this.device);
    return tidy(() => {
      const offsets = outputTensor([B * H * columns + 1], 'int32', this.device);
      const indices = outputTensor([lists.count], 'int32', this.device);
      native().transposeLists({
        B,
        H,
        rows,
        columns,
        lists,
        offsets: handleOf(offsets, 'offsets'),
        indices: handleOf(indices, 'indices'),
      });
      return new TileLists(shape, { offsets, indices }, this.device);
    });
  }

  /** The lists on another device. On the same one the memory is shared; either way the result is yours to dispose. */
  to(device: Device | DeviceString): TileLists {
    this.live('this');
    const on = deviceOf(device);
    const { batch, heads, queryTiles, keyTiles, offsets, indices } = this;
    const shape = { batch, heads, queryTiles, keyTiles };
    if (offsets === undefined || indices === undefined) return new TileLists(shape, undefined, on);
    return tidy(() => new TileLists(shape, { offsets: offsets.to(on), indices: indices.to(on) }, on));
  }

  /** @internal The same lists with a lifetime of their own. */
  share(): TileLists {
    this.live('lists');
    const { batch, heads, queryTiles, keyTiles, offsets, indices } = this;
    const csr =
      offsets === undefined || indices === undefined ? undefined : { offsets: share(offsets), indices: share(indices) };
    return new TileLists({ batch, heads, queryTiles, keyTiles }, csr, this.device);
  }

  /** @internal As the addon takes them; undefined: full. */
  native(argument: string): NativeLists | undefined {
    if (this.offsets === undefined || this.indices === undefined) return undefined;
    return {
      offsets: handleOf(this.offsets, argument),
      indices: handleOf(this.indices, argument),
      count: this.indices.size,
    };
  }

  /** @internal Throws if disposed. */
  live(argument: string): void {
    if (!this.disposed) return;
    throw new VsaTypeError({ code: 'ERR_DISPOSED', argument, got: 'disposed lists', wanted: 'living ones' });
  }

  /** @internal */
  ownedResources(): Iterable<Resource> {
    return this.offsets === undefined || this.indices === undefined ? [] : [this.offsets, this.indices];
  }

  dispose(): void {
    this.offsets?.dispose();
    this.indices?.dispose();
    this.#fullDisposed = true;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    const { batch, heads, queryTiles, keyTiles } = this;
    const entries = this.indices === undefined ? 'full' : `${String(this.indices.size)} entries`;
    return `TileLists(${show([batch, heads, queryTiles, keyTiles])}, ${entries}${this.disposed ? ', disposed' : ''})`;
  }
}

function isInt32Array(value: unknown): value is Int32Array {
  return (value as Int32Array | undefined)?.[Symbol.toStringTag] === 'Int32Array';
}

function flatten(
  lists: readonly (readonly number[])[],
  shape: ListsShape,
): { offsets: Int32Array; indices: Int32Array } {
  const rows = shape.batch * shape.heads * shape.queryTiles;
  if (lists.length !== rows) fail('lists', `${String(lists.length)} lists`, `${String(rows)}: B * H * Nq`);
  const offsets = new Int32Array(rows + 1);
  let total = 0;
  // By entries, not by forEach: that would pass over the holes of sparse arrays.
  for (const [row, list] of lists.entries()) {
    if (!Array.isArray(list)) fail(`lists[${row}]`, show(list), 'an array of key tiles');
    total += list.length;
    if (total > MAX_ENTRIES) fail('lists', 'more than 2^31 - 1 entries', 'fewer');
    offsets[row + 1] = total;
  }
  const indices = new Int32Array(total);
  for (const [row, list] of lists.entries()) {
    for (const [at, tile] of list.entries()) {
      // An Int32Array would wrap or truncate what is no key tile into one.
      if (!Number.isInteger(tile) || tile < 0 || tile >= shape.keyTiles) {
        fail(`list ${row}, entry ${at}`, show(tile), `a key tile from 0 to ${shape.keyTiles - 1}`);
      }
      indices[offsets[row]! + at] = tile;
    }
  }
  return { offsets, indices };
}
