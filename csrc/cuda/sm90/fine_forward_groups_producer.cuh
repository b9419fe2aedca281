#pragma once

#include <cstdint>

#include "cuda/sm90/fine_forward_groups_shared.cuh"
#include "cuda/sm90/fine_forward_items.cuh"
#include "cuda/sm90/fine_forward_step.cuh"
#include "cuda/sm90/grid_boxes.cuh"
#include "cuda/sm90/ptx/tma.h"

namespace vsa::cuda::sm90 {

// Warp 0 finds items and copies K, warp 1 copies Q, warp 2 V.
template <typename C>
struct GroupsProducer {
  using Shared = GroupsShared<C>;
  static constexpr int kMembers = C::kMembers;

  const FineForwardArgs& p;
  Shared& shared;
  const int lane;

  __device__ __forceinline__ GroupItem find(GroupNumbers& numbers) const {
    for (;;) {
      GroupItem item = {};
      const int32_t longs = GroupNumbers::longs(p);
      const int32_t i = numbers.next(p, longs + p.groups, static_cast<int32_t>(gridDim.x), lane);
      item.q_tile = -1;
      if (i < 0) return item;
      const int32_t group = i < longs ? p.long_groups[i] : i - longs;
      item.head = group / p.groups_a_head;
      const int32_t q_tile = (group - item.head * p.groups_a_head) * kMembers;
      if (p.lists != nullptr) {
        // Merged lists there are for triples only.
        const TripleLists lists = static_cast<const TripleLists*>(p.lists)[group];
        if (i >= longs && longs > 0 && lists.longest() > p.limit) continue;  // has been taken already
        item.begin = lists.begin, item.count = lists.count;
        item.own[0] = lists.own[0], item.own[1] = lists.own[1], item.own[2] = lists.own[2];
      } else {
        item.begin = 0, item.count = p.kv_tiles;
#pragma unroll
        for (int m = 0; m < kMembers; ++m) item.own[m] = q_tile + m < p.q_tiles ? p.kv_tiles : 0;
      }
      item.q_tile = q_tile;
      item.batch = item.head / p.H, item.kv_head = (item.head - item.batch * p.H) / p.group;
      return item;
    }
  }

  // The i-th entry of the union; 0, which no member wants, beyond the end.
  __device__ __forceinline__ uint32_t entry(const GroupItem& item, int32_t i) const {
    if (i >= item.count) return 0;
    if (p.entries != nullptr) return static_cast<uint32_t>(p.entries[item.begin + i]);
    const uint32_t members = min(kMembers, p.q_tiles - item.q_tile);
    return i | p.classes.of(i) << kClassShift | ((1u << members) - 1) << kMembersShift;
  }

  __device__ __forceinline__ void load(uint8_t* to, const CUtensorMap& map, const GridBoxes& boxes,
                                       const GroupItem& item, int32_t tile, uint64_t* full) const {
    ptx::mbarrier_arrive_expect(full, Shared::kTileBytes);
    if constexpr (C::kFromGrid) {
      load_boxes<C::D>(to, boxes, item.batch, tile, item.kv_head, full);
    } else {
      ptx::tma_load(to, &map, {0, tile * kTileVolume, item.kv_head * (C::D / kPanelColumns)}, full);
    }
  }

  __device__ __forceinline__ GroupItem receive(uint32_t round) const {
    const uint32_t slot = round % kItemSlots;
    ptx::mbarrier_wait(&shared.item_full[slot], round / kItemSlots % 2);
    const GroupItem item = GroupItem::read(shared.items[slot], lane);
    if (lane == 0) ptx::mbarrier_arrive(&shared.item_empty[slot]);
    return item;
  }
  __device__ __forceinline__ void publish(const GroupItem& item, uint32_t round) const {
    const uint32_t slot = round % kItemSlots;
    ptx::mbarrier_wait(&shared.item_empty[slot], round / kItemSlots % 2 ^ 1);
    if (lane == 0) {
      shared.items[slot] = item;
      ptx::mbarrier_arrive(&shared.item_full[slot]);
    }
    __syncwarp();
  }

  // K (kValues false) or V of the tiles of every item, and the halves of their mails, each by the lane of the member's
  // number.
  template <bool kValues>
  __device__ __forceinline__ void copy_keys() {
    constexpr int kStages = kValues ? C::kVStages : C::kKStages;
    uint64_t* const full = kValues ? shared.v_full : shared.k_full;
    uint64_t* const empty = kValues ? shared.v_empty : shared.k_empty;
    Cursor<kStages> at;
    uint32_t mails = 0;  // sent to the member of this lane's number
    GroupNumbers numbers{static_cast<int32_t>(blockIdx.x)};
    for (uint32_t round = 0;; ++round) {
      GroupItem item;
      if constexpr (kValues) {
        item = receive(round);
      } else {
        item = find(numbers);
        publish(item, round);
      }
      if (item.q_tile < 0) return;

      uint32_t following = entry(item, lane);
      for (int32_t first = 0; first < item.count; first += 32) {
        const uint32_t here = following;
        following = entry(item, first + 32 + lane);
        uint64_t wanted = 0;  // by this lane's member: a bit for each of these and the next 32 entries
        if constexpr (kValues) {
#pragma unroll
          for (int m = 0; m < kMembers; ++m) {
            const uint64_t low = __ballot_sync(~0u, here >> (kMembersShift + m) & 1);
            const uint64_t high = __ballot_sync(~0u, following >> (kMembersShift + m) & 1);
            if (lane == m) wanted = high << 32 | low;
          }
        }
        // Tiles count through the batch in tiled order, in grid order they are those of the sequence.
        const int32_t kind_here = here >> kClassShift & 15;
        int32_t tile = (C::kFromGrid ? 0 : item.batch * p.kv_tiles) + (here & kTileMask);
        if (kValues && !C::kFromGrid && kind_here != 0) {
          tile = item.batch * p.classes.partial + p.classes.rank(here & kTileMask);  // has a clean copy
        }
        const int32_t count = min(32, item.count - first);
        for (int32_t i = 0; i < count; ++i) {
          const uint32_t e = __shfl_sync(~0u, here, i);
          const int32_t from = __shfl_sync(~0u, tile, i);
          const uint32_t members = e >> kMembersShift, kind = e >> kClassShift & 15;
          const uint32_t absent = (kMembers - __popc(members)) * kWarps;
          ptx::mbarrier_wait(&empty[at.stage], at.phase ^ 1);
          if (lane == 0) {
            if (absent != 0) ptx::mbarrier_arrive(&empty[at.stage], absent);
            if constexpr (kValues) {
              load(shared.v[at.stage], kind != 0 ? p.v_clean : p.v, p.v_boxes, item, from, &full[at.stage]);
            } else {
              load(shared.k[at.stage], p.k, p.k_boxes, item, from, &full[at.stage]);
            }
          }
          __syncwarp();
          if (lane < kMembers && members >> lane & 1) {
            Mail& mail = shared.mail[lane][mails % Shared::kMails];
            if constexpr (kValues) {
              // A member that waits for a mail keeps V of the tile before, whose place is needed kVStages tiles on: if
              // its next tile is no nearer than that, it must let go first.
              const bool last = (wanted >> (i + 1) & ((uint64_t{1} << (C::kVStages - 1)) - 1)) == 0;
              mail.v = Mail::half(last, at.phase, at.stage);
            } else {
              mail.k = Mail::half(kind, at.phase, at.stage);
            }
            ptx::mbarrier_arrive(&shared.mail_full[lane][mails++ % Shared::kMails]);
          }
          __syncwarp();
          at.advance();
        }
      }
    }
  }

  __device__ __forceinline__ void copy_queries() {
    uint32_t loads[kMembers] = {};
    for (uint32_t round = 0;; ++round) {
      const GroupItem item = receive(round);
      if (item.q_tile < 0) return;
#pragma unroll
      for (int m = 0; m < kMembers; ++m) {
        if (item.own[m] == 0) continue;
        ptx::mbarrier_wait(&shared.q_empty[m], loads[m]++ % 2 ^ 1);
        if (lane == 0) {
          load_query_tile<C::D, C::kFromGrid>(shared.q[m], p, item.batch, item.q_tile + m, item.head - item.batch * p.H,
                                              &shared.q_full[m]);
        }
        __syncwarp();
      }
    }
  }
};

}  // namespace vsa::cuda::sm90
