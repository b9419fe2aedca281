#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/ptx/cp_async.h"
#include "cuda/ptx/ldmatrix.h"
#include "cuda/ptx/mma.h"

// Products of fp32 matrices on tensor cores, as accurate as fp32. A float is, to 2^-23 of itself, the sum of two tf32
// numbers, high and low, and a product is high high + high low + low high (low low is below what the sums hold).
//
// Tensor cores cut sums off, they do not round them: a sum stays in them over 32 terms at most, the small products in a
// sum of their own, and is added to the rest by the CUDA cores.
//
// A warp has 16 rows of a product. Of blocks of 16 x 8, lane l, g = l / 4 and c = l % 4, has the elements
//   [0] (g, 2 c)  [1] (g, 2 c + 1)  [2] (g + 8, 2 c)  [3] (g + 8, 2 c + 1),
// as mma.sync leaves sums. The same block is the left operand of a next product, if that goes through its eight rows of
// the right operand in the order 0, 2, 4, 6, 1, 3, 5, 7.
namespace vsa::cuda::coarse {

inline constexpr int kWarpRows = 16;

// Floats of a row in shared memory: 4 more, so that what a warp reads at once lies in 32 banks.
template <int D>
inline constexpr int kPitch = D + 4;

struct Lane {
  int row, column;  // g and c
  __device__ __forceinline__ Lane() : row(threadIdx.x % 32 / 4), column(threadIdx.x % 4) {}
};

// high is rounded; of low the tensor cores take what they can hold.
__device__ __forceinline__ void split(float x, uint32_t& high, uint32_t& low) {
  high = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
  low = __float_as_uint(x - __uint_as_float(high));
}

using Block = float[4];

// A block as a left operand.
struct LeftBlock {
  uint32_t high[4], low[4];
  __device__ __forceinline__ explicit LeftBlock(const Block& x) {
    split(x[0], high[0], low[0]);
    split(x[2], high[1], low[1]);
    split(x[1], high[2], low[2]);
    split(x[3], high[3], low[3]);
  }
};

// large[n] += the large products of a step of 8 terms, small[n] += the small ones, for kCount blocks side by side.
template <int kCount>
__device__ __forceinline__ void multiply_step(float (&large)[kCount][4], float (&small)[kCount][4],
                                              const LeftBlock& left, const float (&right)[kCount][2]) {
  uint32_t high[kCount][2], low[kCount][2];
#pragma unroll
  for (int n = 0; n < kCount; ++n) split(right[n][0], high[n][0], low[n][0]), split(right[n][1], high[n][1], low[n][1]);
#pragma unroll
  for (int n = 0; n < kCount; ++n) ptx::mma_m16n8k8_tf32(large[n], left.high, high[n][0], high[n][1]);
#pragma unroll
  for (int n = 0; n < kCount; ++n) ptx::mma_m16n8k8_tf32(small[n], left.low, high[n][0], high[n][1]);
#pragma unroll
  for (int n = 0; n < kCount; ++n) ptx::mma_m16n8k8_tf32(small[n], left.high, low[n][0], low[n][1]);
}

// sum = sum * factor + left . right: left has kSteps blocks side by side, right as many times eight rows of shared
// memory, `kPitch<D>` apart, at the lane's row 2 c and column g of the first of kColumns. Factors of the lane's two
// rows. Two blocks of columns and two of rows at once: more would cost registers.
template <int D, int kColumns, int kSteps>
__device__ __forceinline__ void multiply_rows(float (&sum)[kColumns / 8][4], const float (&factor)[2],
                                              const float (&left)[kSteps][4], const float* right) {
  constexpr int kCount = 2, kDepth = kSteps % 2 == 0 ? 2 : 1;
  static_assert(kColumns % (8 * kCount) == 0, "pairs of blocks");
#pragma unroll
  for (int depth = 0; depth < kSteps; depth += kDepth) {
    const LeftBlock blocks[2] = {LeftBlock(left[depth]), LeftBlock(left[depth + kDepth - 1])};
#pragma unroll
    for (int first = 0; first < kColumns / 8; first += kCount) {
      float large[kCount][4] = {}, small[kCount][4] = {};
#pragma unroll
      for (int t = 0; t < kDepth; ++t) {
        float x[kCount][2];
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
          x[n][0] = right[8 * (depth + t) * kPitch<D> + 8 * (first + n)];
          x[n][1] = right[(8 * (depth + t) + 1) * kPitch<D> + 8 * (first + n)];
        }
        multiply_step(large, small, blocks[t], x);
      }
#pragma unroll
      for (int n = 0; n < kCount; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& to = sum[first + n][e];
          const float x = large[n][e] + small[n][e];
          to = depth == 0 ? fmaf(to, factor[e / 2], x) : to + x;
        }
      }
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
    for (int column = 0; column < 32; column += 8) {
      const float* a = left + first + column;
      const float x[4] = {a[0], a[4], a[8 * kPitch<D>], a[8 * kPitch<D> + 4]};
      float y[kCount][2];
#pragma unroll
      for (int n = 0; n < kCount; ++n) {
        y[n][0] = right[8 * n * kPitch<D> + first + column], y[n][1] = right[8 * n * kPitch<D> + first + column + 4];
      }
      multiply_step(large, small, LeftBlock(x), y);
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
  constexpr int kVectors = D / 4;   // of 16 bytes
  asm volatile("" : "+r"(thread));  // or the loops around keep all addresses in registers
#pragma unroll
  for (int i = 0; i < (kRows * kVectors + kThreads - 1) / kThreads; ++i) {
    const int unit = i * kThreads + thread, row = unit / kVectors, column = unit % kVectors * 4;
    if (kRows * kVectors % kThreads != 0 && unit >= kRows * kVectors) break;
    const bool exists = first + row < count;
    ptx::cp_async_16(ptx::shared_address(to + row * kPitch<D> + column),
                     from + (exists ? first + row : 0) * stride + column, exists);
  }
}

// A sum goes through shared memory to the same thread of another group of warps, which adds it to its own: each times
// factors of the lane's two rows.
template <int kCount>
__device__ __forceinline__ void put_sum(float* to, const float (&sum)[kCount][4], int thread, int threads) {
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
    reinterpret_cast<float4*>(to)[n * threads + thread] = make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
  }
}
template <int kCount>
__device__ __forceinline__ void add_sum(float (&sum)[kCount][4], const float (&own)[2], const float* from,
                                        const float (&theirs)[2], int thread, int threads) {
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
    const float4 x = reinterpret_cast<const float4*>(from)[n * threads + thread];
    sum[n][0] = fmaf(sum[n][0], own[0], x.x * theirs[0]);
    sum[n][1] = fmaf(sum[n][1], own[0], x.y * theirs[0]);
    sum[n][2] = fmaf(sum[n][2], own[1], x.z * theirs[1]);
    sum[n][3] = fmaf(sum[n][3], own[1], x.w * theirs[1]);
  }
}

// Of a warp's rows g and g + 8 from `first` on: the sum times a factor, to rows `stride` floats apart; where `add`, to
// what is there.
template <int kCount>
__device__ __forceinline__ void write_rows(float* to, int64_t stride, int first, int count,
                                           const float (&sum)[kCount][4], const float (&factor)[2], bool add) {
  const Lane lane;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first + lane.row + 8 * r;
    if (row >= count) continue;
    auto* const at = reinterpret_cast<float2*>(to + row * stride + 2 * lane.column);
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
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
