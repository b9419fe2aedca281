#pragma once

#include <cstdint>

#include "cuda/tile_layout.h"

namespace vsa::cuda::sm90 {

// Which tiles are partial, and how: class 0 is full; bits 0, 1, 2 of a video tile's say that it is cut along t, y, x; 8
// is the last tile of a prefix. All tiles of a class have the same valid slots, so a list entry needs the class only.
struct TileClasses {
  static constexpr int kCount = 9;

  int32_t prefix_tiles, prefix_partial;  // tiles of the prefix; 1 if its last is partial
  int32_t Ny, Nx;                        // video tiles along y and x
  int32_t full_t, full_y, full_x;        // full tiles along a dim
  int32_t partial;                       // partial tiles in all
  uint64_t valid[kCount];                // a bit a slot

  TileClasses() = default;
  explicit TileClasses(const TileLayout& g) {
    prefix_tiles = g.prefix_tiles, prefix_partial = g.prefix % kTileVolume != 0;
    Ny = g.Ny, Nx = g.Nx;
    full_t = g.T >> g.log_t, full_y = g.Y >> g.log_y, full_x = g.X >> g.log_x;
    partial = prefix_partial + (g.tiles - g.prefix_tiles) - full_t * full_y * full_x;
    const int32_t size[3] = {1 << g.log_t, 1 << g.log_y, 1 << g.log_x};
    const int32_t left[3] = {g.T & (size[0] - 1), g.Y & (size[1] - 1), g.X & (size[2] - 1)};
    uint64_t cut[3] = {};  // the slots that are there where a tile is cut along a dim
    for (int slot = 0; slot < kTileVolume; ++slot) {
      const int32_t at[3] = {slot >> (g.log_x + g.log_y), slot >> g.log_x & (size[1] - 1), slot & (size[2] - 1)};
      for (int dim = 0; dim < 3; ++dim) cut[dim] |= uint64_t{at[dim] < left[dim]} << slot;
    }
    for (int c = 0; c < 8; ++c) {
      valid[c] = ~uint64_t{0};
      for (int dim = 0; dim < 3; ++dim) valid[c] &= (c >> dim & 1) != 0 ? cut[dim] : ~uint64_t{0};
    }
    valid[8] = (uint64_t{1} << (g.prefix % kTileVolume)) - 1;
  }

#if defined(__CUDACC__)
  __device__ __forceinline__ int32_t of(int32_t tile) const {
    if (partial == 0) return 0;
    if (tile < prefix_tiles) return tile == prefix_tiles - 1 && prefix_partial ? 8 : 0;
    const int32_t i = tile - prefix_tiles, row = i / Nx, slab = row / Ny;
    return (slab >= full_t ? 1 : 0) | (row - slab * Ny >= full_y ? 2 : 0) | (i - row * Nx >= full_x ? 4 : 0);
  }
  // Of a partial tile: how many partial tiles come before it.
  __device__ __forceinline__ int32_t rank(int32_t tile) const {
    if (tile < prefix_tiles) return 0;
    const int32_t i = tile - prefix_tiles, row = i / Nx, t = i / Nx / Ny, y = row - t * Ny, x = i - row * Nx;
    int32_t full = min(t, full_t) * full_y * full_x;
    if (t < full_t) full += min(y, full_y) * full_x + (y < full_y ? min(x, full_x) : 0);
    return prefix_partial + i - full;
  }
#endif
};

}  // namespace vsa::cuda::sm90
