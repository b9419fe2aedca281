/** What a model's layers attend to, and how much of dense attention their selections hold. */

import { blockSparseAttention, denseAttention } from '../attention/fine.js';
import type { TileGrid } from '../attention/grid.js';
import type { TileLists } from '../attention/lists.js';
import { headMeans, heldByTile } from '../attention/mass.js';
import { selectionOffsets, type SelectionOffsets } from '../attention/offsets.js';
import { tilePooling } from '../attention/pooling.js';
import { tileSelection } from '../attention/selection.js';
import { noGrad } from '../autograd/index.js';
import type { LayerState } from '../models/video-dit.js';
import { keep, tidy } from '../tensor/scope.js';
import { share, type Tensor } from '../tensor/tensor.js';

export interface LayerStudy {
  layer: number;
  /** Share of dense attention that the selected tiles hold, for each head. */
  held: number[];
  /** Where they lie, for each head. */
  offsets: SelectionOffsets[];
}

interface Seen {
  layer: number;
  lists: Tensor[];
  /** lse over the selected tiles' tokens and over all, float32 `[1, H, L]`. */
  some: Tensor;
  all: Tensor;
}

/**
 * Looks at every layer of one forward of one clip: its own lists, or for full attention those that VSA's coarse stage
 * would choose from the same queries and keys.
 */
export class AttentionStudy {
  readonly #seen: Seen[] = [];

  /** @param topK Tiles that a query tile keeps where attention is full. */
  constructor(
    private readonly grid: TileGrid,
    private readonly topK: number,
  ) {}

  /** For `VideoDiT.forward`. */
  readonly observe = ({ layer, q, k, v, lists, lse }: LayerState): void => {
    noGrad(() => {
      const seen = tidy(() => {
        const { grid } = this;
        const all = lists.isFull ? share(lse) : denseAttention.forward({ q, k, v }).saved.lse;
        const chosen = lists.isFull ? this.#choose(q, k) : lists;
        const some = lists.isFull
          ? blockSparseAttention.forward({ q, k, v, grid, lists: chosen }).saved.lse
          : share(lse);
        return { all, some, lists: [share(chosen.offsets!), share(chosen.indices!)] };
      });
      this.#seen.push(keep({ layer, ...seen }));
    });
  };

  #choose(q: Tensor, k: Tensor): TileLists {
    const { grid, topK } = this;
    const pooled = [q, k].map((x) => tilePooling.forward({ x, grid }).output);
    return tileSelection.forward({ q: pooled[0]!, k: pooled[1]!, grid, topK }).lists;
  }

  /** What was seen; gives the memory back. */
  async finish(): Promise<LayerStudy[]> {
    try {
      return await Promise.all(this.#seen.map((seen) => this.#layer(seen)));
    } finally {
      this.dispose();
    }
  }

  async #layer({ layer, lists, some, all }: Seen): Promise<LayerStudy> {
    const { grid } = this;
    const heads = some.shape[1]!;
    const N = grid.tileCount;
    const [someLse, allLse] = (await Promise.all([some.data(), all.data()])) as [Float32Array, Float32Array];
    const [offsets, indices] = (await Promise.all(lists.map((one) => one.data()))) as [Int32Array, Int32Array];
    return {
      layer,
      held: headMeans(grid, heads, heldByTile(grid, heads, { some: someLse, all: allLse })),
      offsets: Array.from({ length: heads }, (_, head) =>
        selectionOffsets(grid, (query) => indices.subarray(offsets[head * N + query], offsets[head * N + query + 1])),
      ),
    };
  }

  dispose(): void {
    for (const { lists, some, all } of this.#seen.splice(0)) for (const one of [...lists, some, all]) one.dispose();
  }
}
