#pragma once

#include "cuda/ptx/cp_async.h"
#include "cuda/ptx/named_barrier.h"
#include "ops/selection.h"

// Scores of a block of query tiles, in plain fp32: products are added in the order of the channels.
//
// A warp makes kRows x kChunk scores, a lane kRows x kColumns of them in registers: for four channels it reads kRows
// vectors of q, the same for all lanes, and kColumns of k. Two warps share the keys of a chunk and have kRows query
// tiles each. Keys pass through two stages of kRows channels.
namespace vsa::cuda::selection {

template <int kRows_, int kColumns_, int kRowLanes_>
struct Shape {
  static_assert(kRows_ == 8 || kRows_ == 16, "the swizzle is for 8 or 16 channels a stage");
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kRowLanes = kRowLanes_, kColumnLanes = 32 / kRowLanes;
  static constexpr int kLaneRows = kRows / kRowLanes, kLaneColumns = kColumns * kRowLanes;
  static constexpr int kBlock = 2 * kRows;        // query tiles
  static constexpr int kChunk = 32 * kColumns;    // key tiles that a pair of warps scores together
  static constexpr int kSlice = kRows;            // channels of a stage
  static constexpr int kQuads = kSlice / 4;       // 16-byte pieces of a row of a stage
  static constexpr int kStage = kChunk * kSlice;  // floats
  static constexpr int kMaxPairs = 2;             // of warps in a block: four blocks an SM, 128 registers a thread

  // Channels, filled up with zeros to whole stages.
  static int64_t padded(int64_t D) { return (D + kSlice - 1) / kSlice * kSlice; }

  // Where piece `quad` of row `row` of a stage lies, in floats: eight lanes that read the same piece of neighbouring
  // rows meet eight different quarters of the banks. Rows 8 apart have the same place in theirs.
  __device__ __forceinline__ static int swizzled(int row, int quad) {
    return row * kSlice + ((quad ^ (row / (8 / kQuads) & (kQuads - 1))) << 2);
  }
};

struct ScoreBlock {
  const float* k;    // of this batch and kv head: row 0
  int64_t k_stride;  // floats from key tile to key tile
  int Nk, D;
  bool wide;  // 16-byte copies are possible
  float scale;
  int slices;      // stages of channels
  int rows;        // query tiles there are, up to kBlock
  const float* q;  // shared: [slices][kBlock][kSlice]
  float* stages;   // shared: two stages of every pair
  float* scores;   // row of the first query tile
  int64_t row_stride;
};

// Copies four channels of a row, of which `channels` exist; the rest are zeros. Where D or an address does not allow
// 16-byte copies it is made at once, else it is under way when this returns.
__device__ __forceinline__ void stage_piece(const float* from, const float* readable, int channels, bool wide,
                                            float* to) {
  if (wide) {
    ptx::cp_async_16(static_cast<uint32_t>(__cvta_generic_to_shared(to)), channels > 0 ? from : readable, channels > 0);
  } else {
#pragma unroll 1
    for (int e = 0; e < 4; ++e) to[e] = e < channels ? from[e] : 0.0f;
  }
}

// The query tiles of a block into shared memory, by all its threads. They are there when the first keys are.
template <class S>
__device__ __forceinline__ void load_queries(const float* first, int64_t stride, int rows, int D, bool wide, int slices,
                                             float* q) {
#pragma unroll 1
  for (int i = threadIdx.x; i < slices * S::kBlock * S::kQuads; i += blockDim.x) {
    const int row = i / S::kQuads % S::kBlock, slice = i / (S::kQuads * S::kBlock);
    const int channel = slice * S::kSlice + i % S::kQuads * 4;
    stage_piece(first + row * stride + channel, first, row < rows ? D - channel : 0, wide, q + 4 * i);
  }
  ptx::cp_async_commit();
}

// One stage of a chunk's keys, by a pair of warps.
template <class S>
__device__ __forceinline__ void load_keys(const ScoreBlock& p, int chunk, int slice, float* stage, int thread) {
  constexpr int kStep = 64 / S::kQuads, kPieces = S::kChunk / kStep;  // a thread's pieces, kStep rows apart
  static_assert(kStep % 8 == 0 && S::kChunk % kStep == 0, "the swizzle does not see the step");
  const int row = thread / S::kQuads, quad = thread % S::kQuads, channel = slice * S::kSlice + 4 * quad;
  const int first = chunk * S::kChunk + row;
  const float* from = p.k + first * p.k_stride + channel;
  float* to = stage + S::swizzled(row, quad);
  if (p.wide && (chunk + 1) * S::kChunk <= p.Nk && (slice + 1) * S::kSlice <= p.D) {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      ptx::cp_async_16(shared + static_cast<uint32_t>(i * kStep * S::kSlice * sizeof(float)), from);
      from += kStep * p.k_stride;
    }
  } else {
#pragma unroll 1
    for (int i = 0; i < kPieces; ++i) {
      stage_piece(from, p.k, first + i * kStep < p.Nk ? p.D - channel : 0, p.wide, to + i * kStep * S::kSlice);
      from += kStep * p.k_stride;
    }
  }
  ptx::cp_async_commit();
}

// sums[m][n] += the products of a stage's channels, for the lane's query tile m and key tile n.
template <class S>
__device__ __forceinline__ void multiply(const float* q, const float* k, int lane,
                                         float (&sums)[S::kLaneRows][S::kLaneColumns]) {
  q += lane / S::kColumnLanes * S::kSlice;  // neighbouring query tiles at a time: they lie in different banks
  static_assert(S::kColumnLanes % 8 == 0, "the swizzle is the same for all of a lane's key tiles");
#pragma unroll 1
  for (int quad = 0; quad < S::kQuads; ++quad) {
    float4 keys[S::kLaneColumns];
    const float* piece = k + S::swizzled(lane % S::kColumnLanes, quad);
#pragma unroll
    for (int n = 0; n < S::kLaneColumns; ++n) {
      keys[n] = *reinterpret_cast<const float4*>(piece + n * S::kColumnLanes * S::kSlice);
    }
#pragma unroll
    for (int m = 0; m < S::kLaneRows; ++m) {
      const float4 query = *reinterpret_cast<const float4*>(q + m * S::kRowLanes * S::kSlice + 4 * quad);
      // Channel by channel, so that neighbouring instructions have different sums and the same channel of q.
#pragma unroll
      for (int n = 0; n < S::kLaneColumns; ++n) sums[m][n] = fmaf(query.x, keys[n].x, sums[m][n]);
#pragma unroll
      for (int n = 0; n < S::kLaneColumns; ++n) sums[m][n] = fmaf(query.y, keys[n].y, sums[m][n]);
#pragma unroll
      for (int n = 0; n < S::kLaneColumns; ++n) sums[m][n] = fmaf(query.z, keys[n].z, sums[m][n]);
#pragma unroll
      for (int n = 0; n < S::kLaneColumns; ++n) sums[m][n] = fmaf(query.w, keys[n].w, sums[m][n]);
    }
  }
}

// Scores of the chunk of a pair of warps, if there is one. Pairs do not wait for each other: in step they were slower.
template <class S>
__device__ __forceinline__ void score(const ScoreBlock& p, int chunk, bool exists, int warp, int lane) {
  const int pair = warp >> 1, half = warp & 1, thread = half * 32 + lane;
  float* const stages = p.stages + pair * 2 * S::kStage;
  float sums[S::kLaneRows][S::kLaneColumns] = {};
  if (exists) load_keys<S>(p, chunk, 0, stages, thread);
#pragma unroll 1
  for (int slice = 0; slice < p.slices; ++slice) {
    ptx::cp_async_wait<0>();
    // Now this stage is there, and nobody reads the other one any more. The query tiles come from all warps.
    if (slice == 0) {
      __syncthreads();
    } else {
      ptx::named_barrier_sync(1 + pair, 64);
    }
    if (!exists) continue;
    if (slice + 1 < p.slices) load_keys<S>(p, chunk, slice + 1, stages + ((slice + 1) & 1) * S::kStage, thread);
    multiply<S>(p.q + (slice * S::kBlock + half * S::kRows) * S::kSlice, stages + (slice & 1) * S::kStage, lane, sums);
  }
  if (!exists) return;
  const int row = half * S::kRows + lane / S::kColumnLanes;
  const int column = chunk * S::kChunk + lane % S::kColumnLanes;
  float* to = p.scores + row * p.row_stride + column;
#pragma unroll
  for (int m = 0; m < S::kLaneRows; ++m, to += S::kRowLanes * p.row_stride) {
    if (row + m * S::kRowLanes >= p.rows) break;
#pragma unroll
    for (int n = 0; n < S::kLaneColumns; ++n) {
      if (column + n * S::kColumnLanes < p.Nk) to[n * S::kColumnLanes] = __fmul_rn(sums[m][n], p.scale);
    }
  }
}

}  // namespace vsa::cuda::selection
