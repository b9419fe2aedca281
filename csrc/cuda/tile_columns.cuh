#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "core/error.h"
#include "cuda/fast_division.h"
#include "cuda/tile_layout.h"
#include "cuda/vectors.cuh"

// For kernels between tokens [B, rows, width] and one row a tile [B, tiles, width]: a thread owns one vector of columns
// of one tile and goes through the tile's slots in their order, so no thread needs another's result.
namespace vsa::cuda {

// A problem, as threads find their place in it: without a division, and with the rows of full tiles from a table, for
// all warps of an SM begin at once and issue in turn what comes before the first load. `pieces`: threads that share the
// slots of a tile.
struct Columns {
  TileLayout layout;
  int32_t width;
  uint32_t parts;  // vectors of columns, of all tiles and pieces
  FastDivision by_vectors, by_pieces, by_tiles, by_nx, by_ny;
  int64_t offsets[kTileVolume];  // elements, from slot 0 of a full video tile

  Columns() : parts(0) {}
  Columns(const TileLayout& layout_, int32_t width_, uint32_t parts_, int V, int pieces)
      : layout(layout_),
        width(width_),
        parts(parts_),
        by_vectors(width_ / V),
        by_pieces(pieces),
        by_tiles(layout_.tiles),
        by_nx(layout_.Nx > 0 ? layout_.Nx : 1),
        by_ny(layout_.Ny > 0 ? layout_.Ny : 1) {
    for (int slot = 0; slot < kTileVolume; ++slot) {
      const int64_t column = slot & ((1 << layout.log_x) - 1), line = slot >> layout.log_x;
      const int64_t y = line & ((1 << layout.log_y) - 1), t = line >> layout.log_y;
      offsets[slot] = (layout.tiled ? slot : (t * layout.Y + y) * layout.X + column) * width;
    }
  }
};

// What a thread works on: a vector of columns of one (batch, tile), or of a piece of the tile's slots.
struct Part {
  TilePlace place;
  bool full;  // a video tile without padding: its rows are in the table
  int32_t piece;
  uint32_t b, column;  // of the tile, of the vector's first element
  int64_t pooled;      // element of [B, tiles, width] where the vector begins
  int64_t tokens;      // element of [B, rows, width] where it begins in the row of slot 0

  template <int V>
  __device__ __forceinline__ Part(const Columns& p, uint32_t item, std::integral_constant<int, V>) {
    const uint32_t unit = p.by_vectors(item), row = p.by_pieces(unit);
    b = p.by_tiles(row), column = (item - unit * p.by_vectors.divisor) * V;
    const auto tile = static_cast<int32_t>(row - b * p.by_tiles.divisor);
    piece = static_cast<int32_t>(unit - row * p.by_pieces.divisor);
    place = p.layout.place(tile, p.by_nx, p.by_ny);
    full = place.count() == kTileVolume && tile >= p.layout.prefix_tiles;
    pooled = static_cast<int64_t>(row) * p.width + column;
    tokens = (static_cast<int64_t>(b) * p.layout.rows + place.base) * p.width + column;
  }
  template <int V>
  __device__ __forceinline__ static Part of(const Columns& p, uint32_t item) {
    return Part(p, item, std::integral_constant<int, V>());
  }
};

// Calls run(a T, elements of a vector), where every pointer of what is read or written in vectors, and every width,
// allows such vectors.
template <typename F>
void for_vectors(DType dtype, std::initializer_list<int64_t> widths, std::initializer_list<const void*> pointers,
                 const F& run) {
  VSA_CHECK(dtype != DType::int32, "tokens must be float32, bfloat16 or float16");
  const int wide = static_cast<int>(16 / size_of(dtype));
  uintptr_t bits = 0;
  for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
  for (const int64_t width : widths) bits |= width % wide == 0 ? 0 : 1;
  const auto go = [&](auto element) {
    constexpr int kWide = 16 / sizeof(element);
    if ((bits & 15) == 0) {
      run(element, std::integral_constant<int, kWide>());
    } else {
      run(element, std::integral_constant<int, 1>());
    }
  };
  if (dtype == DType::float32) go(float());
  if (dtype == DType::bfloat16) go(__nv_bfloat16());
  if (dtype == DType::float16) go(__half());
}

// Of a [B, rows, H, D] tensor; no parts if there is none.
template <class Problem>
Columns columns_of(const Problem& p, int V, int pieces) {
  const TileLayout layout(p.grid, p.order);
  const int64_t width = p.H * p.D, parts = width == 0 ? 0 : p.B * layout.tiles * pieces * (width / V);
  VSA_CHECK(width <= INT32_MAX && parts <= INT32_MAX, "too large a problem for one launch");
  if (parts == 0) return Columns();
  return Columns(layout, static_cast<int32_t>(width), static_cast<uint32_t>(parts), V, pieces);
}

}  // namespace vsa::cuda
