#pragma once

#include <cmath>

#include "cuda/ptx/dependent_launch.h"
#include "cuda/sm90/fine_backward_plan.cuh"
#include "cuda/sm90/fine_backward_tile.cuh"

namespace vsa::cuda::sm90::fine_backward {

// Heads whose rows of one tile a block has: rows of 512 bytes in memory.
template <int D>
inline constexpr int kRowHeads = 256 / D;

// Blocks of the pre-pass behind the clusters of the two plans: merged lists (a warp a pair), rows.
struct PrepareBlocks {
  int32_t merge, rows;
};

// delta = rowsum(dO * O) of the rows of a tile and kRowHeads heads, unless it is there, and in grid order copies of lse
// and delta that the passes can read as 256 contiguous bytes of a tile, in the order of its slots.
template <typename T, int D>
__device__ __forceinline__ void prepare_rows(const Args& p, int32_t block) {
  constexpr int kHeads = kRowHeads<D>, kRows = kHeads * kTileVolume;
  constexpr int kLanes = D / 8;                                    // that share a row, 16 bytes each
  constexpr int kRound = kPrepareThreads / kLanes, kInFlight = 4;  // rows of a round; rounds that are loaded at once
  static_assert(kRows <= kPrepareThreads && kRows % (kRound * kInFlight) == 0);
  __shared__ float sums[kRows];

  const int32_t chunks = (p.H + kHeads - 1) / kHeads, tile_of_batch = block / chunks;
  const int32_t first_head = (block - tile_of_batch * chunks) * kHeads;
  const int32_t b = tile_of_batch / p.q_layout.tiles, tile = tile_of_batch - b * p.q_layout.tiles;
  const TilePlace place = p.q_layout.place(tile);
  const auto exists = [&](int slot) { return place.valid(slot) || p.q_layout.tiled; };

  // A thread's own row, in the order of slots.
  const int own_head = threadIdx.x / kTileVolume, own_slot = threadIdx.x % kTileVolume;
  const bool owns = threadIdx.x < kRows && first_head + own_head < p.H;
  const bool valid = owns && place.valid(own_slot);
  const int64_t head = static_cast<int64_t>(b) * p.H + first_head + own_head;
  const int64_t at = head * p.q_layout.rows + place.row(own_slot);
  float delta = 0.0f;
  if (p.delta_ready) {
    if (valid) delta = p.delta[at];
  } else {
    const int lane = threadIdx.x % kLanes;
#pragma unroll 1
    for (int first = threadIdx.x / kLanes; first < kRows; first += kRound * kInFlight) {
      uint4 x[kInFlight], y[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const int row = first + i * kRound, slot = row / kHeads, h = first_head + row % kHeads;
        x[i] = y[i] = make_uint4(0, 0, 0, 0);
        if (h < p.H && exists(slot)) {
          const int64_t of_tensor = static_cast<int64_t>(b) * p.q_layout.rows + place.row(slot);
          const int64_t vector = (of_tensor * p.H + h) * kLanes + lane;
          x[i] = __ldg(static_cast<const uint4*>(p.output) + vector);
          y[i] = __ldg(static_cast<const uint4*>(p.doutput) + vector);
        }
      }
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const uint32_t xs[4] = {x[i].x, x[i].y, x[i].z, x[i].w}, ys[4] = {y[i].x, y[i].y, y[i].z, y[i].w};
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float2 left = unpack<T>(xs[j]), right = unpack<T>(ys[j]);
          sum += left.x * right.x + left.y * right.y;
        }
#pragma unroll
        for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
        const int row = first + i * kRound;
        if (lane == 0) sums[row % kHeads * kTileVolume + row / kHeads] = sum;
      }
    }
    __syncthreads();
    if (valid) delta = sums[threadIdx.x];
    if (owns && exists(own_slot)) p.delta[at] = delta;
  }
  if (!owns || p.q_layout.tiled) return;
  const int64_t to = (head * p.q_layout.tiles + tile) * kTileVolume + own_slot;
  p.lse_of_slots[to] = valid ? p.lse[at] : -INFINITY;
  p.delta_of_slots[to] = delta;
}

// The pre-pass: everything that the two passes need and that costs one reading of O, dO and the lists. Its blocks come
// in clusters of kPlanBlocks.
template <typename T, int D>
__global__ void __launch_bounds__(kPrepareThreads, 4)
    fine_backward_prepare(const __grid_constant__ Args p, const PrepareBlocks blocks) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)  // other architectures of the build get an empty kernel
  const Walk dkdv = {p.dkdv, p.t_offsets, p.t_indices, p.kv_layout.tiles, p.q_layout.tiles, p.group, p.H};
  const Walk dq = {p.dq_plan, p.offsets, p.indices, p.q_layout.tiles, p.kv_layout.tiles, 1, p.Hkv};
  int32_t block = blockIdx.x;
  ptx::join_chain();
  if (block < kPlanBlocks) {
    make_sources(p.q_layout, p.q_classes, p.q_sources);
    return make_plan(dkdv, p, p.B * p.Hkv, p.Hkv, false);
  }
  if (block < 2 * kPlanBlocks) {
    make_sources(p.kv_layout, p.kv_classes, p.kv_sources);
    return make_plan(dq, p, p.B * p.H, p.H, true);
  }
  block -= 2 * kPlanBlocks;
  if (block >= blocks.merge) {
    block -= blocks.merge;
    if (block < blocks.rows) prepare_rows<T, D>(p, block);
    return;
  }
  __shared__ uint32_t words[kPrepareThreads / 32][2][32];
  const int32_t warp = threadIdx.x / 32, pair = block * (kPrepareThreads / 32) + warp;
  const int32_t head = pair / p.dq_plan.groups;
  if (head < p.B * p.H) merge_lists(dq, head, pair - head * p.dq_plan.groups, words[warp]);
#endif
}

// Adds the parts of a split list, in their order: two blocks (dK, dV) a list.
template <typename T, int D>
__global__ void __launch_bounds__(kWarpgroup) fine_backward_combine(const __grid_constant__ Args p) {
  ptx::dependent_launch_wait();
  if (blockIdx.x >= *p.dkdv.split_count) return;
  const Split split = p.dkdv.splits[blockIdx.x];
  float sums[D / 2];
#pragma unroll
  for (int i = 0; i < D / 2; ++i) sums[i] = 0.0f;
  for (int32_t part = split.first_part; part < split.first_part + split.parts; ++part) {
    add_part<D>(sums, p.dkdv.parts + (static_cast<int64_t>(part) * 2 + blockIdx.y) * (kTileVolume * D));
  }
  store_key_gradient<T, D>(sums, blockIdx.y, p, split.b, split.head, split.tile, -1);
}

}  // namespace vsa::cuda::sm90::fine_backward
