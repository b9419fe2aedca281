#pragma once

#include <algorithm>

#include "cuda/chain.h"
#include "cuda/kernel_attributes.h"
#include "cuda/launch.h"
#include "cuda/sm90/fine_forward_groups.cuh"
#include "cuda/sm90/fine_forward_pairs.cuh"
#include "cuda/sm90/fine_forward_prepare.h"

namespace vsa::cuda::sm90 {

// What a block may have on sm_90: 227 KB.
inline constexpr int kMostSharedMemory = 232448;

// A block an SM, as long as there is work for all.
inline void launch_persistent(void (*kernel)(FineForwardArgs), int threads, int shared, const FineForwardArgs& args,
                              const Launch& on) {
  allow_shared_memory(kernel, shared, "fine_forward");
  const int blocks = std::min(on.sm_count, args.groups * args.parts);
  launch_kernel(kernel, "fine_forward", on, static_cast<unsigned>(blocks), threads, static_cast<size_t>(shared), args);
}

template <typename T, typename C>
void launch_pairs(const FineForwardArgs& args, const Launch& on) {
  static_assert(sizeof(PairsShared<C>) <= kMostSharedMemory, "the rings must fit");
  launch_persistent(fine_forward_pairs<T, C>, C::kThreads, sizeof(PairsShared<C>), args, on);
}

template <typename T, typename C>
void launch_groups(const FineForwardArgs& args, const Launch& on) {
  static_assert(sizeof(GroupsShared<C>) <= kMostSharedMemory, "the ring must fit");
  launch_persistent(fine_forward_groups<T, C>, C::kThreads, sizeof(GroupsShared<C>), args, on);
}

// NOTES.md has the measurements behind these configurations.
template <typename T, bool kFromGrid>
void launch_fine_forward_typed(const FineForward& f, const Launch& on) {
  using Pairs64 = PairsConfig<64, 2, 3, kFromGrid, 112, 32>;
  using Pairs128 = PairsConfig<128, 1, 3, kFromGrid, 232, 40>;
  using Triples128 = GroupsConfig<128, 3, 5, 6, kFromGrid, 160, 32>;
  using Quads64 = GroupsConfig<64, 4, 12, 12, kFromGrid, 112, 32>;
  const Grouping grouping = grouping_of(f, on.sm_count);
  const FineForwardArgs args = prepare_fine_forward(f, grouping, on);
  if (f.D == 64) {
    grouping.members == 4 ? launch_groups<T, Quads64>(args, on) : launch_pairs<T, Pairs64>(args, on);
  } else if (grouping.members == 2) {
    launch_pairs<T, Pairs128>(args, on);
  } else {
    launch_groups<T, Triples128>(args, on);
  }
}

}  // namespace vsa::cuda::sm90
