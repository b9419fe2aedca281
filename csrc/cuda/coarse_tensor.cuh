#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/ptx/cp_async.h"
#include "cuda/ptx/ldmatrix.h"
#include "cuda/ptx/math.h"
#include "cuda/ptx/mma.h"

// Coarse attention on tensor cores, as accurate as fp32. An fp32 number is, to 2^-23 of itself, the sum of two fp16
// numbers, if a power of two brings it into their range. So a pass over the inputs (coarse_split.cu) leaves
//   row = unit * (high + low),  |high| below 2^15,  unit a power of two for every row,
// and a product of two rows is unit * unit * (high high + high low + low high): three products of tensor cores, in fp32
// sums (low low is below what those sums hold). Units of the rows that a sum runs over go into its other operand: into
// the probabilities and the gradients of the scores, relative to the largest unit of the head.
//
// Tensor cores cut sums off, they do not round them. Their sums are kept short: at most D long, the small products in
// sums of their own, or kTile long and added to the rest by the CUDA cores.
namespace vsa::cuda::coarse {

inline constexpr int kTile = 32;          // keys or queries that are gone through at once
inline constexpr int kBackwardRows = 64;  // queries or keys of a block of the backward

// Bytes of a row in shared memory: high, low, and 16 more, so that eight rows lie in different banks.
template <int D>
inline constexpr int kPitch = 4 * D + 16;

struct QueryRow {
  float unit;   // of q
  float dunit;  // of doutput; backward only
  float lse;    // +inf where it is -inf, so that probabilities are 0; backward only
  float delta;  // rowsum(output * doutput) / dunit; backward only
};

struct KeyRow {
  float unit;   // of k
  float vunit;  // of v
};

// The inputs, split. Rows of a head are neighbours.
struct Split {
  __half* q;             // [B, H, Nq, 2, D]
  __half* k;             // [B, Hkv, Nk, 2, D]
  __half* v;             // [B, Hkv, Nk, 2, D]
  __half* doutput;       // [B, H, Nq, 2, D]; null in the forward
  QueryRow* query_rows;  // [B, H, Nq]
  KeyRow* key_rows;      // [B, Hkv, Nk]
};

Split split(const CoarseForward&, const Launch&);
Split split(const CoarseBackward&, const Launch&);

// Whether the kernels serve a problem on this GPU.
bool tensor_serves(const CoarseForward&, const Launch&);
bool tensor_serves(const CoarseBackward&, const Launch&);

void launch_tensor(const CoarseForward&, const Launch&);
void launch_tensor(const CoarseBackward&, const Launch&);

// Copies `kRows` rows from `first` on into shared memory; those from `count` on become 0.
template <int D, int kRows, int kThreads>
__device__ __forceinline__ void copy_rows(uint32_t to, const __half* head, int32_t first, int32_t count, int thread) {
  constexpr int kVectors = D / 4;  // of 16 bytes
  static_assert(kRows * kVectors % kThreads == 0, "every thread has as many vectors");
  asm volatile("" : "+r"(thread));  // or the loops around keep all addresses in registers
#pragma unroll
  for (int i = 0; i < kRows * kVectors / kThreads; ++i) {
    const int unit = i * kThreads + thread, row = unit / kVectors, vector = unit % kVectors;
    const bool exists = first + row < count;
    const __half* from = head + static_cast<int64_t>(exists ? first + row : 0) * (2 * D) + 8 * vector;
    ptx::cp_async_16(to + row * kPitch<D> + 16 * vector, from, exists);
  }
}

// Where a lane reads, in bytes from a block's first row. Rows of the left operand, and of the right one where its rows
// are the columns of the product; and rows of the right one that are summed over.
template <int D>
__device__ __forceinline__ uint32_t left_lane() {
  const int lane = threadIdx.x % 32;
  return lane % 16 * kPitch<D> + lane / 16 * 16;
}
template <int D>
__device__ __forceinline__ uint32_t right_lane() {
  const int lane = threadIdx.x % 32;
  return (lane / 16 * 8 + lane % 8) * kPitch<D> + lane / 8 % 2 * 16;
}
template <int D>
__device__ __forceinline__ uint32_t summed_lane() {
  return left_lane<D>();
}

// A warp's 16 x kTile block of a product, as mma.sync holds it: lane l has of rows l / 4 ([0], [1]) and l / 4 + 8 ([2],
// [3]) the columns 8 n + 2 (l % 4) and + 1.
using Block = float[kTile / 8][4];

// block = left . right^T, over D columns. The addresses are the lane's.
template <int D, int kUnroll>
__device__ __forceinline__ void multiply_rows(Block& block, uint32_t left, uint32_t right) {
  float small[kTile / 8][4] = {};
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) block[n][e] = 0;
  }
#pragma unroll kUnroll
  for (int k = 0; k < D / 16; ++k) {
    uint32_t high[4], low[4];
    ptx::ldmatrix_x4(high, left + 32 * k);
    ptx::ldmatrix_x4(low, left + 32 * k + 2 * D);
#pragma unroll
    for (int n = 0; n < kTile / 8; n += 2) {
      uint32_t other_high[4], other_low[4];
      ptx::ldmatrix_x4(other_high, right + n * 8 * kPitch<D> + 32 * k);
      ptx::ldmatrix_x4(other_low, right + n * 8 * kPitch<D> + 32 * k + 2 * D);
      ptx::mma_m16n8k16<__half>(block[n], high, other_high[0], other_high[1]);
      ptx::mma_m16n8k16<__half>(block[n + 1], high, other_high[2], other_high[3]);
      ptx::mma_m16n8k16<__half>(small[n], low, other_high[0], other_high[1]);
      ptx::mma_m16n8k16<__half>(small[n + 1], low, other_high[2], other_high[3]);
      ptx::mma_m16n8k16<__half>(small[n], high, other_low[0], other_low[1]);
      ptx::mma_m16n8k16<__half>(small[n + 1], high, other_low[2], other_low[3]);
    }
  }
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) block[n][e] += small[n][e];
  }
}

// A block as the left operand of a product: of numbers below 2^15.
struct SplitBlock {
  uint32_t high[kTile / 16][4], low[kTile / 16][4];

  __device__ __forceinline__ explicit SplitBlock(const Block& block) {
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float x = block[n][2 * r], y = block[n][2 * r + 1];
        const uint32_t pair = ptx::pack<__half>(x, y);
        const float2 back = __half22float2(*reinterpret_cast<const __half2*>(&pair));
        high[n / 2][n % 2 * 2 + r] = pair;
        low[n / 2][n % 2 * 2 + r] = ptx::pack<__half>(x - back.x, y - back.y);
      }
    }
  }
};

// sum = sum * factor + left . right, over kTile rows of `right`; factors of the lane's two rows. `kPause`: some of the
// columns first, for the compiler begins all of them at once if it may, and some callers have no registers for that.
template <int D, bool kPause>
__device__ __forceinline__ void multiply_block(float (&sum)[D / 8][4], const float (&factor)[2], const SplitBlock& left,
                                               uint32_t right) {
#pragma unroll
  for (int first = 0; first < D / 8; first += 4) {
    float part[4][4] = {};
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
#pragma unroll
      for (int n = 0; n < 4; n += 2) {
        uint32_t high[4], low[4];
        ptx::ldmatrix_x4_trans(high, right + k * 16 * kPitch<D> + (first + n) * 16);
        ptx::ldmatrix_x4_trans(low, right + k * 16 * kPitch<D> + (first + n) * 16 + 2 * D);
        ptx::mma_m16n8k16<__half>(part[n], left.low[k], high[0], high[1]);
        ptx::mma_m16n8k16<__half>(part[n + 1], left.low[k], high[2], high[3]);
        ptx::mma_m16n8k16<__half>(part[n], left.high[k], low[0], low[1]);
        ptx::mma_m16n8k16<__half>(part[n + 1], left.high[k], low[2], low[3]);
        ptx::mma_m16n8k16<__half>(part[n], left.high[k], high[0], high[1]);
        ptx::mma_m16n8k16<__half>(part[n + 1], left.high[k], high[2], high[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[first + n][e] = fmaf(sum[first + n][e], factor[e / 2], part[n][e]);
    }
    if (kPause) __syncwarp();
  }
}

// The same with a factor of 1.
template <int D>
__device__ __forceinline__ void add_block(float (&sum)[D / 8][4], const SplitBlock& left, uint32_t right) {
  const float one[2] = {1, 1};
  multiply_block<D, (D > 96)>(sum, one, left, right);
}

// The largest of a block's threads' values; `scratch` has room for a value a warp.
template <int kThreads>
__device__ __forceinline__ float block_max(float x, float* scratch) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, distance));
  __syncthreads();  // the last use of the scratch is over
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / 32; ++warp) x = fmaxf(x, scratch[warp]);
  return x;
}

// Of a warp's rows row and row + 8 (lane l: l / 4) of a head: the sum times a factor, to memory [.., H, D].
template <int D>
__device__ __forceinline__ void write_rows(float* head, int64_t stride, int32_t first, int32_t count,
                                           const float (&sum)[D / 8][4], const float (&factor)[2]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int32_t row = first + lane / 4 + 8 * r;
    if (row >= count) continue;
    float* to = head + row * stride + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      *reinterpret_cast<float2*>(to + 8 * n) = make_float2(sum[n][2 * r] * factor[r], sum[n][2 * r + 1] * factor[r]);
    }
  }
}

}  // namespace vsa::cuda::coarse
