#pragma once

#include "cuda/sm90/fine_forward_pairs_consumer.cuh"
#include "cuda/sm90/fine_forward_pairs_producer.cuh"
#include "cuda/sm90/ptx/registers.h"

namespace vsa::cuda::sm90 {

// Fine attention of two neighbouring query tiles a team over the union of their lists: a key tile that both want is
// copied once. Blocks stay and take pair after pair.
template <typename T, typename C>
__global__ void __launch_bounds__(C::kThreads, 1) fine_forward_pairs(const __grid_constant__ FineForwardArgs p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)  // other architectures of the build get an empty kernel
  using Team = TeamShared<C>;
  extern __shared__ __align__(1024) uint8_t memory[];
  PairsShared<C>& shared = *reinterpret_cast<PairsShared<C>*>(memory);

  const int thread = static_cast<int>(threadIdx.x);
  if (thread < C::kTeams) {
    Team& team = shared.team[thread];
    for (int i = 0; i < Team::kSlots; ++i) {
      ptx::mbarrier_init(&team.k_full[i], 1), ptx::mbarrier_init(&team.k_empty[i], 2 * kWarps);
      ptx::mbarrier_init(&team.v_full[i], 1), ptx::mbarrier_init(&team.v_empty[i], 2 * kWarps);
    }
    for (int i = 0; i < 2; ++i) {
      ptx::mbarrier_init(&team.q_full[i], 1), ptx::mbarrier_init(&team.q_empty[i], kWarps);
    }
    for (int i = 0; i < kItemSlots; ++i) {
      // Read by the other ring's warp and by those of the members.
      ptx::mbarrier_init(&team.item_full[i], 1), ptx::mbarrier_init(&team.item_empty[i], 1 + 2 * kWarps);
    }
    ptx::mbarrier_init(&team.settled, 2);
    ::cuda::ptx::fence_mbarrier_init(::cuda::ptx::sem_release, ::cuda::ptx::scope_cluster);
  }
  if (ptx::shared_address(memory) % 1024 != 0) __trap();  // the swizzle counts on it
  __syncthreads();

  const int warp = __shfl_sync(~0u, thread / 32, 0), warpgroup = warp / 4;
  if (warpgroup == 0) {
    ptx::registers_decrease<C::kProducerRegisters>();
    const int team = warp / 2;
    if (team < C::kTeams) PairsProducer<C>{p, shared.team[team], team, warp % 2, thread % 32}.run();
  } else {
    ptx::registers_increase<C::kConsumerRegisters>();
    const int consumer = warpgroup - 1;
    PairsConsumer<T, C>(p, shared.team[consumer / 2], consumer % 2).run();
  }
#endif
}

}  // namespace vsa::cuda::sm90
