#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/tile_lists.h"
#include "cuda/ptx/cp_async.h"
#include "cuda/tile_layout.h"

// The parts of the fp32 attention kernels: plain FFMA on the CUDA cores, so that results are fp32 to the last bits.
//
// A block of 128 threads keeps rows of one tile in shared memory (the residents) and walks a list of other tiles. Of
// those it streams chunks of 8 KB through a ring, two chunks ahead, also from tile to tile:
//   depth chunks, 64 rows x 32 columns:  block += residents . chunk^T   (scores, and the gradients of P)
//   row chunks, 16 rows x D columns:     sum += block . chunk           (outputs and gradients)
// Rows that do not exist (padding) are filled with zeros on the way in, so their bits never reach a product.
namespace vsa::cuda::f32 {

inline constexpr int kThreads = 128;
inline constexpr int kStages = 3;
inline constexpr int kDepth = 32;                // columns of a depth chunk
inline constexpr int kDepthStride = kDepth + 4;  // 4 more: eight rows lie in eight different groups of banks
inline constexpr int kChunkRows = 16;            // rows of a row chunk
inline constexpr int kRowChunks = kTileVolume / kChunkRows;
inline constexpr int kStageFloats = kTileVolume * kDepthStride;
inline constexpr int kBlockStride = kTileVolume + 8;  // of a block that passes through shared memory

template <int D>
inline constexpr int kResidentStride = D + 4;

// A warp's threads stand 4 x 8 over its block of a product: thread (row, column) has the rows row + 4 r and the
// columns column + 8 j (or vectors of columns). With lane bits dealt like this, a 16-byte load of either operand has
// equal addresses in lanes that differ in bit 0 or in bit 1 only, which shared memory serves in half the time.
struct Lane {
  int row, column;
  __device__ Lane() {
    const int lane = threadIdx.x & 31;
    row = (lane & 1) | (lane >> 3 & 2);
    column = lane >> 1 & 7;
  }
};

// Over the eight lanes that share their rows.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 4));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 8));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 2);
  x += __shfl_xor_sync(~0u, x, 4);
  return x + __shfl_xor_sync(~0u, x, 8);
}

__device__ __forceinline__ void copy_16(float* to, const float* from, bool valid) {
  ptx::cp_async_16(static_cast<uint32_t>(__cvta_generic_to_shared(to)), from, valid);
}
__device__ __forceinline__ void copy_4(float* to, const float* from, bool valid) {
  asm volatile(
      "cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(valid ? 4 : 0)
      : "memory");
}

// The rows of one head of a [B, rows, H, D] tensor.
struct HeadRows {
  const float* first;
  int32_t stride;  // elements from row to row

  __device__ HeadRows(const float* first_, int32_t stride_) : first(first_), stride(stride_) {}
  __device__ HeadRows(const float* tensor, int64_t b, int64_t rows, int32_t H, int32_t h, int32_t D)
      : first(tensor + (b * rows * H + h) * D), stride(H * D) {}
  __device__ __forceinline__ const float* at(int32_t row) const { return first + static_cast<int64_t>(row) * stride; }
};

// What the stream needs to know of a tile: the memory rows of its slots, -1 where there is no token.
struct TileTable {
  int32_t row[kTileVolume];
  uint32_t valid[2];  // the same as bits

  // By the first two warps; a barrier must follow.
  __device__ __forceinline__ void fill(const TileLayout& layout, int32_t tile) {
    const int slot = threadIdx.x;
    if (slot >= kTileVolume) return;
    const TilePlace place = layout.place(tile);
    const bool valid_slot = place.valid(slot);
    row[slot] = valid_slot ? place.row(slot) : -1;
    const uint32_t bits = __ballot_sync(~0u, valid_slot);
    if ((slot & 31) == 0) valid[slot >> 5] = bits;
  }
};

// The next tile of a walk; tile -1 is its end.
struct Step {
  int32_t tile, head;
};

// Goes through the lists of `heads` neighbouring heads, or through part `part` of `parts` of one list.
class ListWalk {
public:
  __device__ ListWalk(const TileLists& lists, int64_t row, int32_t heads, int32_t part = 0, int32_t parts = 1)
      : lists_(lists), row_(row), heads_(heads) {
    open();
    if (parts == 1) return;
    const int64_t begin = at_, count = end_ - at_;
    at_ = static_cast<int32_t>(begin + count * part / parts);
    end_ = static_cast<int32_t>(begin + count * (part + 1) / parts);
  }

  __device__ __forceinline__ Step take() {
    while (at_ == end_) {
      if (head_ + 1 >= heads_) return {-1, 0};
      ++head_, row_ += lists_.rows;
      open();
    }
    const int32_t tile = lists_.offsets == nullptr ? at_ : lists_.indices[at_];
    ++at_;
    return {tile, head_};
  }

private:
  __device__ __forceinline__ void open() {
    at_ = lists_.offsets == nullptr ? 0 : lists_.offsets[row_];
    end_ = lists_.offsets == nullptr ? static_cast<int32_t>(lists_.columns) : lists_.offsets[row_ + 1];
  }

  const TileLists& lists_;
  int64_t row_;
  int32_t head_ = 0, heads_, at_, end_;
};

// Rows first_slot .. first_slot + rows of a tile become resident.
template <int D, int rows>
__device__ __forceinline__ void load_residents(float* to, const HeadRows& from, const TilePlace& place,
                                               int first_slot) {
  constexpr int kVectors = D / 4;
#pragma unroll
  for (int i = 0; i < rows * kVectors / kThreads; ++i) {
    const int unit = i * kThreads + threadIdx.x, row = unit / kVectors, column = unit % kVectors * 4;
    const bool valid = place.valid(first_slot + row);
    const float* source = valid ? from.at(place.row(first_slot + row)) + column : from.first;
    copy_16(to + row * kResidentStride<D> + column, source, valid);
  }
}

// All 64 rows, columns `column` to `column` + 32.
__device__ __forceinline__ void load_depth_chunk(float* stage, const HeadRows& from, const TileTable& table,
                                                 int column) {
  const int first_row = threadIdx.x / 8, vector = threadIdx.x % 8 * 4;
#pragma unroll
  for (int i = 0; i < kTileVolume / 16; ++i) {
    const int slot = first_row + 16 * i;
    const int32_t row = table.row[slot];
    copy_16(stage + slot * kDepthStride + vector, from.at(max(row, 0)) + column + vector, row >= 0);
  }
}

// All columns of the rows `slot` to `slot` + 16.
template <int D>
__device__ __forceinline__ void load_row_chunk(float* stage, const HeadRows& from, const TileTable& table, int slot) {
  constexpr int kVectors = D / 4;
#pragma unroll
  for (int i = 0; i < kChunkRows * kVectors / kThreads; ++i) {
    const int unit = i * kThreads + threadIdx.x, chunk_row = unit / kVectors, column = unit % kVectors * 4;
    const int32_t row = table.row[slot + chunk_row];
    copy_16(stage + chunk_row * D + column, from.at(max(row, 0)) + column, row >= 0);
  }
}

// block[r][j] += sum over 32 columns of residents[4 r] . chunk[8 j]; the pointers are at the thread's first row.
template <int columns, int resident_stride>
__device__ __forceinline__ void multiply_depth(float (&block)[4][columns], const float* residents, const float* chunk) {
  constexpr int kUnroll = columns == 8 && resident_stride > 128 ? 1 : 2;  // twice would spill there
#pragma unroll kUnroll
  for (int k = 0; k < kDepth; k += 4) {
    float4 left[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) left[r] = *reinterpret_cast<const float4*>(residents + 4 * r * resident_stride + k);
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const float4 right = *reinterpret_cast<const float4*>(chunk + 8 * j * kDepthStride + k);
#pragma unroll
      for (int r = 0; r < 4; ++r) block[r][j] = fmaf(left[r].x, right.x, block[r][j]);
#pragma unroll
      for (int r = 0; r < 4; ++r) block[r][j] = fmaf(left[r].y, right.y, block[r][j]);
#pragma unroll
      for (int r = 0; r < 4; ++r) block[r][j] = fmaf(left[r].z, right.z, block[r][j]);
#pragma unroll
      for (int r = 0; r < 4; ++r) block[r][j] = fmaf(left[r].w, right.w, block[r][j]);
    }
  }
}

// Columns of a sum that a thread has, as vectors of `width`: vector v is at column (8 v + lane.column) * width.
template <int columns>
inline constexpr int kVectorWidth = columns % 4 == 0 ? 4 : 2;

template <int width>
__device__ __forceinline__ void load_vector(float (&to)[width], const float* from) {
  if constexpr (width == 4) {
    const float4 x = *reinterpret_cast<const float4*>(from);
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
  } else {
    const float2 x = *reinterpret_cast<const float2*>(from);
    to[0] = x.x, to[1] = x.y;
  }
}
template <int width>
__device__ __forceinline__ void store_vector(float* to, const float* x) {
  if constexpr (width == 4) {
    *reinterpret_cast<float4*>(to) = make_float4(x[0], x[1], x[2], x[3]);
  } else {
    *reinterpret_cast<float2*>(to) = make_float2(x[0], x[1]);
  }
}

// sum[r] += block[4 r] . chunk, over the 16 rows of a row chunk. `block` is at the thread's first row and at the
// chunk's first column, `chunk` at the thread's first column.
template <int columns, int block_stride, int chunk_stride>
__device__ __forceinline__ void multiply_rows(float (&sum)[4][columns], const float* block, const float* chunk) {
  constexpr int kWidth = kVectorWidth<columns>;
  constexpr int kUnroll = columns == 16 ? 1 : 2;  // measured
#pragma unroll kUnroll
  for (int k = 0; k < kChunkRows; k += 4) {
    float left[4][4];
#pragma unroll
    for (int r = 0; r < 4; ++r) load_vector<4>(left[r], block + 4 * r * block_stride + k);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int v = 0; v < columns / kWidth; ++v) {
        float right[kWidth];
        load_vector<kWidth>(right, chunk + (k + i) * chunk_stride + 8 * v * kWidth);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int e = 0; e < kWidth; ++e) {
            sum[r][v * kWidth + e] = fmaf(left[r][i], right[e], sum[r][v * kWidth + e]);
          }
        }
      }
    }
  }
}

// One of the thread's rows of a sum to memory: `to` is the row, column 0.
template <int columns>
__device__ __forceinline__ void store_row(float* to, int first_column, const float (&row)[columns]) {
  constexpr int kWidth = kVectorWidth<columns>;
#pragma unroll
  for (int v = 0; v < columns / kWidth; ++v) {
    store_vector<kWidth>(to + first_column + 8 * v * kWidth, &row[v * kWidth]);
  }
}

// Rows slot + 4 r of a gradient: the sum times scale, plus the gradient of the pooling where there is one (the tile's
// over its number of tokens). Padding becomes 0.
template <int D, int columns>
__device__ __forceinline__ void write_gradient(float* dx, const float* pooled, float scale, const TileLayout& layout,
                                               int32_t tile, int slot, int32_t b, int32_t H, int32_t h,
                                               int first_column, const float (&sum)[4][columns]) {
  constexpr int kWidth = kVectorWidth<columns>;
  const TilePlace place = layout.place(tile);
  const HeadRows rows(dx, b, layout.rows, H, h, D);
  float shift[columns] = {};
  if (pooled != nullptr) {
    const float* from = pooled + ((int64_t{b} * layout.tiles + tile) * H + h) * D + first_column;
    const float count = static_cast<float>(place.count());
#pragma unroll
    for (int c = 0; c < columns; ++c) shift[c] = from[c / kWidth * 8 * kWidth + c % kWidth] / count;
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const bool valid = place.valid(slot + 4 * r);
    if (!valid && !layout.tiled) continue;
    float row[columns];
#pragma unroll
    for (int c = 0; c < columns; ++c) row[c] = valid ? fmaf(sum[r][c], scale, shift[c]) : 0.0f;
    store_row(const_cast<float*>(rows.at(place.row(slot + 4 * r))), first_column, row);
  }
}

}  // namespace vsa::cuda::f32
