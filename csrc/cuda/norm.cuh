#pragma once

#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/row_parts.cuh"
#include "cuda/vectors.cuh"

// What both directions of the norms share: a team of threads, a warp or a block, works on a row that it keeps in
// registers; rows too long for that are read again from the caches.
namespace vsa::cuda {

inline constexpr int kNormWarps = 4;    // of a block whose teams are warps
inline constexpr int kNormBlock = 256;  // threads of a team that is a block
inline constexpr int kWarpHeld = 3;     // vectors of a row that a thread keeps: 768 channels of 16 bits
inline constexpr int kBlockHeld = 4;    // 8,192

// A team of 32 or kNormBlock threads, of which each keeps that many vectors of a row; 0: they are read again.
template <int size, int held_>
struct Team {
  static constexpr int kSize = size, kHeld = held_;
  static constexpr int kThreads = size == 32 ? 32 * kNormWarps : size;
  static constexpr int kTeams = kThreads / size;  // of a block
  // That the backward has registers for.
  static constexpr int kBlocksPerSm = held_ * size <= 256 ? 3 : 1;

  static __device__ __forceinline__ int index() { return static_cast<int>(threadIdx.x) / kSize; }
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kSize; }

  // body(i, column) for the vectors of this thread.
  template <int V, typename Body>
  static __device__ __forceinline__ void each(int64_t width, const Body& body) {
    if constexpr (kHeld > 0) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        const int column = (i * kSize + lane()) * V;
        if (column < width) body(i, column);
      }
    } else {
#pragma unroll 2
      for (int64_t column = int64_t{lane()} * V; column < width; column += kSize * V) body(0, column);
    }
  }

  // The sums of `count` numbers over the team, in every thread; the order is fixed.
  template <int count>
  static __device__ __forceinline__ void sum(float (&x)[count]) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
#pragma unroll
      for (int n = 0; n < count; ++n) x[n] += __shfl_xor_sync(0xffffffffu, x[n], offset);
    }
    if constexpr (kSize > 32) {
      constexpr int kWarps = kSize / 32;
      __shared__ float sums[count][kWarps];
      const int warp = static_cast<int>(threadIdx.x) / 32;
      __syncthreads();  // the sums before have been read
#pragma unroll
      for (int n = 0; n < count; ++n) {
        if (threadIdx.x % 32 == 0) sums[n][warp] = x[n];
      }
      __syncthreads();
#pragma unroll
      for (int n = 0; n < count; ++n) {
        x[n] = 0;
#pragma unroll
        for (int i = 0; i < kWarps; ++i) x[n] += sums[n][i];
      }
    }
  }
};

// Calls go(a T, elements of a vector, a Team).
template <typename Go>
void for_teams(DType dtype, bool wide, int64_t width, const Go& go) {
  wide = wide && width % (16 / size_of(dtype)) == 0;
  for_elements(dtype, wide, [&](auto element, auto vector) {
    const int64_t vectors = width / vector();
    if (vectors <= 32 * kWarpHeld) {
      go(element, vector, Team<32, kWarpHeld>());
    } else if (vectors <= kNormBlock) {
      go(element, vector, Team<kNormBlock, 1>());
    } else if (vectors <= kNormBlock * kBlockHeld) {
      go(element, vector, Team<kNormBlock, kBlockHeld>());
    } else {
      go(element, vector, Team<kNormBlock, 0>());
    }
  });
}

}  // namespace vsa::cuda
