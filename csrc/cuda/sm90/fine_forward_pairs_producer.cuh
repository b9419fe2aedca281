#pragma once

#include <cstdint>

#include "cuda/sm90/fine_forward_items.cuh"
#include "cuda/sm90/fine_forward_pairs_shared.cuh"
#include "cuda/sm90/grid_boxes.cuh"
#include "cuda/sm90/ptx/tma.h"

namespace vsa::cuda::sm90 {

// A warp that copies the key tiles of a ring, K of each before V of the one before it: the order in which a member asks
// for them and releases them, so that waiting for room for one holds up none that could come sooner. The warp of ring 0
// also finds the items.
template <typename C>
struct PairsProducer {
  using Shared = TeamShared<C>;
  static constexpr int kPanels = C::D / kPanelColumns;
  static constexpr int kKindShift = 27;
  static constexpr uint32_t kClean = 1u << 31;

  const FineForwardArgs& p;
  Shared& shared;
  const int team, ring, lane;

  __device__ __forceinline__ PairItem find(GroupNumbers& numbers) const {
    for (;;) {
      PairItem item = {};
      const int32_t longs = GroupNumbers::longs(p), workers = C::kTeams * static_cast<int32_t>(gridDim.x);
      const int32_t i = numbers.next(p, longs + p.groups * p.parts, workers, lane);
      item.q_tile = -1;
      if (i < 0) return item;
      const int32_t number = i - longs;
      item.pair = i < longs ? p.long_groups[i] : p.parts == 1 ? number : number / p.parts;
      item.part = p.parts == 1 ? 0 : number - item.pair * p.parts;
      item.head = item.pair / p.groups_a_head;
      const int32_t q_tile = (item.pair - item.head * p.groups_a_head) * 2;
      PairLists lists;
      if (p.lists != nullptr) {
        lists = static_cast<const PairLists*>(p.lists)[item.pair];
        if (i >= longs && longs > 0 && lists.longest() > p.limit) continue;  // has been taken already
      } else {
        const bool both = q_tile + 1 < p.q_tiles;
        lists = {0, both ? p.kv_tiles : 0, {both ? 0 : p.kv_tiles, 0}};
      }
      item.q_tile = q_tile;
      item.batch = item.head / p.H, item.kv_head = (item.head - item.batch * p.H) / p.group;
      item.shared = lists.shared, item.own[0] = lists.own[0], item.own[1] = lists.own[1];
      item.shared_at = lists.begin, item.own_at[0] = lists.begin + lists.shared;
      item.own_at[1] = item.own_at[0] + lists.own[0];
      if (p.parts > 1) {
        cut(item.part, item.shared, item.shared_at);
        cut(item.part, item.own[0], item.own_at[0]);
        cut(item.part, item.own[1], item.own_at[1]);
      }
      return item;
    }
  }
  // A part of `count` entries from `at` on. Fewer than 2^24 entries and 8 parts: products fit.
  __device__ __forceinline__ void cut(int32_t part, int32_t& count, int32_t& at) const {
    const int32_t from = count * part / p.parts;
    at += from, count = count * (part + 1) / p.parts - from;
  }

  __device__ __forceinline__ void publish(const PairItem& item, uint32_t round) {
    const uint32_t slot = round % kItemSlots;
    ptx::mbarrier_wait(&shared.item_empty[slot], round / kItemSlots % 2 ^ 1);
    if (lane == 0) {
      shared.items[slot] = item;
      ptx::mbarrier_arrive(&shared.item_full[slot]);
    }
    __syncwarp();
  }
  __device__ __forceinline__ PairItem receive(uint32_t round) {
    const uint32_t slot = round % kItemSlots;
    ptx::mbarrier_wait(&shared.item_full[slot], round / kItemSlots % 2);
    const PairItem item = PairItem::read(shared.items[slot], lane);
    if (lane == 0) ptx::mbarrier_arrive(&shared.item_empty[slot]);
    return item;
  }

  __device__ __forceinline__ int32_t own_of(const PairItem& item) const {
    return ring == 0 ? item.own[0] : item.own[1];  // not by index, which would put the item into local memory
  }
  // The place among the entries of the i-th tile of this ring: every second shared one, then the member's own.
  __device__ __forceinline__ int32_t place(const PairItem& item, int32_t i, int32_t shared_here) const {
    const int32_t own_at = ring == 0 ? item.own_at[0] : item.own_at[1];
    return i < shared_here ? item.shared_at + 2 * i + ring : own_at + i - shared_here;
  }

  // `tile` counts through the batch in tiled order, in grid order it is that of the sequence.
  // `number` counts the tiles of this ring.
  __device__ __forceinline__ void load_k(const PairItem& item, uint32_t number, uint32_t tile_and_kind) {
    const auto k = place_in_ring<C::kStages>(number);
    const uint32_t slot = ring * C::kStages + k.stage;
    ptx::mbarrier_wait(&shared.k_empty[slot], k.phase ^ 1);
    if (lane == 0) {
      const auto tile = static_cast<int32_t>(tile_and_kind & ((1u << kKindShift) - 1));
      shared.k_class[slot] = tile_and_kind >> kKindShift;
      ptx::mbarrier_arrive_expect(&shared.k_full[slot], Shared::kTileBytes);
      if constexpr (C::kFromGrid) {
        load_boxes<C::D>(shared.k[slot], p.k_boxes, item.batch, tile, item.kv_head, &shared.k_full[slot]);
      } else {
        ptx::tma_load(shared.k[slot], &p.k, {0, tile * kTileVolume, item.kv_head * kPanels}, &shared.k_full[slot]);
      }
    }
    __syncwarp();
  }
  __device__ __forceinline__ void load_v(const PairItem& item, uint32_t number, uint32_t tile_or_copy) {
    const auto v = place_in_ring<C::kStages>(number);
    const uint32_t slot = ring * C::kStages + v.stage;
    ptx::mbarrier_wait(&shared.v_empty[slot], v.phase ^ 1);
    if (lane == 0) {
      const auto tile = static_cast<int32_t>(tile_or_copy & ~kClean);
      ptx::mbarrier_arrive_expect(&shared.v_full[slot], Shared::kTileBytes);
      if constexpr (C::kFromGrid) {
        load_boxes<C::D>(shared.v[slot], p.v_boxes, item.batch, tile, item.kv_head, &shared.v_full[slot]);
      } else {
        ptx::tma_load(shared.v[slot], (tile_or_copy & kClean) != 0 ? &p.v_clean : &p.v,
                      {0, tile * kTileVolume, item.kv_head * kPanels}, &shared.v_full[slot]);
      }
    }
    __syncwarp();
  }
  __device__ __forceinline__ void load_q(const PairItem& item, uint32_t load) {
    ptx::mbarrier_wait(&shared.q_empty[ring], load % 2 ^ 1);
    if (lane == 0) {
      load_query_tile<C::D, C::kFromGrid>(shared.q[ring], p, item.batch, item.q_tile + ring,
                                          item.head - item.batch * p.H, &shared.q_full[ring]);
    }
    __syncwarp();
  }

  __device__ __forceinline__ void run() {
    uint32_t q_loads = 0, copied = 0;
    // Teams count as blocks do: team t of block b starts with pair number b + t * gridDim.x.
    GroupNumbers numbers{static_cast<int32_t>(blockIdx.x) + team * static_cast<int32_t>(gridDim.x)};
    for (uint32_t round = 0;; ++round) {
      PairItem item;
      if (ring == 0) {
        item = find(numbers);
        publish(item, round);
      } else {
        item = receive(round);
      }
      if (item.q_tile < 0) return;

      const int32_t shared_here = (item.shared + 1 - ring) / 2, count = shared_here + own_of(item);
      if (count == 0 && item.shared > 0) load_q(item, q_loads++);
      uint32_t last = 0;
      for (int32_t first = 0; first < count; first += 32) {
        // 32 entries at a time, one a lane: where K and V are, in tiles (fewer than 2^25), and the class of K above;
        // V of partial tiles has a clean copy.
        uint32_t k_at = 0, v_at = 0;
        if (first + lane < count) {
          const int32_t at = place(item, first + lane, shared_here);
          const int32_t tile = p.entries != nullptr ? p.entries[at] & kTileMask : at;
          const int32_t kind = p.entries != nullptr ? p.entries[at] >> kClassShift : p.classes.of(tile);
          v_at = (C::kFromGrid ? 0 : item.batch * p.kv_tiles) + tile;
          k_at = v_at | static_cast<uint32_t>(kind) << kKindShift;
          if (!C::kFromGrid && kind != 0) v_at = kClean | (item.batch * p.classes.partial + p.classes.rank(tile));
        }
        const int32_t here = min(32, count - first);
        for (int32_t i = 0; i < here; ++i, ++copied) {
          load_k(item, copied, __shfl_sync(~0u, k_at, i));
          if (first + i > 0) load_v(item, copied - 1, last);
          // There is room for Q only when the item before is done: what the rings have room for goes first.
          if (first + i == min(count, 2) - 1) load_q(item, q_loads++);
          last = __shfl_sync(~0u, v_at, i);
        }
      }
      if (count > 0) load_v(item, copied - 1, last);
    }
  }
};

}  // namespace vsa::cuda::sm90
