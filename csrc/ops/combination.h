#pragma once

#include "core/dtype.h"
#include "core/tile_grid.h"

namespace vsa {

// output = coarse_gate * coarse[tile] + fine_gate * fine; an absent gate is 1. Source: arXiv 2505.13389.
struct CombinationForward {
  DType dtype;  // of fine, gates and output
  int64_t B, H, D;
  TileGrid grid;
  Order order;
  const void* fine;         // [B, rows, H, D]
  const float* coarse;      // [B, tiles, H, D], or null: not added
  const void* coarse_gate;  // [B, rows, H, D], or null: 1 (only with coarse)
  const void* fine_gate;    // [B, rows, H, D], or null: 1
  void* output;             // [B, rows, H, D]; padding rows are written as 0
};

struct CombinationBackward {
  DType dtype;  // of fine, gates, doutput and their gradients
  int64_t B, H, D;
  TileGrid grid;
  Order order;
  const void* fine;         // [B, rows, H, D]; read for dfine_gate and delta only, else null
  const float* coarse;      // [B, tiles, H, D], or null
  const void* coarse_gate;  // [B, rows, H, D], or null
  const void* fine_gate;    // [B, rows, H, D], or null
  const void* doutput;      // [B, rows, H, D]; padding rows may hold any bits
  void* dfine;              // [B, rows, H, D] = doutput * fine_gate, or null: not wanted
  float* dcoarse;      // [B, tiles, H, D] = sum over the valid tokens of doutput * coarse_gate; null without coarse
  void* dcoarse_gate;  // [B, rows, H, D] = doutput * coarse; null without coarse_gate
  void* dfine_gate;    // [B, rows, H, D] = doutput * fine; null without fine_gate
  float* delta;        // [B, H, rows] = rowsum(dfine * fine), which FineBackward wants; 0 for padding; or null
};

}  // namespace vsa
