#pragma once

#include "cuda/sm90/fine_backward_ring.cuh"
#include "cuda/sm90/ptx/atomic.h"
#include "cuda/sm90/ptx/bulk_copy.h"
#include "cuda/sm90/ptx/tma.h"

// The producer: one warp that turns the plan's items into the stream of slots.
namespace vsa::cuda::sm90::fine_backward {

// K and V of the key tile at hand, where they stay in shared memory for the whole item.
template <int D>
struct Resident {
  alignas(1024) unsigned char tiles[2][kTileBytes<D>];
};

// The lists that one pass goes through.
struct Walk {
  const Plan& plan;
  const int32_t* offsets;  // [B * H * rows + 1], null: full
  const int32_t* indices;
  int32_t rows, columns;   // tiles of a head: stationary, in lists
  int32_t heads_per_item;  // query heads whose lists an item goes through: a GQA group, or one
  int32_t list_heads;      // of the tensors that lists point to

  // List row of a tile for the item's query head g.
  __device__ __forceinline__ int32_t list_row(int32_t head_of_batch, int32_t g, int32_t tile) const {
    return (head_of_batch * heads_per_item + g) * rows + tile;
  }
  __device__ __forceinline__ int32_t length(int32_t list_row) const {
    return offsets == nullptr ? columns : offsets[list_row + 1] - offsets[list_row];
  }
};

// What the passes' producers differ in. An item is a tile with its list, for one consumer; or two neighbours, a
// consumer each: with the union of their lists in dQ, which says who needs what; with full lists in dK, dV.
template <int D, int kTiles_, bool kIsDq_, bool kResident_>
struct Stream {
  static constexpr int kTiles = kTiles_;
  static constexpr bool kIsDq = kIsDq_;
  static constexpr bool kResident = kResident_;

  __device__ __forceinline__ static Walk walk(const Args& p) {
    if constexpr (kIsDq) {
      return {p.dq_plan, p.offsets, p.indices, p.q_layout.tiles, p.kv_layout.tiles, 1, p.Hkv};
    } else {
      return {p.dkdv, p.t_offsets, p.t_indices, p.kv_layout.tiles, p.q_layout.tiles, p.group, p.H};
    }
  }
};

// Slots of an item's list that are left to be filled when the producer takes the next item: so early that the number is
// here when it is wanted, so late that nobody runs out of items while one waits behind a long list.
inline constexpr int kTakeAhead = 4;

// Runs in one whole warp; its first lane issues. It has 24 registers, so whatever can be had again is not kept.
template <typename S, int D, int kSlots, int kConsumers>
__device__ __forceinline__ void produce(Ring<D, kSlots, kConsumers>& ring, int first_barrier, Resident<D>* resident,
                                        const Maps& maps, const Args& p) {
  const Walk walk = S::walk(p);
  constexpr int kTilesBytes = 2 * kTileBytes<D>;
  constexpr int kStatisticsBytes = 2 * kTileVolume * sizeof(float);
  const bool leads = threadIdx.x % 32 == 0;
  Cursor<kSlots> at;
  uint32_t resident_parity = 1;

  const auto wait_slot = [&] {
    ptx::named_barrier_sync(first_barrier + at.slot, Ring<D, kSlots, kConsumers>::kThreads);
  };
  const auto source_of = [](const TileSource* sources, int32_t tile) {
    return sources == nullptr ? TileSource{0, 0, 0, 0} : sources[tile];
  };
  // A tile of each of two tensors; `maps_apart` of them are for one tensor.
  const auto copy_tiles = [&](unsigned char* to, const CUtensorMap* map, int maps_apart, const TileSource& from,
                              int32_t column, int32_t last, uint64_t* barrier) {
#pragma unroll
    for (int i = 0; i < 2 * D / 64; ++i) {
      ptx::tma_load(to + i * kPanelBytes, map + i / (D / 64) * maps_apart,
                    {column + i % (D / 64) * 64, from.x, from.y, from.t, last}, barrier);
    }
  };
  const auto copy_statistics = [&](int32_t tile_row, uint64_t* barrier) {
    const int64_t first = static_cast<int64_t>(tile_row) * kTileVolume;
    ptx::bulk_load(ring.statistics[at.slot][0], p.lse_of_slots + first, kStatisticsBytes / 2, barrier);
    ptx::bulk_load(ring.statistics[at.slot][1], p.delta_of_slots + first, kStatisticsBytes / 2, barrier);
  };
  // Stationary tiles.
  const TileSource* const own_sources = S::kIsDq ? p.q_sources : p.kv_sources;
  const TileSource* const list_sources = S::kIsDq ? p.kv_sources : p.q_sources;
  const bool tiled = p.q_layout.tiled != 0;
  const auto copy_own = [&](unsigned char* to, int32_t b, int32_t head, int32_t tile, uint64_t* barrier) {
    const TileSource from = source_of(own_sources, tile);
    copy_tiles(to, maps.stationary[0] + (tiled ? 0 : from.map & 0xff), kGridMaps, from, head * D,
               tiled ? b * walk.rows + tile : b, barrier);
  };

  int32_t taken = 0;
  bool taking = false;
  const auto take = [&] {
    if (leads && !taking) taken = ptx::fetch_add(walk.plan.next, 1);
    taking = true;
  };
  take();
  while (true) {
    const int32_t index = __shfl_sync(~0u, taken, 0);
    if (index >= *walk.plan.item_count) break;
    taking = false;
    const Item& item = walk.plan.items[index];
    const int32_t first_tile = item.group * S::kTiles;

    // Slots of the list that a consumer will need. Two key tiles have the same, full lists.
    const auto steps_of = [&](int32_t tile) {
      int32_t steps = 0;
      for (int32_t g = 0; g < walk.heads_per_item; ++g) {
        steps += walk.length(walk.list_row(item.head_of_batch, g, tile));
      }
      return S::kIsDq ? steps : min(item.end, steps) - item.begin;
    };
    // Stationary tiles.
    if constexpr (S::kResident) {
      const int32_t steps = steps_of(first_tile);
      ptx::mbarrier_wait(&ring.resident_empty, resident_parity);
      resident_parity ^= 1;
      if (leads) {
        SlotInfo& info = ring.resident_info;
        info.steps = steps, info.tile = first_tile, info.part = item.part;
        info.head = item.head, info.b = item.b;
        ptx::mbarrier_arrive_expect(&ring.resident_full, S::kTiles * kTilesBytes);
#pragma unroll 1
        for (int m = 0; m < S::kTiles; ++m) {  // where there is no second tile, the first again
          copy_own(resident[m].tiles[0], item.b, item.head, min(first_tile + m, walk.rows - 1), &ring.resident_full);
        }
      }
    }
#pragma unroll 1
    for (int m = 0; m < (S::kResident ? 0 : S::kTiles); ++m) {
      const int32_t tile = first_tile + m;
      const bool exists = tile < walk.rows;
      const int32_t steps = exists || !S::kIsDq ? steps_of(tile) : 0;
      wait_slot();
      if (leads) {
        uint64_t* const barrier = &ring.full[at.slot];
        SlotInfo& info = ring.info[at.slot];
        info.who = 1 << m;
        info.steps = steps, info.tile = exists ? tile : -1, info.part = item.part;
        info.head = item.head, info.b = item.b;
        if (!exists) {
          ptx::mbarrier_arrive(barrier);
        } else {
          ptx::mbarrier_arrive_expect(barrier, kTilesBytes + (S::kIsDq ? kStatisticsBytes : 0));
          copy_own(ring.tiles[at.slot][0], item.b, item.head, tile, barrier);
          if constexpr (S::kIsDq) copy_statistics(item.head_of_batch * walk.rows + tile, barrier);
        }
      }
      at.advance();
    }

    // The list. A consumer whose tile does not exist takes nothing of it.
    const int32_t everyone = (1 << min(S::kTiles, walk.rows - first_tile)) - 1;
    int32_t before = 0;  // positions of the heads before
#pragma unroll 1
    for (int32_t g = 0; g < walk.heads_per_item; ++g) {
      const int32_t row = walk.list_row(item.head_of_batch, g, first_tile);
      const int32_t list = walk.offsets == nullptr ? 0 : walk.offsets[row];
      int32_t count = walk.columns;
      if (walk.offsets != nullptr) {
        if constexpr (S::kIsDq) {
          const int32_t head = item.head_of_batch * walk.heads_per_item + g;
          count = walk.plan.merged_counts[head * walk.plan.groups + item.group];
        } else {
          count = walk.offsets[row + 1] - list;
        }
      }
      const int32_t column = (item.list_head + g) * D, last = tiled ? item.b * walk.columns : item.b;
      // Statistics lie by query head, of which list_head is one in the pass that needs them here.
      const int32_t first_statistics = (item.b * walk.list_heads + item.list_head + g) * walk.columns;
      int32_t position = 0, end = count, entry = 0;
      if constexpr (!S::kIsDq) {
        position = max(item.begin - before, 0);
        end = min(item.end - before, count);
      }
      before += count;
      position += list, end += list;   // from here on places in the array of all lists
      const auto load_entries = [&] {  // the 32 around position
        entry = position / 32 * 32 + static_cast<int32_t>(threadIdx.x % 32);
        if (walk.offsets != nullptr && entry < end) {
          entry = (S::kIsDq ? walk.plan.merged : walk.indices)[entry];
        }
      };
      if (position < end) load_entries();
#pragma unroll 1
      while (position < end) {
        int32_t tile = __shfl_sync(~0u, entry, position % 32), who = everyone;
        if (S::kIsDq && walk.offsets != nullptr) who = tile & 3, tile >>= 2;
        if (end - position <= kTakeAhead && g + 1 == walk.heads_per_item) take();
        const TileSource from = source_of(list_sources, tile);
        wait_slot();
        if (leads) {
          uint64_t* const barrier = &ring.full[at.slot];
          SlotInfo& info = ring.info[at.slot];
          info.who = who | (from.map & ~0xff), info.steps = kListTile, info.tile = tile;
          ptx::mbarrier_arrive_expect(barrier, kTilesBytes + (S::kIsDq ? 0 : kStatisticsBytes));
          copy_tiles(ring.tiles[at.slot][0], maps.streaming[0] + (from.map & 0xff), kTiledMaps, from, column,
                     tiled ? last + tile : last, barrier);
          if constexpr (!S::kIsDq) copy_statistics(first_statistics + tile, barrier);
        }
        at.advance();
        if (++position % 32 == 0) load_entries();
      }
    }
    take();  // if it has not: an empty list, or a part that ends before the last head
  }
  if constexpr (S::kResident) {
    ptx::mbarrier_wait(&ring.resident_empty, resident_parity);
    if (leads) {
      ring.resident_info.steps = kStop;
      ptx::mbarrier_arrive(&ring.resident_full);
    }
  } else {
#pragma unroll 1
    for (int m = 0; m < S::kTiles; ++m) {
      wait_slot();
      if (leads) {
        SlotInfo& info = ring.info[at.slot];
        info.who = 1 << m, info.steps = kStop;
        ptx::mbarrier_arrive(&ring.full[at.slot]);
      }
      at.advance();
    }
  }
}

}  // namespace vsa::cuda::sm90::fine_backward
