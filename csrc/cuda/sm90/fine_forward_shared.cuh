#pragma once

#include <cstdint>

#include "cuda/sm90/fine_forward_args.cuh"
#include "cuda/sm90/ptx/mbarrier.h"

namespace vsa::cuda::sm90 {

// Items of work wait in so many places between the warp that finds them and the others.
inline constexpr int kItemSlots = 4;

// Where an agent stands in a ring.
template <int kStages>
struct Cursor {
  uint32_t stage = 0, phase = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
  __device__ __forceinline__ void advance(uint32_t count) {
    stage += count;
    phase ^= stage / kStages & 1;
    stage %= kStages;
  }
};

// The place and the phase of the n-th tile of a ring, for those who count tiles only.
template <int kStages>
__device__ __forceinline__ Cursor<kStages> place_in_ring(uint32_t n) {
  return {n % kStages, n / kStages & 1};
}

// A value in shared memory for all lanes of a warp, read by lane 0: the one that will arrive where its place is freed,
// so that its own order is enough for what is written there next.
__device__ __forceinline__ int32_t read_by_first_lane(const int32_t& value, int lane) {
  return __shfl_sync(~0u, lane == 0 ? value : 0, 0);
}

}  // namespace vsa::cuda::sm90
