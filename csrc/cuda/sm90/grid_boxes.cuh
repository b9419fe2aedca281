#pragma once

#include <cstdint>

#include "cuda/sm90/fine_forward_args.cuh"
#include "cuda/sm90/ptx/mbarrier.h"
#include "cuda/sm90/ptx/tma.h"

namespace vsa::cuda::sm90 {

// A tile of a head from a tensor in grid order, panel after panel; rows come in the order of slots.
template <int D>
__device__ __forceinline__ void load_boxes(uint8_t* to, const GridBoxes& boxes, int32_t batch, int32_t tile,
                                           int32_t head, uint64_t* barrier) {
  const int32_t i = tile - boxes.prefix_tiles;
  if (i < 0) {
#pragma unroll
    for (int panel = 0; panel < D / kPanelColumns; ++panel) {
      ptx::tma_load(to + panel * kPanelBytes, &boxes.prefix,
                    {head * D + panel * kPanelColumns, tile * kTileVolume, batch}, barrier);
    }
    return;
  }
  const int32_t row = boxes.by_x(i), slab = boxes.by_y(row);
  const int32_t x = (i - row * boxes.Nx) << boxes.log_x, y = (row - slab * boxes.Ny) << boxes.log_y;
#pragma unroll
  for (int panel = 0; panel < D / kPanelColumns; ++panel) {
    ptx::tma_load(to + panel * kPanelBytes, &boxes.video,
                  {head * D + panel * kPanelColumns, x, y, slab << boxes.log_t, batch}, barrier);
  }
}

// A query tile of a head, from a tensor in tiled or in grid order; its bytes count towards the barrier's phase.
template <int D, bool kFromGrid>
__device__ __forceinline__ void load_query_tile(uint8_t* to, const FineForwardArgs& p, int32_t batch, int32_t tile,
                                                int32_t head, uint64_t* barrier) {
  ptx::mbarrier_arrive_expect(barrier, kTileVolume * D * 2);
  if constexpr (kFromGrid) {
    load_boxes<D>(to, p.q_boxes, batch, tile, head, barrier);
  } else {
    ptx::tma_load(to, &p.q, {0, (batch * p.q_tiles + tile) * kTileVolume, head * (D / kPanelColumns)}, barrier);
  }
}

}  // namespace vsa::cuda::sm90
