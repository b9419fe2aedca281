#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/tile_layout.h"

namespace vsa::cuda::fine_backward {

// FineBackward as the kernels see it.
struct Args {
  int32_t B, H, Hkv, group;  // group = H / Hkv
  TileLayout q_layout, kv_layout;
  float scale, scale_log2;  // scale_log2 = scale * log2(e)
  const int32_t* offsets;   // lists; null: full
  const int32_t* indices;
  const int32_t* t_offsets;  // transposed lists; null: full
  const int32_t* t_indices;
  const void *q, *output, *doutput;  // [B, q_rows, H, D]
  const void *k, *v;                 // [B, kv_rows, Hkv, D]
  const float* lse;                  // [B, H, q_rows], natural log
  const float* dq_pooled;            // [B, q_tiles, H, D], or null
  const float* dk_pooled;            // [B, kv_tiles, Hkv, D], or null
  const float* dv_pooled;            // [B, kv_tiles, Hkv, D], or null
  float* delta;                      // [B, H, q_rows]
  bool delta_ready;                  // it is an input
  // [B, H, q_tiles, 64], what the passes read of a tile's rows: in tiled order lse and delta themselves, in grid order
  // copies of them. Padding's may be -inf.
  float *lse_of_slots, *delta_of_slots;
  bool has_rows;  // the pre-pass has something to do for every row: delta, or the copies
  void *dq, *dk, *dv;
  int32_t* order;           // [B * Hkv * kv_tiles], the order in which pass 1 takes its key tiles, or null: as they lie
  int32_t resident_blocks;  // of pass 1 on the GPU at a time
  int32_t stages;           // of the copy pipeline: 2, or 1 where shared memory is short
};

// Puts the kernels for T on the stream. Defined in fine_backward_bf16.cu and fine_backward_fp16.cu.
template <typename T>
void launch_typed(const Args& args, int64_t D, const Launch& launch);

}  // namespace vsa::cuda::fine_backward
