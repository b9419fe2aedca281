#pragma once

#include <cstdint>

#include "cuda/ptx/named_barrier.h"
#include "cuda/sm90/fine_forward_output.cuh"
#include "cuda/sm90/fine_forward_pairs_shared.cuh"
#include "cuda/sm90/fine_forward_parts.cuh"
#include "cuda/sm90/fine_forward_step.cuh"

namespace vsa::cuda::sm90 {

// A consumer warpgroup: one query tile of the pair over its key tiles.
template <typename T, typename C>
struct PairsConsumer : FineForwardSteps<T, TeamShared<C>> {
  using Base = FineForwardSteps<T, TeamShared<C>>;
  using Base::member, Base::o, Base::p, Base::shared, Base::softmax, Base::thread;
  static constexpr int kStages = C::kStages;
  // Named barriers: this + the warpgroup's number in the block.
  static constexpr int kWarpgroupBarrier = 2;

  Cursor<kStages> mine, other;  // this member's ring and the other's

  using Base::Base;

  __device__ __forceinline__ KeyTile take_mine(uint32_t owed) {
    const uint32_t slot = member * kStages + mine.stage, phase = mine.phase;
    mine.advance();
    return {slot, phase, slot, phase, owed, 0};
  }
  __device__ __forceinline__ KeyTile take_other() {
    const uint32_t slot = (1 - member) * kStages + other.stage, phase = other.phase;
    other.advance();
    return {slot, phase, slot, phase, 1, 0};
  }
  // The i-th tile: shared ones in turn from ring 0 and ring 1, then those that this member has alone.
  __device__ __forceinline__ KeyTile take(int i, int shared_tiles) {
    if (i >= shared_tiles) return take_mine(2);
    return i % 2 == member ? take_mine(1) : take_other();
  }

  __device__ __forceinline__ int barrier() const { return kWarpgroupBarrier + static_cast<int>(threadIdx.x / 128); }

  // After an item: this member has waited for all tiles that it has alone. What the other knows of this member's ring
  // is right again only then: before, parities of phases that it has not seen could be taken for one another. No warp
  // may still look at the phase before when the phase ends, hence the barrier.
  __device__ __forceinline__ void settle(uint32_t round) {
    if (round > 0) ptx::mbarrier_wait(&shared.settled, (round - 1) % 2);
    ptx::named_barrier_sync(barrier(), 128);
    if (thread == 0) ptx::mbarrier_arrive(&shared.settled);
  }

  __device__ __forceinline__ void attend(int shared_tiles, int tiles) {
    if (tiles == 0) return;
    KeyTile next = take(0, shared_tiles);
    this->template step<false, true>(next, next);
#pragma unroll 1
    for (int i = 1; i < tiles; ++i) {
      const KeyTile current = next;
      next = take(i, shared_tiles);
      this->template step<true, true>(current, next);
    }
    this->template step<true, false>(next, next);
  }

  __device__ __forceinline__ void run() {
    uint32_t q_loads = 0;
    for (uint32_t round = 0;; ++round) {
      const uint32_t slot = round % kItemSlots;
      ptx::mbarrier_wait(&shared.item_full[slot], round / kItemSlots % 2);
      const PairItem item = PairItem::read(shared.items[slot], thread % 32);
      this->release(&shared.item_empty[slot], 1);
      if (item.q_tile < 0) return;
      const int own = member == 0 ? item.own[0] : item.own[1], others = member == 0 ? item.own[1] : item.own[0];
      const int tiles = item.shared + own, q_tile = item.q_tile + member;
      const QueryRows rows(p, q_tile, thread);
      this->begin(rows.exists);
      if (tiles > 0) this->receive_q(q_loads++);
      if (round > 0) ptx::mbarrier_wait(&shared.settled, (round - 1) % 2);
      attend(item.shared, tiles);
      other.advance(others);
      settle(round);
      if (tiles > 0) this->release_q();
      if (q_tile >= p.q_tiles) continue;
      softmax.finish();
      if (p.parts > 1 && !join_parts(p, item.pair * 2 + member, item.part, o, softmax.reference, softmax.total, thread,
                                     barrier(), &shared.parts_before[member])) {
        continue;
      }
      // Gates are asked for no earlier: D = 64 has no registers for them, and the other team works meanwhile.
      Output<T, C::D> output(p, item.head, q_tile, rows, thread);
      p.combined != nullptr ? output.store(o, softmax, std::true_type()) : output.store(o, softmax, std::false_type());
    }
  }
};

}  // namespace vsa::cuda::sm90
