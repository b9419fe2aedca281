#pragma once

#include "core/dtype.h"
#include "core/tile_grid.h"

namespace vsa {

// Mean of the valid tokens of every tile, summed and kept in fp32. Source: arXiv 2505.13389.
struct PoolingForward {
  DType dtype;  // of x: float32, bfloat16 or float16
  int64_t B, H, D;
  TileGrid grid;
  Order order;
  const void* x;  // [B, rows, H, D]; padding rows may hold any bits
  float* output;  // [B, tiles, H, D], tiles = grid.total_tiles()
};

// Several tensors in one pass, which keeps a GPU's memory busy from the first byte to the last. They have one dtype.
struct PoolingTogether {
  static constexpr int kMost = 3;  // q, k and v
  int32_t count;                   // 1 to kMost
  PoolingForward parts[kMost];
};

// Each valid token receives its tile's gradient over the number of valid tokens.
struct PoolingBackward {
  DType dtype;
  int64_t B, H, D;
  TileGrid grid;
  Order order;
  const float* doutput;  // [B, tiles, H, D]
  void* dx;              // [B, rows, H, D], of dtype; padding rows are written as 0
};

}  // namespace vsa
