/** Where a tile's tokens lie in a tensor, and their values, read from the device without reading all of it. */

import { native } from '../../binding.js';
import type { Order, TileGrid } from '../../attention/grid.js';
import { decodeBfloat16, decodeFloat16, layoutOf } from '../../oracle/index.js';
import { dtypeSize } from '../../tensor/dtype.js';
import { handleOf, type Tensor } from '../../tensor/tensor.js';

/** Rows of tiles, for tensors of tokens in an order. Padding slots are no rows. */
export class TileRows {
  /** Every row that holds a token, ascending, and the tile of each. */
  readonly all: Int32Array;
  readonly tileOf: Int32Array;
  readonly #rows: readonly Int32Array[];

  constructor(grid: TileGrid, order: Order) {
    const layout = layoutOf(grid);
    const row = (token: number) => (order === 'grid' ? token : layout.slotOfToken[token]!);
    this.#rows = layout.tokensOfTile.map((tokens) => Int32Array.from(tokens, row).sort());
    this.all = Int32Array.from({ length: layout.length }, (_, token) => row(token)).sort();
    this.tileOf = new Int32Array(layout.length);
    const tileOfRow = new Map<number, number>();
    this.#rows.forEach((rows, tile) => {
      for (const one of rows) tileOfRow.set(one, tile);
    });
    this.all.forEach((one, at) => (this.tileOf[at] = tileOfRow.get(one)!));
  }

  of(tile: number): Int32Array {
    return this.#rows[tile]!;
  }

  /** Of several tiles, ascending. */
  ofAll(tiles: Iterable<number>): Int32Array {
    const parts = Array.from(tiles, (tile) => this.#rows[tile]!);
    const rows = new Int32Array(parts.reduce((count, part) => count + part.length, 0));
    let at = 0;
    for (const part of parts) {
      rows.set(part, at);
      at += part.length;
    }
    return rows.sort();
  }
}

/** Rows that are this near are read together: a read has a price of its own. Bytes. */
const GAP = 64 * 1024;
/** Most bytes of one read, most reads at once. */
const PART = 32 * 2 ** 20;
const AT_ONCE = 8;

/**
 * Values of some rows of one head, exactly, as float64 `[rows.length, D]`.
 *
 * @param tensor `[B, rows, H, D]`
 * @param rows Ascending.
 */
export async function gather(tensor: Tensor, b: number, h: number, rows: Int32Array): Promise<Float64Array> {
  const [, perBatch, H, D] = tensor.shape as [number, number, number, number];
  return read(tensor, { base: b * perBatch, stride: H * D, from: h * D, width: D }, rows);
}

/** The same of one number a row: of a log-sum-exp `[B, H, rows]`. */
export async function gatherLse(tensor: Tensor, b: number, h: number, rows: Int32Array): Promise<Float64Array> {
  const [, H, perHead] = tensor.shape as [number, number, number];
  return read(tensor, { base: (b * H + h) * perHead, stride: 1, from: 0, width: 1 }, rows);
}

/** Row r is elements [from, from + width) of the `stride` ones at (base + r) * stride. */
interface Place {
  readonly base: number;
  readonly stride: number;
  readonly from: number;
  readonly width: number;
}

async function read(tensor: Tensor, place: Place, rows: Int32Array): Promise<Float64Array> {
  const { base, stride, from, width } = place;
  const size = dtypeSize(tensor.dtype);
  const rowBytes = stride * size;
  const values = new Float64Array(rows.length * width);
  const gap = Math.max(1, Math.floor(GAP / rowBytes));
  const most = Math.max(1, Math.floor(PART / rowBytes));
  const decode = decoderOf(tensor);

  const one = async (begin: number, end: number): Promise<void> => {
    const first = rows[begin]!;
    const count = rows[end - 1]! - first;
    // The last row is read up to what is wanted of it, the first from there.
    const bytes = (count * stride + width) * size;
    const offset = ((base + first) * stride + from) * size;
    const buffer = await native().read(handleOf(tensor, 'tensor'), offset, bytes);
    const take = decode(buffer);
    for (let at = begin; at < end; at++) take((rows[at]! - first) * stride, values, at * width, width);
  };
  let pending: Promise<void>[] = [];
  for (let begin = 0; begin < rows.length;) {
    let end = begin + 1;
    while (end < rows.length && rows[end]! - rows[end - 1]! <= gap && rows[end]! - rows[begin]! < most) end++;
    pending.push(one(begin, end));
    begin = end;
    if (pending.length < AT_ONCE) continue;
    await Promise.all(pending);
    pending = [];
  }
  await Promise.all(pending);
  return values;
}

type Take = (source: number, values: Float64Array, target: number, width: number) => void;

function decoderOf({ dtype }: Tensor): (buffer: ArrayBuffer) => Take {
  if (dtype === 'bfloat16' || dtype === 'float16') {
    const number = dtype === 'bfloat16' ? decodeBfloat16 : decodeFloat16;
    return (buffer) => {
      const bits = new Uint16Array(buffer);
      return (source, values, target, width) => {
        for (let d = 0; d < width; d++) values[target + d] = number(bits[source + d]!);
      };
    };
  }
  return (buffer) => {
    const numbers = dtype === 'int32' ? new Int32Array(buffer) : new Float32Array(buffer);
    return (source, values, target, width) => {
      for (let d = 0; d < width; d++) values[target + d] = numbers[source + d]!;
    };
  };
}
