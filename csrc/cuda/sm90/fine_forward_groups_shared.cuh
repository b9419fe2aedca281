#pragma once

#include <cstdint>

#include "cuda/sm90/fine_forward_shared.cuh"

namespace vsa::cuda::sm90 {

// Roles of the groups' kernel: three warps of warpgroup 0 copy, each of the others has a query tile.
template <int D_, int kMembers_, int kKStages_, int kVStages_, bool kFromGrid_, int kConsumerRegisters_,
          int kProducerRegisters_>
struct GroupsConfig {
  static constexpr int D = D_;
  static constexpr int kMembers = kMembers_;  // query tiles of a group, 3 or 4
  static constexpr int kKStages = kKStages_, kVStages = kVStages_;
  static constexpr bool kFromGrid = kFromGrid_;  // tensors are in grid order
  static constexpr int kConsumerRegisters = kConsumerRegisters_, kProducerRegisters = kProducerRegisters_;
  static constexpr int kThreads = 128 * (1 + kMembers);
};

// Work on its way from the warp that copies K to the others.
struct GroupItem {
  int32_t q_tile;        // the first member's; -1: no more
  int32_t head;          // b * H + h
  int32_t begin, count;  // of the union's entries
  int32_t own[4];        // tiles that a member wants
  int32_t batch, kv_head;

  __device__ __forceinline__ static GroupItem read(const GroupItem& from, int lane) {
    const auto get = [&](const int32_t& x) { return read_by_first_lane(x, lane); };
    return {get(from.q_tile),
            get(from.head),
            get(from.begin),
            get(from.count),
            {get(from.own[0]), get(from.own[1]), get(from.own[2]), get(from.own[3])},
            get(from.batch),
            get(from.kv_head)};
  }
};

// What a member is told of the next tile that it wants, half by the warp that copies K and half by that for V, each
// once its copy is under way: so the tiles before in their places have come and gone, and phases cannot be mistaken.
struct Mail {
  uint32_t k;  // class << 5 | phase << 4 | stage
  // `last` << 5 | phase << 4 | stage. `last`: the member must be done with this tile before it asks for the next.
  uint32_t v;

  __device__ __forceinline__ static uint32_t half(uint32_t what, uint32_t phase, uint32_t stage) {
    return what << 5 | phase << 4 | stage;
  }
  __device__ __forceinline__ bool last() const { return v >> 5 & 1; }
};

// One ring of key tiles for all members. A member reads only the tiles it wants: the copying warps send it a mail for
// each, and arrive at `empty` in the name of those that do not want one.
template <typename C>
struct alignas(1024) GroupsShared {
  static constexpr int D = C::D;
  static constexpr int kTileBytes = kTileVolume * D * 2;
  // A mail is read before its tile is released, and no more tiles are out than there are stages.
  static constexpr int kMails = C::kVStages < 8 ? 8 : 16;
  static_assert(C::kKStages < kMails && C::kVStages < kMails, "mails must not be overwritten before they are read");

  uint8_t k[C::kKStages][kTileBytes];
  uint8_t v[C::kVStages][kTileBytes];
  uint8_t q[C::kMembers][kTileBytes];
  uint64_t k_full[C::kKStages], k_empty[C::kKStages], v_full[C::kVStages], v_empty[C::kVStages];
  uint64_t q_full[C::kMembers], q_empty[C::kMembers];
  uint64_t item_full[kItemSlots], item_empty[kItemSlots];
  uint64_t mail_full[C::kMembers][kMails];
  Mail mail[C::kMembers][kMails];
  GroupItem items[kItemSlots];

  template <typename Tile>
  __device__ __forceinline__ int32_t kind_of(const Tile& tile, int) const {
    return tile.kind;
  }
};

}  // namespace vsa::cuda::sm90
