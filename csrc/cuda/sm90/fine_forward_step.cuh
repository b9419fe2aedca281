#pragma once

#include <cstdint>

#include "cuda/ptx/ldmatrix.h"
#include "cuda/sm90/fine_forward_shared.cuh"
#include "cuda/sm90/ptx/wgmma.h"
#include "cuda/sm90/softmax.cuh"

namespace vsa::cuda::sm90 {

// A key tile in shared memory: the places of its K and V and their phases, how many members' arrivals this one owes to
// `empty` when done with it (all of them where no other reads it), and its class (tile_classes.h).
struct KeyTile {
  uint32_t k_slot, k_phase, v_slot, v_phase, owed;
  int32_t kind;
};

// Arrivals of a member at `empty`: one a warp, each for its own reads.
inline constexpr int kWarps = 4;

// What a consumer warpgroup does with a query tile and the key tiles of its list, flash attention (arXiv 2205.14135,
// 2407.08608). A step asks for the scores of the next tile and for P V of the current one, and does the softmax of the
// next while P V runs. Between steps nothing is in flight, so that branches may be taken there and only there.
template <typename T, typename Shared>
struct FineForwardSteps {
  static constexpr int D = Shared::D;
  static constexpr int kTileUnits = Shared::kTileBytes / 16;  // a tile in units of a descriptor's address

  const FineForwardArgs& p;
  Shared& shared;
  const int member, thread;  // of the team, of the warpgroup
  uint32_t k_units, v_units, q_units;

  float o[D / 2];
  float s[32];
  uint32_t weights[16];  // P of the current tile, packed: the a operand of P V
  Softmax softmax;

  __device__ __forceinline__ FineForwardSteps(const FineForwardArgs& args, Shared& memory, int member_)
      : p(args), shared(memory), member(member_), thread(threadIdx.x % 128) {
    k_units = ptx::descriptor_low(ptx::shared_address(shared.k), 16);
    v_units = ptx::descriptor_low(ptx::shared_address(shared.v), kPanelBytes);
    q_units = ptx::descriptor_low(ptx::shared_address(shared.q[member]), 16);
  }

  __device__ __forceinline__ void begin(const bool (&exists)[2]) {
    softmax.begin(exists);
#pragma unroll
    for (int i = 0; i < D / 2; ++i) o[i] = 0;
  }

  __device__ __forceinline__ void release(uint64_t* empty, uint32_t owed) {
    if (thread % 32 == 0) ptx::mbarrier_arrive(empty, owed);
  }

  __device__ __forceinline__ void issue_scores(uint32_t slot) {
    const uint32_t k = k_units + slot * kTileUnits;
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      const uint32_t along = step % 4 * 2 + step / 4 * (kPanelBytes / 16);
      ptx::wgmma_m64n64k16<T>(s, ptx::descriptor(q_units + along), ptx::descriptor(k + along), step > 0);
    }
  }
  __device__ __forceinline__ void issue_output(uint32_t slot) {
    const uint32_t v = v_units + slot * kTileUnits;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      ptx::wgmma_rows_k16<T>(o, weights + 4 * step, ptx::descriptor(v + step * (16 * 128 / 16)));
    }
  }

  // Scores and softmax of `next`, P V of `current`; one of them is missing at the begin and the end of a run of tiles.
  // Of an item's first run nothing has been summed before (kFirst).
  template <bool kCurrent, bool kNext, bool kFirst = true>
  __device__ __forceinline__ void step(const KeyTile& current, const KeyTile& next) {
    int32_t kind = 0;
    if constexpr (kNext) {
      ptx::mbarrier_wait(&shared.k_full[next.k_slot], next.k_phase);
      kind = shared.kind_of(next, thread % 32);
    }
    if constexpr (kCurrent) ptx::mbarrier_wait(&shared.v_full[current.v_slot], current.v_phase);

    touch_operands<kCurrent, kNext>();
    ptx::wgmma_fence();
    if constexpr (kNext) {
      issue_scores(next.k_slot);
      ptx::wgmma_commit();
    }
    if constexpr (kCurrent) {
      issue_output(current.v_slot);
      ptx::wgmma_commit();
    }

    if constexpr (kNext) {
      ptx::wgmma_wait<kCurrent ? 1 : 0>();
      ptx::touch(s);
      release(&shared.k_empty[next.k_slot], next.owed);
      if (kind != 0) softmax.mask(s, p.classes.valid[kind]);
      softmax.weigh(s, p.scale);
    }
    if constexpr (kCurrent) {
      ptx::wgmma_wait<0>();
      touch_operands<kCurrent, kNext>();
      release(&shared.v_empty[current.v_slot], current.owed);
    }
    if constexpr (kNext) {
      if constexpr (kCurrent || !kFirst) softmax.rescale(o);
#pragma unroll
      for (int i = 0; i < 16; ++i) weights[i] = ptx::pack<T>(s[2 * i], s[2 * i + 1]);
    }
  }

  template <bool kCurrent, bool kNext>
  __device__ __forceinline__ void touch_operands() {
    if constexpr (kCurrent) {
      ptx::touch(o);
      ptx::touch(weights);
    }
    if constexpr (kNext) ptx::touch(s);
  }

  __device__ __forceinline__ void receive_q(uint32_t load) {
    ptx::mbarrier_wait(&shared.q_full[member], load % 2);
  }
  // After the last product that reads it: the place is free for the next item's.
  __device__ __forceinline__ void release_q() {
    release(&shared.q_empty[member], 1);
  }
};

}  // namespace vsa::cuda::sm90
