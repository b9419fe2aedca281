#pragma once

#include <cmath>

#include "cuda/fine_backward_common.cuh"
#include "cuda/fine_backward_order.cuh"
#include "cuda/ptx/math.h"

namespace vsa::cuda::fine_backward {

inline constexpr int kRowsSlots = 16;  // slots of a tile that a block of fine_backward_rows handles, all heads

// The pre-pass, bound by memory: delta = rowsum(dO * O) of every query row unless it is there, and in grid order copies
// of lse and delta that the two passes can read as 256 contiguous bytes of a tile, in the order of its slots.
// Where pass 1 wants an order, the first block makes it.
template <typename T, int D>
__global__ void __launch_bounds__(kRowsThreads) fine_backward_rows(const __grid_constant__ Args p) {
  constexpr int kLanes = D == 64 ? 8 : 16;  // that share a row, 16 bytes each
  constexpr int kBlocks = kTileVolume / kRowsSlots;
  if (p.order != nullptr && blockIdx.x == 0) return order_items(p);
  const int32_t block = blockIdx.x - (p.order != nullptr), item = block / kBlocks;
  const int32_t b = item / p.q_layout.tiles, tile = item % p.q_layout.tiles;
  const int first_slot = block % kBlocks * kRowsSlots;
  const TilePlace place = p.q_layout.place(tile);
  const T* output = static_cast<const T*>(p.output) + static_cast<int64_t>(b) * p.q_layout.rows * p.H * D;
  const T* doutput = static_cast<const T*>(p.doutput) + static_cast<int64_t>(b) * p.q_layout.rows * p.H * D;
  const int lane = threadIdx.x % kLanes;

  for (int first = 0; first < kRowsSlots * p.H; first += kRowsThreads / kLanes) {
    const int index = first + threadIdx.x / kLanes;  // heads are neighbours in memory
    const int slot = first_slot + index / p.H, h = index % p.H;
    const bool active = index < kRowsSlots * p.H, valid = active && place.valid(slot);
    const int32_t row = place.row(slot);
    float sum = 0.0f;
    if (valid && lane * 8 < D && !p.delta_ready) {
      const int64_t at = (static_cast<int64_t>(row) * p.H + h) * D + lane * 8;
      const uint4 x = *reinterpret_cast<const uint4*>(output + at), y = *reinterpret_cast<const uint4*>(doutput + at);
      const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 left = ptx::unpack<T>(xs[i]), right = ptx::unpack<T>(ys[i]);
        sum += left.x * right.x + left.y * right.y;
      }
    }
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (!active || lane != 0) continue;
    const int64_t head = static_cast<int64_t>(b) * p.H + h;
    const int64_t at = head * p.q_layout.rows + row, to = (head * p.q_layout.tiles + tile) * kTileVolume + slot;
    if (valid && p.delta_ready) sum = p.delta[at];
    if ((valid || p.q_layout.tiled) && !p.delta_ready) p.delta[at] = sum;
    if (p.q_layout.tiled) continue;
    p.lse_of_slots[to] = valid ? p.lse[at] : -INFINITY;
    p.delta_of_slots[to] = sum;
  }
}

}  // namespace vsa::cuda::fine_backward
