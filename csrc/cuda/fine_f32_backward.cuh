#pragma once

#include "cuda/launch.h"
#include "cuda/tile_layout.h"
#include "ops/fine.h"

namespace vsa::cuda::f32 {

// What the kernels of the backward share. Each block has half a tile, 32 rows: with whole ones there would be too few
// blocks for the pooled tensors of the coarse stage, and too many sums for the registers.
inline constexpr int kHalfTile = 32;

struct BackwardArgs {
  TileLayout queries, keys;
  TileLists lists;  // by query tile for dq, by key tile for dk and dv
  int32_t H, group;
  float scale;
  const float* q;
  const float* k;
  const float* v;
  const float* doutput;
  const float* lse;
  const float* delta;
  const float* pooled;       // [B, tiles, heads, D] of dq or dk, or null
  const float* more_pooled;  // of dv
  float* dx;                 // dq or dk
  float* more_dx;            // dv
};

void launch_dq(const BackwardArgs&, int64_t B, int64_t D, const Launch&);
void launch_dk_dv(const BackwardArgs&, int64_t B, int64_t D, const Launch&);

}  // namespace vsa::cuda::f32
