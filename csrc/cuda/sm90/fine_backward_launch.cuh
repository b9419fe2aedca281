#pragma once

#include "cuda/chain.h"
#include "cuda/kernel_attributes.h"
#include "cuda/sm90/fine_backward_dkdv.cuh"
#include "cuda/sm90/fine_backward_dq.cuh"
#include "cuda/sm90/fine_backward_prepare.cuh"

namespace vsa::cuda::sm90::fine_backward {

// A persistent pass.
template <typename Shared>
void launch_pass(void (*kernel)(Maps, Args), const char* name, int warpgroups, const Maps& maps, const Args& args,
                 const Launch& launch) {
  constexpr int kShared = sizeof(Shared);
  static_assert(kShared <= 232448, "a block of compute capability 9.0 may have 227 KB of shared memory");
  allow_shared_memory(kernel, kShared, name);
  launch_in_chain(kernel, name, launch, static_cast<unsigned>(launch.sm_count), warpgroups * kWarpgroup, kShared, maps,
                  args);
}

template <typename T, int D>
void launch_prepare(const Args& args, const Launch& launch) {
  const auto blocks_for = [](int64_t count, int64_t each) { return static_cast<int32_t>((count + each - 1) / each); };
  const int64_t heads = int64_t{args.B} * args.H, chunks = blocks_for(args.H, kRowHeads<D>);
  PrepareBlocks blocks = {};
  if (args.dq_plan.merged != nullptr) blocks.merge = blocks_for(heads * args.dq_plan.groups, kPrepareThreads / 32);
  if (args.has_rows) blocks.rows = static_cast<int32_t>(args.B * args.q_layout.tiles * chunks);
  const auto clusters = static_cast<unsigned>(2 + blocks_for(int64_t{blocks.merge} + blocks.rows, kPlanBlocks));
  launch_in_chain(fine_backward_prepare<T, D>, "fine_backward_prepare", launch,
                  Clusters{dim3(clusters * kPlanBlocks), kPlanBlocks}, kPrepareThreads, 0, args, blocks);
}

template <typename T, int D, bool kPairs>
void launch_dkdv(const Maps& maps, const Args& args, const Launch& launch) {
  constexpr bool kResident = D == 128;
  constexpr int kSlots = (D == 128 ? 2 : 6) * (kPairs ? 2 : 1);
  launch_pass<DkdvShared<D, kSlots, kResident, kPairs>>(fine_backward_dkdv<T, D, kSlots, kResident, kPairs>,
                                                        "fine_backward_dkdv", kTeams + 1, maps, args, launch);
}

template <typename T, int D>
void launch_dq(const Maps& maps, const Args& args, const Launch& launch) {
  constexpr int kSlots = D == 128 ? 6 : 12;
  launch_pass<DqShared<D, kSlots>>(fine_backward_dq<T, D, kSlots>, "fine_backward_dq", kQueryTiles + 1, maps, args,
                                   launch);
}

template <typename T, int D>
void launch_combine(const Args& args, const Launch& launch) {
  if (args.dkdv.max_parts == 0) return;
  const auto splits = static_cast<unsigned>(args.dkdv.max_parts / 2);  // of two parts at least
  launch_in_chain(fine_backward_combine<T, D>, "fine_backward_combine", launch, dim3(splits, 2), kWarpgroup, 0, args);
}

template <typename T, int D>
void launch_kernels(const Args& args, const Maps& dkdv, const Maps& dq, const Launch& launch) {
  launch_prepare<T, D>(args, launch);
  args.dkdv.group_tiles == 1 ? launch_dkdv<T, D, false>(dkdv, args, launch)
                             : launch_dkdv<T, D, true>(dkdv, args, launch);
  launch_dq<T, D>(dq, args, launch);  // it needs nothing of dK and dV
  launch_combine<T, D>(args, launch);
}

}  // namespace vsa::cuda::sm90::fine_backward
