#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/ptx/ldmatrix.h"
#include "cuda/ptx/mma.h"
#include "cuda/swizzle.h"

// Products of fp32 matrices on tensor cores, as accurate as fp32. A float is the sum of three bf16 numbers, of eight
// bits each, and a product that of the six largest products of parts (the others are below 2^-22 of it).
//
// Tensor cores cut sums off, they do not round them: a sum stays in them over 32 terms at most, the small products in a
// sum of their own, and is added to the rest by the CUDA cores.
//
// What all warps of a block multiply with lies in shared memory as its parts, split once; a warp's own rows are split
// in its registers. A warp has 16 rows of a product. Of blocks of 16 x 8, lane l, g = l / 4 and c = l % 4, has the
// elements
//   [0] (g, 2 c)  [1] (g, 2 c + 1)  [2] (g + 8, 2 c)  [3] (g + 8, 2 c + 1),
// as mma.sync leaves sums; two such blocks side by side are the left operand of a next product.
namespace vsa::cuda::coarse {

inline constexpr int kWarpRows = 16;
inline constexpr int kParts = 3;        // high, middle, low
inline constexpr int kGroupBlocks = 4;  // blocks of a group of columns, which are summed at once

struct Lane {
  int row, column;  // g and c
  __device__ __forceinline__ Lane() : row(threadIdx.x % 32 / 4), column(threadIdx.x % 4) {}
};

// Whose query tiles a warp has. Made anew where it is needed: it need not be kept through a loop.
struct Queries {
  int index, head;  // of the portion, of all
  int b, h;
  int first;  // row of the portion
  __device__ __forceinline__ Queries(int H, int first_head, int blocks_a_head, int block_rows, int warp) {
    int block;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
    index = block / blocks_a_head, head = first_head + index;
    b = head / H, h = head - b * H;
    first = (block - index * blocks_a_head) * block_rows + warp * kWarpRows;
  }
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

// The parts of kRows_ rows of kColumns_ floats in shared memory, one after the other.
template <int kRows_, int kColumns_>
struct Matrix {
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  using Place = Swizzle<kColumns>;
  static constexpr int kPartBytes = kRows * Place::kRowBytes, kBytes = kParts * kPartBytes;

  // Where a lane's address is, of four 8x8 matrices: as a left operand, or the right one of a product that sums over
  // its rows...
  __device__ __forceinline__ static uint32_t by_rows(uint32_t address, int first_row) {
    const int lane = threadIdx.x % 32;
    return address + first_row * Place::kRowBytes + Place::offset(lane % 16, lane / 16);
  }
  // ... and as the right one of a product that sums over its columns.
  __device__ __forceinline__ static uint32_t by_columns(uint32_t address, int first_row) {
    const int lane = threadIdx.x % 32;
    return address + first_row * Place::kRowBytes + Place::offset(lane % 8 + lane / 16 * 8, lane / 8 % 2);
  }
};

// What a block fetches into such a matrix, a share of it after the other: a thread has eight floats in registers
// between load and store. A matrix has as many shares as it has groups of 32 columns: while a warp multiplies with a
// group of one matrix, a share of the next comes.
template <class M, int kThreads>
struct Fetched {
  static constexpr int kShares = M::kColumns / 32, kRowVectors = M::kColumns / 8;
  static_assert(M::kRows * kRowVectors == kShares * kThreads, "a share is eight floats of every thread");
  float4 x, y;

  // row_at(row) is where a row lies, or null: zeros.
  template <class RowAt>
  __device__ __forceinline__ void load(int share, int thread, const RowAt& row_at) {
    asm volatile("" : "+r"(thread));  // or the loops around keep all addresses in registers
    const int vector = share * kThreads + thread;
    const float* const row = row_at(vector / kRowVectors);
    x = y = make_float4(0, 0, 0, 0);
    if (row == nullptr) return;
    const auto* const from = reinterpret_cast<const float4*>(row + vector % kRowVectors * 8);
    x = from[0], y = from[1];
  }

  __device__ __forceinline__ void store(int share, int thread, unsigned char* to) const {
    const int vector = share * kThreads + thread;
    uint4 part[kParts];
    split(x.x, x.y, part[0].x, part[1].x, part[2].x);
    split(x.z, x.w, part[0].y, part[1].y, part[2].y);
    split(y.x, y.y, part[0].z, part[1].z, part[2].z);
    split(y.z, y.w, part[0].w, part[1].w, part[2].w);
    to += M::Place::offset(vector / kRowVectors, vector % kRowVectors);
#pragma unroll
    for (int p = 0; p < kParts; ++p) *reinterpret_cast<uint4*>(to + p * M::kPartBytes) = part[p];
  }
};

using Block = float[4];

// 16 terms of a warp's rows.
struct Left {
  uint32_t part[kParts][4];

  // Two blocks side by side.
  __device__ __forceinline__ void take(const Block& x, const Block& y) {
    split(x[0], x[1], part[0][0], part[1][0], part[2][0]);
    split(x[2], x[3], part[0][1], part[1][1], part[2][1]);
    split(y[0], y[1], part[0][2], part[1][2], part[2][2]);
    split(y[2], y[3], part[0][3], part[1][3], part[2][3]);
  }
  // Columns from 8 `chunk` on of rows that lie in shared memory; M::by_rows gives the address.
  template <class M>
  __device__ __forceinline__ void read(uint32_t address, int chunk) {
#pragma unroll
    for (int p = 0; p < kParts; ++p) ptx::ldmatrix_x4(part[p], M::Place::advance(address, chunk) + p * M::kPartBytes);
  }
};

// A branch on it keeps the compiler from working on what comes before and after at once. It would run out of registers,
// and have a warp wait for what it has fetched ahead of products that it could do.
__device__ __forceinline__ bool never() {
  return blockIdx.z > 0;  // grids here have one layer
}

// 16 terms of a product, for kCount blocks side by side: large[n] += the products of the high parts, small[n] += the
// others that count. load(p, n, r) brings part p of the right operand's blocks n and n + 1. A part at a time: that
// takes the fewest registers.
template <int kCount, class Load>
__device__ __forceinline__ void multiply_step(float (&large)[kCount][4], float (&small)[kCount][4], const Left& left,
                                              const Load& load) {
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    uint32_t right[kCount / 2][4];
#pragma unroll
    for (int n = 0; n < kCount; n += 2) load(p, n, right[n / 2]);
#pragma unroll
    for (int a = 0; a + p < kParts; ++a) {
#pragma unroll
      for (int n = 0; n < kCount; ++n) {
        const uint32_t(&x)[4] = right[n / 2];
        ptx::mma_m16n8k16<__nv_bfloat16>(a + p == 0 ? large[n] : small[n], left.part[a], x[n % 2 * 2],
                                         x[n % 2 * 2 + 1]);
      }
    }
  }
}

// sum[begin + n] = sum[begin + n] * factor + left . right, for the blocks n of a group of right's columns. Right has
// 16 kSteps rows; M::by_rows gives their address. Factors of the lane's two rows.
template <class M, int kSteps, int kBlocks>
__device__ __forceinline__ void multiply_rows(float (&sum)[kBlocks][4], int begin, const float (&factor)[2],
                                              const Left (&left)[kSteps], uint32_t right, int group) {
  static_assert(kSteps <= 2, "longer sums would lose bits");
  asm volatile("" : "+r"(right));  // or loops around keep all addresses in registers
  float large[kGroupBlocks][4] = {}, small[kGroupBlocks][4] = {};
#pragma unroll
  for (int t = 0; t < kSteps; ++t) {
    multiply_step(large, small, left[t], [&](int p, int n, uint32_t(&r)[4]) {
      const uint32_t at = M::Place::advance(right, kGroupBlocks * group + n) + 16 * t * M::Place::kRowBytes;
      ptx::ldmatrix_x4_trans(r, at + p * M::kPartBytes);
    });
  }
#pragma unroll
  for (int n = 0; n < kGroupBlocks; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float& to = sum[begin + kGroupBlocks * group + n][e];
      to = fmaf(to, factor[e / 2], large[n][e] + small[n][e]);
    }
  }
}

// block[n] += left . right^T over a group of right's columns, for 8 kCount rows of right. Left's columns from
// 8 `chunk` on. L::by_rows and M::by_columns give the addresses.
template <class L, class M, int kCount>
__device__ __forceinline__ void multiply_columns(float (&block)[kCount][4], uint32_t left, int chunk, uint32_t right,
                                                 int group) {
  static_assert(kCount % 2 == 0, "ldmatrix brings two blocks of rows");
  asm volatile("" : "+r"(left), "+r"(right));  // as above
  float large[kCount][4] = {}, small[kCount][4] = {};
#pragma unroll
  for (int column = kGroupBlocks * group; column < kGroupBlocks * (group + 1); column += 2) {
    Left a;
    a.read<L>(left, chunk + column);
    multiply_step(large, small, a, [&](int p, int n, uint32_t(&r)[4]) {
      const uint32_t at = M::Place::advance(right, column) + 8 * n * M::Place::kRowBytes;
      ptx::ldmatrix_x4(r, at + p * M::kPartBytes);
    });
  }
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) block[n][e] += large[n][e] + small[n][e];
  }
}

// sum += the sums of the block's other groups of warps, in order, through shared memory that nobody uses any more; the
// first group's is complete then. `own` scales the lane's sum, `theirs` another group's.
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
