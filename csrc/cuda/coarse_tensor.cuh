#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/ptx/cp_async.h"
#include "cuda/ptx/ldmatrix.h"
#include "cuda/ptx/mma.h"

// Products of fp32 matrices on tensor cores, as accurate as fp32. A float is the sum of three bf16 numbers, of eight
// bits each, and a product that of the six largest products of parts (the others are below 2^-22 of it).
//
// Tensor cores cut sums off, they do not round them: a sum stays in them over 32 terms at most, the small products in a
// sum of their own, and is added to the rest by the CUDA cores.
//
// A warp has 16 rows of a product. Of blocks of 16 x 8, lane l, g = l / 4 and c = l % 4, has the elements
//   [0] (g, 2 c)  [1] (g, 2 c + 1)  [2] (g + 8, 2 c)  [3] (g + 8, 2 c + 1),
// as mma.sync leaves sums; two such blocks side by side are the left operand of a next product.
namespace vsa::cuda::coarse {

inline constexpr int kWarpRows = 16;

// Floats of a row in shared memory: 4 more, so that what a warp reads at once lies in 32 banks.
template <int D>
inline constexpr int kPitch = D + 4;

struct Lane {
  int row, column;  // g and c
  __device__ __forceinline__ Lane() : row(threadIdx.x % 32 / 4), column(threadIdx.x % 4) {}
};

// Two floats as pairs of bf16, the first in the low half; every part is what the ones before cut off.
__device__ __forceinline__ void split(float x, float y, uint32_t& high, uint32_t& middle, uint32_t& low) {
  const auto pair = [&] { return __byte_perm(__float_as_uint(x), __float_as_uint(y), 0x7632); };
  const auto rest = [](float z) { return z - __uint_as_float(__float_as_uint(z) & 0xffff0000u); };
  high = pair();
  x = rest(x), y = rest(y);
  middle = pair();
  x = rest(x), y = rest(y);
  low = pair();
}

using Block = float[4];

// Two blocks side by side as a left operand.
struct Left {
  uint32_t high[4], middle[4], low[4];
  __device__ __forceinline__ Left(const Block& x, const Block& y) {
    split(x[0], x[1], high[0], middle[0], low[0]);
    split(x[2], x[3], high[1], middle[1], low[1]);
    split(y[0], y[1], high[2], middle[2], low[2]);
    split(y[2], y[3], high[3], middle[3], low[3]);
  }
};

// large[n] += the large products of a step of 16 terms, small[n] += the small ones, for kCount blocks side by side. Of
// the right operand a lane has the terms 2 c, 2 c + 1, 2 c + 8, 2 c + 9 of column g.
template <int kCount>
__device__ __forceinline__ void multiply_step(float (&large)[kCount][4], float (&small)[kCount][4], const Left& left,
                                              const float (&right)[kCount][4]) {
  uint32_t high[kCount][2], middle[kCount][2], low[kCount][2];
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
    split(right[n][0], right[n][1], high[n][0], middle[n][0], low[n][0]);
    split(right[n][2], right[n][3], high[n][1], middle[n][1], low[n][1]);
  }
  const auto add = [&](float(&sum)[kCount][4], const uint32_t(&a)[4], const uint32_t(&b)[kCount][2]) {
#pragma unroll
    for (int n = 0; n < kCount; ++n) ptx::mma_m16n8k16<__nv_bfloat16>(sum[n], a, b[n][0], b[n][1]);
  };
  add(large, left.high, high);
  add(small, left.low, high);
  add(small, left.high, low);
  add(small, left.middle, middle);
  add(small, left.middle, high);
  add(small, left.high, middle);
}

// sum = sum * factor + left . right: left has kBlocks blocks side by side, right as many times eight rows of D columns
// in shared memory, at the lane's row 2 c and column g. Factors of the lane's two rows.
template <int D, int kBlocks>
__device__ __forceinline__ void multiply_rows(float (&sum)[D / 8][4], const float (&factor)[2],
                                              const float (&left)[kBlocks][4], const float* right) {
  static_assert(kBlocks == 2 || kBlocks == 4, "longer sums would lose bits");
  constexpr int kCount = 4;  // blocks at once
#pragma unroll
  for (int first = 0; first < D / 8; first += kCount) {
    float large[kCount][4] = {}, small[kCount][4] = {};
#pragma unroll
    for (int t = 0; t < kBlocks; t += 2) {
      float x[kCount][4];
#pragma unroll
      for (int n = 0; n < kCount; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) x[n][e] = right[(8 * (t + e / 2) + e % 2) * kPitch<D> + 8 * (first + n)];
      }
      multiply_step(large, small, Left(left[t], left[t + 1]), x);
    }
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[first + n][e] = fmaf(sum[first + n][e], factor[e / 2], large[n][e] + small[n][e]);
    }
  }
}

// The lane's place for that in rows of shared memory.
template <int D>
__device__ __forceinline__ int rows_place(const Lane& lane) {
  return 2 * lane.column * kPitch<D> + lane.row;
}

// block[n] = left . right^T over D columns, for 8 kCount rows of right; both in shared memory, at the lane's row g and
// column c.
template <int D, int kCount>
__device__ __forceinline__ void multiply_columns(float (&block)[kCount][4], const float* left, const float* right) {
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) block[n][e] = 0;
  }
#pragma unroll 1
  for (int first = 0; first < D; first += 32) {
    float large[kCount][4] = {}, small[kCount][4] = {};
#pragma unroll
    for (int column = first; column < first + 32; column += 16) {  // in any order, if it is that of both
      const float* const a = left + column;
      const float* const lower = a + 8 * kPitch<D>;
      const float x[2][4] = {{a[0], a[4], lower[0], lower[4]}, {a[8], a[12], lower[8], lower[12]}};
      float y[kCount][4];
#pragma unroll
      for (int n = 0; n < kCount; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) y[n][e] = right[8 * n * kPitch<D> + column + 4 * e];
      }
      multiply_step(large, small, Left(x[0], x[1]), y);
    }
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) block[n][e] += large[n][e] + small[n][e];
    }
  }
}

// The lane's place for that.
template <int D>
__device__ __forceinline__ int columns_place(const Lane& lane) {
  return lane.row * kPitch<D> + lane.column;
}

// Copies kRows rows from `first` on, `stride` floats apart, into shared memory; those from `count` on become 0.
template <int D, int kRows, int kThreads>
__device__ __forceinline__ void copy_rows(float* to, const float* from, int64_t stride, int first, int count,
                                          int thread) {
  constexpr int kVectors = D / 4;  // of 16 bytes
  static_assert(kRows * kVectors % kThreads == 0, "every thread has as many vectors");
  asm volatile("" : "+r"(thread));  // or the loops around keep all addresses in registers
#pragma unroll
  for (int i = 0; i < kRows * kVectors / kThreads; ++i) {
    const int unit = i * kThreads + thread, row = unit / kVectors, column = unit % kVectors * 4;
    const bool exists = first + row < count;
    ptx::cp_async_16(ptx::shared_address(to + row * kPitch<D> + column),
                     from + (exists ? first + row : 0) * stride + column, exists);
  }
}

// sum += the sums of the block's other groups of warps, in order, through shared memory that nobody uses any more; the
// first group's is complete then. `factor` scales the own sum, `weight` tells that of another group's rows.
template <int D>
__device__ __forceinline__ void put_sum(float* to, const float (&sum)[D / 8][4], int thread, int threads) {
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
    reinterpret_cast<float4*>(to)[n * threads + thread] = make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
  }
}
template <int D>
__device__ __forceinline__ void add_sum(float (&sum)[D / 8][4], const float (&own)[2], const float* from,
                                        const float (&theirs)[2], int thread, int threads) {
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
    const float4 x = reinterpret_cast<const float4*>(from)[n * threads + thread];
    sum[n][0] = fmaf(sum[n][0], own[0], x.x * theirs[0]);
    sum[n][1] = fmaf(sum[n][1], own[0], x.y * theirs[0]);
    sum[n][2] = fmaf(sum[n][2], own[1], x.z * theirs[1]);
    sum[n][3] = fmaf(sum[n][3], own[1], x.w * theirs[1]);
  }
}

// Of a warp's rows g and g + 8 from `first` on: the sum times a factor, to rows `stride` floats apart; where `add`, to
// what is there.
template <int D>
__device__ __forceinline__ void write_rows(float* to, int64_t stride, int first, int count,
                                           const float (&sum)[D / 8][4], const float (&factor)[2], bool add) {
  const Lane lane;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first + lane.row + 8 * r;
    if (row >= count) continue;
    auto* const at = reinterpret_cast<float2*>(to + row * stride + 2 * lane.column);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      float2 x = make_float2(sum[n][2 * r] * factor[r], sum[n][2 * r + 1] * factor[r]);
      if (add) {
        const float2 before = at[4 * n];
        x.x += before.x, x.y += before.y;
      }
      at[4 * n] = x;
    }
  }
}

}  // namespace vsa::cuda::coarse
