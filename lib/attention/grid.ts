/** Where tokens lie: the token grid of a video, its tiles, its prefix. */

import { native, type NativeGrid } from '../binding.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { checkChoice, checkInteger, checkOptions } from '../validate.js';

/** How tokens lie in memory: row-major video order without padding, or tile after tile with 64 slots each. */
export type Order = 'grid' | 'tiled';

/** (t, y, x) */
export type Triple = readonly [number, number, number];

/** Slots of a tile. */
export const TILE_VOLUME = 64;

export interface TileGridOptions {
  /** Token grid `[T, Y, X]` after patchify, or `'21x30x52'`. */
  tokens: Triple | string;
  /** Tile `[ct, cy, cx]` of volume 64, or `'4x4x4'`. Default 4x4x4. */
  tile?: Triple | string;
  /** Tokens before the video that are not video (text, reference frames). Default 0. */
  prefix?: number;
}

const MAX_TILES = 2 ** 31 - 1;

function triple(argument: string, value: unknown): Triple {
  const dims: unknown = typeof value === 'string' ? parse(value) : value;
  const good = (dim: unknown): boolean => typeof dim === 'number' && Number.isSafeInteger(dim) && dim > 0;
  if (Array.isArray(dims) && dims.length === 3 && dims.every(good)) {
    const [t, y, x] = dims as [number, number, number];
    return Object.freeze([t, y, x] as const);
  }
  throw new VsaRangeError({
    code: 'ERR_GRID',
    argument,
    got: show(value),
    wanted: "three positive whole numbers, as [21, 30, 52] or '21x30x52'",
  });
}

function parse(text: string): number[] | undefined {
  return /^\d{1,9}x\d{1,9}x\d{1,9}$/.test(text) ? text.split('x').map(Number) : undefined;
}

/**
 * A token grid cut into tiles of 64 slots, after an optional prefix cut into 1-D tiles of its own. Immutable.
 *
 * Token n = prefix + (t * Y + y) * X + x. Tiles are numbered prefix first, then row-major over the grid; the last
 * along a dim may be partial. Source: VSA (arXiv 2505.13389), section 2.
 */
export class TileGrid {
  readonly tokens: Triple;
  readonly tile: Triple;
  readonly prefix: number;
  /** Tiles along each dim, `[Nt, Ny, Nx]`. */
  readonly tileCounts: Triple;
  /** N: video tiles. What `topK` counts. */
  readonly tileCount: number;
  /** Tiles of the prefix, numbered before the video tiles. */
  readonly prefixTileCount: number;
  readonly totalTileCount: number;
  /** L: rows of a tensor in grid order, prefix included. */
  readonly length: number;
  /** Rows of a tensor in tiled order: 64 times all tiles. */
  readonly slots: number;
  /** As the addon takes it, from the first operation on. */
  #native: NativeGrid | undefined;

  /** @throws VsaRangeError ERR_GRID for dims that are not positive, a tile whose volume is not 64, too many tiles. */
  constructor(options: TileGridOptions) {
    checkOptions('grid', options, ['tokens', 'tile', 'prefix']);
    this.tokens = triple('tokens', options.tokens);
    this.tile = triple('tile', options.tile ?? [4, 4, 4]);
    this.prefix = checkInteger('prefix', options.prefix ?? 0, 0, 2 ** 40);
    const [ct, cy, cx] = this.tile;
    if (ct * cy * cx !== TILE_VOLUME) {
      throw new VsaRangeError({
        code: 'ERR_GRID',
        argument: 'tile',
        got: `${this.tile.join('x')} with ${String(ct * cy * cx)} slots`,
        wanted: 'a volume of 64, as 4x4x4, 2x4x8 or 1x8x8',
      });
    }
    const [T, Y, X] = this.tokens;
    this.tileCounts = Object.freeze([Math.ceil(T / ct), Math.ceil(Y / cy), Math.ceil(X / cx)] as const);
    this.tileCount = this.tileCounts.reduce((count, dim) => count * dim, 1);
    this.prefixTileCount = Math.ceil(this.prefix / TILE_VOLUME);
    this.totalTileCount = this.prefixTileCount + this.tileCount;
    this.length = this.prefix + T * Y * X;
    this.slots = TILE_VOLUME * this.totalTileCount;
    if (this.totalTileCount > MAX_TILES) {
      throw new VsaRangeError({
        code: 'ERR_GRID',
        argument: 'tokens',
        got: `${this.toString()} with ${String(this.totalTileCount)} tiles`,
        wanted: 'fewer than 2^31 tiles',
      });
    }
    Object.freeze(this);
  }

  /** The grid of a text like `21x30x52`. */
  static parse(text: string, options: Omit<TileGridOptions, 'tokens'> = {}): TileGrid {
    checkOptions('options', options, ['tile', 'prefix']);
    if (typeof text !== 'string') {
      throw new VsaTypeError({ code: 'ERR_GRID', argument: 'text', got: show(text), wanted: "a text like '21x30x52'" });
    }
    return new TileGrid({ ...options, tokens: text });
  }

  /** A plain sequence of tokens, in tiles of 64: what dense attention without a grid runs on. */
  static sequence(length: number): TileGrid {
    return new TileGrid({ tokens: [1, 1, checkInteger('length', length, 1)], tile: [1, 1, TILE_VOLUME] });
  }

  /** Rows of a tensor in an order. */
  rows(order: Order): number {
    return checkChoice('order', order, ['grid', 'tiled']) === 'grid' ? this.length : this.slots;
  }

  /** Valid tokens of a tile: 1 to 64, fewer than 64 in a partial one. */
  valid(tile: number): number {
    checkInteger('tile', tile, 0, this.totalTileCount - 1);
    if (tile < this.prefixTileCount) return Math.min(TILE_VOLUME, this.prefix - tile * TILE_VOLUME);
    const at = this.#place(tile);
    return at.reduce((count, i, dim) => count * Math.min(this.tile[dim]!, this.tokens[dim]! - i * this.tile[dim]!), 1);
  }

  /** A video tile's coordinates in tiles. */
  #place(tile: number): Triple {
    const [, Ny, Nx] = this.tileCounts;
    const i = tile - this.prefixTileCount;
    return [Math.floor(i / (Ny * Nx)), Math.floor(i / Nx) % Ny, i % Nx];
  }

  /**
   * For every slot in tiled order the token in it (its row in grid order), or -1 for padding. Rows of a RoPE table
   * permute along: `tiled[slot] = table[permutation[slot]]`.
   *
   * @returns `[slots]`
   */
  permutation(): Int32Array {
    const slots = new Int32Array(this.slots).fill(-1);
    for (let n = 0; n < this.prefix; n++) slots[n] = n;
    const [T, Y, X] = this.tokens;
    const [ct, cy, cx] = this.tile;
    const [, Ny, Nx] = this.tileCounts;
    let n = this.prefix;
    for (let t = 0; t < T; t++) {
      for (let y = 0; y < Y; y++) {
        const row = Math.floor(t / ct) * Ny + Math.floor(y / cy);
        const slotRow = ((t % ct) * cy + (y % cy)) * cx;
        for (let x = 0; x < X; x++) {
          const tile = this.prefixTileCount + row * Nx + Math.floor(x / cx);
          slots[tile * TILE_VOLUME + slotRow + (x % cx)] = n++;
        }
      }
    }
    return slots;
  }

  equals(other: TileGrid): boolean {
    return this.toString() === other.toString();
  }

  /** `21x30x52`, and what differs from the defaults: `16+21x30x52 in 1x8x8`. */
  toString(): string {
    const prefix = this.prefix === 0 ? '' : `${String(this.prefix)}+`;
    const tile = this.tile.every((dim) => dim === 4) ? '' : ` in ${this.tile.join('x')}`;
    return `${prefix}${this.tokens.join('x')}${tile}`;
  }

  /** @internal As the addon takes it. */
  native(): NativeGrid {
    return (this.#native ??= native().tileGrid(Float64Array.of(...this.tokens, ...this.tile, this.prefix)));
  }
}
