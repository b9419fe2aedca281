#pragma once

#include "cuda/ptx/cp_async.h"
#include "ops/selection.h"

// Scores of some query tiles with some key tiles of one head, in plain fp32: products are added in the order of the
// channels.
//
// A block is one product: the lanes of a warp stand 4 x 8 over it and have 4 kRowGroups x 4 kColumnGroups sums each.
// Channels pass through shared memory in stages, transposed on the way in, [channel][row], by copies of one element.
// So a read brings four rows of one channel in neighbouring registers. Registers of even and of odd number come from
// different banks; a read of four channels of one row would leave half of all products with key and sum in one bank.
namespace vsa::cuda::selection {

template <int kRowGroups_, int kColumnGroups_, int kBlocks_>
struct Shape {
  static constexpr int kRowGroups = kRowGroups_, kColumnGroups = kColumnGroups_;  // of four, of a lane
  static constexpr int kLaneRows = 4 * kRowGroups, kLaneColumns = 4 * kColumnGroups;
  static constexpr int kWarps = 2;  // side by side over the columns
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBlocks = kBlocks_;                    // an SM should hold: bounds the registers
  static constexpr int kRows = 4 * kLaneRows;                 // query tiles
  static constexpr int kColumns = 8 * kLaneColumns * kWarps;  // key tiles
  static constexpr int kSlice = 16;                           // channels of a stage
  static constexpr int kStages = 3;
  static constexpr int kPitch = (kRows + kColumns) / 8 * 8 + 4;  // floats of a channel: an odd number of vectors
  static constexpr int kStage = kSlice * kPitch;
  static constexpr int kSharedBytes = kStages * kStage * 4;
  static_assert((kRows + kColumns) % 8 == 0, "rows of different channels meet different banks");
};

struct ScoreBlock {
  const float* q;  // of this batch and head: row 0
  const float* k;
  int32_t q_stride, k_stride;  // floats from tile to tile
  int Nq, Nk, D;
  int first_row, first_column;
  float scale;
  float* scores;  // row first_row, column 0
  int row_stride;
  bool wide;  // rows of scores allow 16-byte stores
};

// A lane's place: with these bits, reads of either operand have equal addresses in lanes that differ in bit 0 or 1
// only, which shared memory serves in half the time.
struct Lane {
  int row, column;
  __device__ __forceinline__ Lane() {
    const int lane = threadIdx.x % 32;
    row = (lane & 1) | (lane >> 3 & 2);
    column = lane >> 1 & 7;
  }
};

// One operand of a block, as a thread copies it: one channel of every kStep-th row. There is no copy of a row that does
// not exist: nobody uses the sums of what lies there instead. Channels that do not exist are 0.
template <class S, int kCount>
struct Operand {
  static constexpr int kStep = S::kThreads / S::kSlice;
  static_assert(kCount % kStep == 0, "every thread has as many rows");
  const float* from;  // the thread's first row and next channel
  int64_t step;       // floats from one of its rows to the next
  int left;           // rows that exist, from its first on
  bool whole;         // all of the block's do

  __device__ __forceinline__ Operand(const float* tensor, int32_t stride, int first, int rows)
      : from(tensor + static_cast<int64_t>(first + row()) * stride + channel()),
        step(static_cast<int64_t>(kStep) * stride),
        left(rows - first - row()),
        whole(first + kCount <= rows) {}
  __device__ __forceinline__ static int channel() { return threadIdx.x % S::kSlice; }
  __device__ __forceinline__ static int row() { return threadIdx.x / S::kSlice; }

  // The next slice, of which `channels` exist.
  __device__ __forceinline__ void copy(float* stage, int channels) {
    float* const to = stage + channel() * S::kPitch + row();
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    const float* row = from;
    if (channel() >= channels) {
#pragma unroll 1
      for (int i = 0; i < kCount; i += kStep) to[i] = 0.0f;
    } else if (whole) {
#pragma unroll
      for (int i = 0; i < kCount; i += kStep, row += step) ptx::cp_async_4(shared + 4 * i, row);
    } else {
#pragma unroll 8
      for (int i = 0; i < kCount; i += kStep, row += step) {
        if (i < left) ptx::cp_async_4(shared + 4 * i, row);
      }
    }
    from += S::kSlice;
  }
};

// sums[m][n] += the products of a stage's channels, for the lane's query tile m and key tile n. Twice unrolled 8 x 8
// sums would have key and sum in one bank nearly everywhere (the compiler's choice; seen in the machine code).
template <class S>
__device__ __forceinline__ void multiply(const float* q, const float* k, float (&sums)[S::kLaneRows][S::kLaneColumns]) {
  constexpr int kUnroll = S::kRowGroups == 2 ? 1 : 2;
#pragma unroll kUnroll
  for (int c = 0; c < S::kSlice; ++c) {
    float left[S::kLaneRows], right[S::kLaneColumns];
#pragma unroll
    for (int g = 0; g < S::kRowGroups; ++g) {
      const float4 x = *reinterpret_cast<const float4*>(q + c * S::kPitch + g * 16);
      left[4 * g] = x.x, left[4 * g + 1] = x.y, left[4 * g + 2] = x.z, left[4 * g + 3] = x.w;
    }
#pragma unroll
    for (int g = 0; g < S::kColumnGroups; ++g) {
      const float4 x = *reinterpret_cast<const float4*>(k + c * S::kPitch + g * 32);
      right[4 * g] = x.x, right[4 * g + 1] = x.y, right[4 * g + 2] = x.z, right[4 * g + 3] = x.w;
    }
#pragma unroll
    for (int m = 0; m < S::kLaneRows; ++m) {
#pragma unroll
      for (int i = 0; i < S::kLaneColumns; ++i) {
        const int n = m % 2 == 0 ? i : S::kLaneColumns - 1 - i;  // to and fro: a turn keeps the key
        sums[m][n] = fmaf(left[m], right[n], sums[m][n]);
      }
    }
  }
}

template <class S>
__device__ __forceinline__ void score(const ScoreBlock& p, float* stages) {
  const Lane lane;
  const int warp = threadIdx.x / 32;
  const int q_at = lane.row * 4, k_at = S::kRows + (warp * S::kColumnGroups * 8 + lane.column) * 4;
  const int slices = (p.D + S::kSlice - 1) / S::kSlice;
  Operand<S, S::kRows> queries(p.q, p.q_stride, p.first_row, p.Nq);
  Operand<S, S::kColumns> keys(p.k, p.k_stride, p.first_column, p.Nk);
  const auto load = [&](int slice, int at) {
    if (slice < slices) {
      queries.copy(stages + at * S::kStage, p.D - slice * S::kSlice);
      keys.copy(stages + at * S::kStage + S::kRows, p.D - slice * S::kSlice);
    }
    ptx::cp_async_commit();
  };
  float sums[S::kLaneRows][S::kLaneColumns] = {};
#pragma unroll 1
  for (int slice = 0; slice + 1 < S::kStages; ++slice) load(slice, slice);
  int at = 0;
#pragma unroll 1
  for (int slice = 0; slice < slices; ++slice) {
    ptx::cp_async_wait<S::kStages - 2>();
    __syncthreads();  // this stage is there, and nobody reads the one before any more
    load(slice + S::kStages - 1, at == 0 ? S::kStages - 1 : at - 1);
    const float* const stage = stages + at * S::kStage;
    multiply<S>(stage + q_at, stage + k_at, sums);
    at = at == S::kStages - 1 ? 0 : at + 1;
  }

  const int first_column = p.first_column + (warp * S::kColumnGroups * 8 + lane.column) * 4;
#pragma unroll
  for (int m = 0; m < S::kLaneRows; ++m) {
    const int row = m / 4 * 16 + lane.row * 4 + m % 4;
    if (p.first_row + row >= p.Nq) continue;
    float* const to = p.scores + static_cast<int64_t>(row) * p.row_stride;
#pragma unroll
    for (int g = 0; g < S::kColumnGroups; ++g) {
      const int column = first_column + g * 32;
      float x[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) x[e] = __fmul_rn(sums[m][4 * g + e], p.scale);
      if (p.wide && column < p.Nk) {  // what a vector has beyond the last column goes to the row's padding
        *reinterpret_cast<float4*>(to + column) = make_float4(x[0], x[1], x[2], x[3]);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (column + e < p.Nk) to[column + e] = x[e];
        }
      }
    }
  }
}

}  // namespace vsa::cuda::selection
