#pragma once

#include <cmath>

#include "cuda/sm90/fine_backward_plan.cuh"
#include "cuda/sm90/fine_backward_tile.cuh"
#include "cuda/sm90/ptx/dependent_launch.h"

namespace vsa::cuda::sm90::fine_backward {

inline constexpr int kRowsInFlight = 4;  // of a thread, both tensors: eight loads of 16 bytes

template <int D>
inline constexpr int kRowsPerBlock = kPrepareThreads / (D / 8) * kRowsInFlight;

inline constexpr int kStatisticsPerBlock = kPrepareThreads * kRowsInFlight;

// Blocks of the pre-pass behind those of the two plans: merged lists (a warp a pair), rows.
struct PrepareBlocks {
  int32_t merge, rows;
};

// Where a query row is, by its number among [B, tiles * 64, H].
struct QueryRow {
  int32_t b, h, tile, slot;
  int32_t row;  // of the tensor; -1: padding that has no row
  bool valid;

  __device__ __forceinline__ QueryRow(const Args& p, int32_t index) {
    const int32_t slots = p.q_layout.tiles * kTileVolume, token = index / p.H;
    h = index - token * p.H, b = token / slots;
    const int32_t of_head = token - b * slots;
    tile = of_head / kTileVolume, slot = of_head % kTileVolume;
    if (p.q_sources == nullptr) {
      row = of_head, valid = true;
    } else {
      const TilePlace place = p.q_layout.place(tile);
      valid = place.valid(slot), row = valid || p.q_layout.tiled ? place.row(slot) : -1;
    }
  }
  // Among [B, rows, H], as output and its gradient lie.
  __device__ __forceinline__ int64_t of_tensor(const Args& p) const {
    return (static_cast<int64_t>(b) * p.q_layout.rows + row) * p.H + h;
  }
};

// delta = rowsum(dO * O) of every query row, and what the passes read of a tile's rows as 512 contiguous bytes in slot
// order: lse in log2 units and delta. lse is +inf for padding and for rows that attend to nothing, so that P is 0
// there.
template <typename T, int D>
__device__ __forceinline__ void prepare_rows(const Args& p, int32_t block) {
  constexpr int kLanes = D / 8;  // that share a row, 16 bytes each
  const int lane = threadIdx.x % kLanes;
  const int32_t rows = p.B * p.q_layout.tiles * kTileVolume * p.H;
  const int32_t first = block * kRowsPerBlock<D> + threadIdx.x / kLanes;
  uint4 x[kRowsInFlight], y[kRowsInFlight];
#pragma unroll
  for (int i = 0; i < kRowsInFlight; ++i) {
    const int32_t index = min(first + i * (kPrepareThreads / kLanes), rows - 1);
    int64_t at = index;
    bool exists = true;
    if (!p.q_layout.tiled) {
      const QueryRow row(p, index);
      at = row.of_tensor(p), exists = row.row >= 0;
    }
    x[i] = y[i] = make_uint4(0, 0, 0, 0);
    if (exists) {
      x[i] = __ldg(reinterpret_cast<const uint4*>(static_cast<const T*>(p.output) + at * D) + lane);
      y[i] = __ldg(reinterpret_cast<const uint4*>(static_cast<const T*>(p.doutput) + at * D) + lane);
    }
  }
#pragma unroll
  for (int i = 0; i < kRowsInFlight; ++i) {
    const uint32_t xs[4] = {x[i].x, x[i].y, x[i].z, x[i].w}, ys[4] = {y[i].x, y[i].y, y[i].z, y[i].w};
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 left = unpack<T>(xs[j]), right = unpack<T>(ys[j]);
      sum += left.x * right.x + left.y * right.y;
    }
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    const int32_t index = first + i * (kPrepareThreads / kLanes);
    if (lane != 0 || index >= rows) continue;
    const QueryRow row(p, index);
    const int64_t head = static_cast<int64_t>(row.b) * p.H + row.h, at = head * p.q_layout.rows + row.row;
    float* statistics = p.statistics + (head * p.q_layout.tiles + row.tile) * (2 * kTileVolume) + row.slot;
    const float lse = row.valid ? p.lse[at] : -INFINITY;
    if (!row.valid) sum = 0.0f;
    statistics[0] = lse == -INFINITY ? INFINITY : lse * static_cast<float>(M_LOG2E);
    statistics[kTileVolume] = sum;
    if (row.row >= 0) p.delta[at] = sum;
  }
}

// The same where delta is there: a thread a row, in the order of statistics.
__device__ __forceinline__ void prepare_statistics(const Args& p, int32_t block) {
  const int32_t slots = p.q_layout.tiles * kTileVolume, rows = p.B * p.H * slots;
#pragma unroll
  for (int i = 0; i < kRowsInFlight; ++i) {
    const int32_t index = (block * kRowsInFlight + i) * kPrepareThreads + threadIdx.x;
    if (index >= rows) return;
    const int32_t head = index / slots, tile = (index - head * slots) / kTileVolume, slot = index % kTileVolume;
    const TilePlace place = p.q_layout.place(tile);
    const bool valid = place.valid(slot);
    const int64_t at = static_cast<int64_t>(head) * p.q_layout.rows + place.row(slot);
    const float lse = valid ? p.lse[at] : -INFINITY;
    float* statistics =
        p.statistics + (static_cast<int64_t>(head) * p.q_layout.tiles + tile) * (2 * kTileVolume) + slot;
    statistics[0] = lse == -INFINITY ? INFINITY : lse * static_cast<float>(M_LOG2E);
    statistics[kTileVolume] = valid ? p.delta[at] : 0.0f;
  }
}

// The pre-pass: everything that the two passes need and that costs one reading of O, dO and the lists.
template <typename T, int D>
__global__ void __launch_bounds__(kPrepareThreads, 4)
    fine_backward_prepare(const __grid_constant__ Args p, const PrepareBlocks blocks) {
  const Walk dkdv = {p.dkdv, p.t_offsets, p.t_indices, p.kv_layout.tiles, p.q_layout.tiles, p.group, p.H};
  const Walk dq = {p.dq_plan, p.offsets, p.indices, p.q_layout.tiles, p.kv_layout.tiles, 1, p.Hkv};
  int32_t block = blockIdx.x;
  ptx::dependent_launch();
  if (block == 0) {
    make_sources(p.q_layout, p.q_classes, p.q_sources);
    return make_plan(dkdv, p, p.B * p.Hkv, p.Hkv, false);
  }
  if (block == 1) {
    make_sources(p.kv_layout, p.kv_classes, p.kv_sources);
    return make_plan(dq, p, p.B * p.H, p.H, true);
  }
  block -= 2;
  if (block >= blocks.merge) {
    block -= blocks.merge;
    return p.delta_ready ? prepare_statistics(p, block) : prepare_rows<T, D>(p, block);
  }
  __shared__ uint32_t words[kPrepareThreads / 32][2][32];
  const int32_t warp = threadIdx.x / 32, pair = block * (kPrepareThreads / 32) + warp;
  const int32_t head = pair / p.dq_plan.groups;
  if (head < p.B * p.H) merge_lists(dq, head, pair - head * p.dq_plan.groups, words[warp]);
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
