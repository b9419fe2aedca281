#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/ptx/math.h"
#include "cuda/sm90/fine_forward_args.cuh"

namespace vsa::cuda::sm90 {

// The two rows of a query tile that a thread has: slots 16 w + g and + 8 (wgmma.h).
struct QueryRows {
  bool exists[2];   // a token
  bool written[2];  // has a row in memory: in tiled order padding has
  int32_t row[2];

  __device__ __forceinline__ QueryRows(const FineForwardArgs& p, int32_t q_tile, int thread) {
    const bool any = q_tile < p.q_tiles;
    const TilePlace place = p.q_layout.place(any ? q_tile : 0);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int slot = thread / 32 * 16 + thread % 32 / 4 + 8 * r;
      exists[r] = any && place.valid(slot);
      written[r] = any && (exists[r] || p.q_layout.tiled);
      row[r] = place.row(slot);
    }
  }
};

template <typename S>
__device__ __forceinline__ void store_lse(const FineForwardArgs& p, int32_t head, const QueryRows& rows,
                                          const S& softmax, int thread) {
  if (thread % 4 != 0) return;
  float* lse = p.lse + static_cast<int64_t>(head) * p.q_layout.rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    // No key, no score above -inf, or no query.
    if (rows.written[r]) lse[rows.row[r]] = softmax.total[r] == 0 || !rows.exists[r] ? -INFINITY : softmax.lse(r);
  }
}

// Rows in 16-byte pieces: four threads have 4 bytes of each piece, so they transpose four pieces among themselves.
template <typename T, int D, typename S>
__device__ __forceinline__ void store_output(const FineForwardArgs& p, int32_t head, const QueryRows& rows,
                                             const float (&o)[D / 2], const S& softmax, int thread) {
  const int c = thread % 4;
  const int32_t b = head / p.H, h = head - b * p.H;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool zero = softmax.total[r] == 0 || !rows.exists[r];
    const float factor = 1.0f / softmax.total[r];
    const int64_t element = ((static_cast<int64_t>(b) * p.q_layout.rows + rows.row[r]) * p.H + h) * D;
    T* to = static_cast<T*>(p.output) + element + c * 8;
#pragma unroll
    for (int first = 0; first < D / 8; first += 4) {
      uint32_t x[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = 4 * (first + i) + 2 * r;
        const uint32_t pair = ptx::pack<T>(o[at] * factor, o[at + 1] * factor);
        x[i] = zero ? 0 : pair;
      }
      // x[i] of thread j and x[j] of thread i change places: first where bit 0 of i and j differs, then bit 1.
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(~0u, c & 1 ? x[i] : x[i + 1], 1);
        (c & 1 ? x[i] : x[i + 1]) = got;
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t got = __shfl_xor_sync(~0u, c & 2 ? x[i] : x[i + 2], 2);
        (c & 2 ? x[i] : x[i + 2]) = got;
      }
      if (rows.written[r]) *reinterpret_cast<uint4*>(to + first * 8) = {x[0], x[1], x[2], x[3]};
    }
  }
}

}  // namespace vsa::cuda::sm90
