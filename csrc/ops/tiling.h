#pragma once

#include "core/dtype.h"
#include "core/tile_grid.h"

namespace vsa {

// Grid order to tiled order (padding slots are written as 0) or back. Each is the other's gradient.
// A row is copied as it is, whatever its type.
struct Tiling {
  int64_t B;
  int64_t row_bytes;  // H * D * size_of(dtype)
  TileGrid grid;
  Order to;       // tiled: tile; grid: untile
  const void* x;  // [B, grid.rows(other order), row]
  void* output;   // [B, grid.rows(to), row]
};

}  // namespace vsa
