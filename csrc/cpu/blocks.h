#pragma once

#include "core/tile_grid.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"

// The two products of tile attention, forward and backward. One tile stays (its tensor transposed, [D, token]), the
// tiles of its list come by (gathered, [row, D]); a block is [row, token].
namespace vsa::cpu {

inline constexpr int64_t kBlockStride = row_stride(kTileVolume);  // of blocks and of transposed tensors

// block = x . transposed; columns `tokens` to `tokens` rounded up to 16 are computed, too.
inline void score_block(int64_t rows, const float* x, int64_t tokens, const float* transposed, int64_t D,
                        float* block) {
  kernels().product({.m = rows,
                     .n = round_up(tokens, 16),
                     .k = D,
                     .a = x,
                     .a_row = row_stride(D),
                     .a_column = 1,
                     .b = transposed,
                     .b_row = kBlockStride,
                     .c = block,
                     .c_row = kBlockStride,
                     .accumulate = false});
}

// sum[token, D] += block^T x
inline void accumulate_block(int64_t rows, const float* block, int64_t tokens, const float* x, int64_t D, float* sum) {
  kernels().product({.m = tokens,
                     .n = round_up(D, 16),
                     .k = rows,
                     .a = block,
                     .a_row = 1,
                     .a_column = kBlockStride,
                     .b = x,
                     .b_row = row_stride(D),
                     .c = sum,
                     .c_row = row_stride(D),
                     .accumulate = true});
}

}  // namespace vsa::cpu
