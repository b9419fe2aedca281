#pragma once

#include <cuda.h>

#include <cstdint>

#include "core/dtype.h"
#include "cuda/sm90/fine_forward_args.cuh"

namespace vsa::cuda::sm90 {

// The map of a 16-bit tensor [rows, heads, D] whose boxes are 64 rows of one head, as D / 64 panels of 64 columns:
// coordinates (0, first row, head * D / 64). `tensor` must be aligned to 16 bytes.
CUtensorMap tile_map(DType dtype, const void* tensor, int64_t rows, int64_t heads, int64_t D);

// The maps of a 16-bit tensor [B, rows, heads, D] in grid order whose boxes are 64 columns of a tile.
GridBoxes grid_boxes(DType dtype, const void* tensor, const TileGrid& grid, int64_t B, int64_t heads, int64_t D);

// A map of a 16-bit tensor [B, rows, heads, D] whose boxes are 64 columns of a tile, a row a slot, zeros where there is
// no token: coordinates (column, x, y, t, last). In grid order map 0 is of the grid's tokens, map 1 of the prefix,
// whose rows are x; `last` is the batch. In tiled order map c is of the tiles of class c (tile_classes.h); `last` is
// batch * tiles + tile and x, y, t are 0.
inline constexpr int kGridMaps = 2, kTiledMaps = 9;
CUtensorMap slot_boxes(DType dtype, const void* tensor, const TileGrid& grid, Order order, int map, int64_t B,
                       int64_t heads, int64_t D);
// Whether there are tiles for that map. If not, it cannot be made.
bool has_slot_boxes(const TileGrid& grid, Order order, int map);

}  // namespace vsa::cuda::sm90
