#pragma once

#include <cstdint>

#include "cuda/sm90/fine_forward_shared.cuh"

namespace vsa::cuda::sm90 {

// Roles of the pairs' kernel: of warpgroup 0 a warp for each ring copies; the others have a query tile each, two are a
// team.
template <int D_, int kTeams_, int kStages_, bool kFromGrid_, int kConsumerRegisters_, int kProducerRegisters_>
struct PairsConfig {
  static constexpr int D = D_;
  static constexpr int kTeams = kTeams_;         // pairs of query tiles that a block works on at a time
  static constexpr int kStages = kStages_;       // of each of the rings
  static constexpr bool kFromGrid = kFromGrid_;  // tensors are in grid order
  static constexpr int kConsumerRegisters = kConsumerRegisters_, kProducerRegisters = kProducerRegisters_;
  static constexpr int kThreads = 128 * (1 + 2 * kTeams);
};

// Work on its way from the warp that copies for ring 0 to all other warps of its team.
struct alignas(16) PairItem {
  int32_t q_tile;                // the first member's; -1: no more
  int32_t head;                  // b * H + h
  int32_t shared, own[2];        // key tiles, as in PairLists
  int32_t shared_at, own_at[2];  // where they begin among the entries
  int32_t batch, kv_head;
  int32_t pair, part;  // which part of which pair

  __device__ __forceinline__ static PairItem read(const PairItem& from, int lane) {
    const auto get = [&](const int32_t& x) { return read_by_first_lane(x, lane); };
    return {get(from.q_tile),    get(from.head),
            get(from.shared),    {get(from.own[0]), get(from.own[1])},
            get(from.shared_at), {get(from.own_at[0]), get(from.own_at[1])},
            get(from.batch),     get(from.kv_head),
            get(from.pair),      get(from.part)};
  }
};

// Shared memory of a team. Ring r holds, in the order of use, every second shared key tile and the tiles that member r
// has alone. So each member walks its own ring in full, and of the other one only the shared tiles; which leaves no
// stage to wait for or to skip on another's behalf.
template <typename C>
struct alignas(1024) TeamShared {
  static constexpr int D = C::D;
  static constexpr int kTileBytes = kTileVolume * D * 2;
  static constexpr int kSlots = 2 * C::kStages;  // slot = ring * kStages + stage

  uint8_t k[kSlots][kTileBytes];
  uint8_t v[kSlots][kTileBytes];
  uint8_t q[2][kTileBytes];
  uint64_t k_full[kSlots], k_empty[kSlots], v_full[kSlots], v_empty[kSlots];
  uint64_t q_full[2], q_empty[2];
  uint64_t item_full[kItemSlots], item_empty[kItemSlots];
  uint64_t settled;  // a phase an item: both members have waited for the last tile that they have alone
  PairItem items[kItemSlots];
  int32_t parts_before[2];  // that were done when this one was
  int32_t k_class[kSlots];  // of the tile in k

  // Read by the lane that will release the place.
  template <typename Tile>
  __device__ __forceinline__ int32_t kind_of(const Tile& tile, int lane) const {
    return read_by_first_lane(k_class[tile.k_slot], lane);
  }
};

template <typename C>
struct PairsShared {
  TeamShared<C> team[C::kTeams];
};

}  // namespace vsa::cuda::sm90
