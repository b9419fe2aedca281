#pragma once

#include <cmath>

#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/fine_backward_common.cuh"
#include "cuda/fine_backward_dkdv.cuh"
#include "cuda/fine_backward_dq.cuh"
#include "cuda/fine_backward_rows.cuh"
#include "cuda/kernel_attributes.h"
#include "cuda/launch.h"

namespace vsa::cuda::fine_backward {

// Two stages of the copy pipeline if two blocks of them fit an SM (or no second block would fit anyway), else one.
// The SM has 1 KB more than a block may ask for, and keeps 1 KB a block for itself.
inline int choose_stages(int64_t bytes_of_one, int64_t bytes_of_two, int64_t limit) {
  constexpr int64_t kReserved = 1024;
  const auto blocks = [&](int64_t bytes) { return bytes > limit ? 0 : (limit + kReserved) / (bytes + kReserved); };
  return blocks(bytes_of_two) >= 2 || (blocks(bytes_of_one) < 2 && blocks(bytes_of_two) == 1) ? 2 : 1;
}

// Launches one of the passes with `blocks` blocks. Shared is its shared memory's layout.
template <typename Shared>
void launch_pass(void (*kernel)(Args), const char* name, Args args, int64_t blocks, const Launch& launch) {
  if (blocks == 0) return;
  VSA_CHECK(blocks <= INT32_MAX, "the backward must have fewer than 2^31 tiles in all heads");
  args.stages = choose_stages(Shared::bytes(1), Shared::bytes(2), launch.shared_memory);
  const int bytes = static_cast<int>(Shared::bytes(args.stages));
  allow_shared_memory(kernel, bytes, name);
  prefer_shared_memory(kernel, name);
  launch_kernel(kernel, name, launch, static_cast<unsigned>(blocks), kThreads, static_cast<size_t>(bytes), args);
}

template <typename T, int D>
void launch_kernels(Args args, const Launch& launch) {
  const int64_t q_tiles = args.q_layout.tiles, kv_tiles = args.kv_layout.tiles;
  const int64_t items = args.B * args.Hkv * kv_tiles;
  args.resident_blocks = launch.sm_count * blocks_per_sm(D);
  if (args.t_offsets != nullptr && items > args.resident_blocks) args.order = launch.scratch_of<int32_t>(items);
  const int64_t rows_blocks =
      (args.has_rows ? args.B * q_tiles * (kTileVolume / kRowsSlots) : 0) + (args.order != nullptr);
  VSA_CHECK(rows_blocks <= INT32_MAX, "the backward must have fewer than 2^29 query tiles in a head");
  if (rows_blocks > 0) {
    launch_kernel(fine_backward_rows<T, D>, "fine_backward_rows", launch, static_cast<unsigned>(rows_blocks),
                  kRowsThreads, 0, args);
  }
  launch_pass<DkdvShared<D>>(fine_backward_dkdv<T, D>, "fine_backward_dkdv", args, items, launch);
  // Last: dq may lie where doutput does, of which a tile's dq needs that tile's alone.
  launch_pass<DqShared<D>>(fine_backward_dq<T, D>, "fine_backward_dq", args, args.B * args.H * q_tiles, launch);
}

template <typename T>
void launch_typed(const Args& args, int64_t D, const Launch& launch) {
  if (D == 64) return launch_kernels<T, 64>(args, launch);
  if (D == 96) return launch_kernels<T, 96>(args, launch);
  VSA_CHECK(D == 128, "a head must have 64, 96 or 128 elements");
  launch_kernels<T, 128>(args, launch);
}

}  // namespace vsa::cuda::fine_backward
