#pragma once

#include <cstdint>

#include "core/error.h"
#include "core/tile_grid.h"

namespace vsa::cuda {

// One tile's place in memory: the row of its slot 0, the distances between rows, and how far its valid tokens reach.
struct TilePlace {
  int32_t base;                 // row of slot 0
  int32_t stride_t, stride_y;   // rows between neighbours along t and y; along x it is 1
  int32_t shift_y, shift_x;     // slot = (t << shift_y | y) << shift_x | x, in the full tile
  int32_t end_t, end_y, end_x;  // valid: t < end_t, y < end_y, x < end_x

  __device__ __forceinline__ int32_t x(int slot) const { return slot & ((1 << shift_x) - 1); }
  __device__ __forceinline__ int32_t y(int slot) const { return (slot >> shift_x) & ((1 << (shift_y - shift_x)) - 1); }
  __device__ __forceinline__ int32_t t(int slot) const { return slot >> shift_y; }

  // Memory row of a slot, whether valid or not (a padding slot has a row in tiled order only).
  __device__ __forceinline__ int32_t row(int slot) const {
    return base + t(slot) * stride_t + y(slot) * stride_y + x(slot);
  }
  __device__ __forceinline__ bool valid(int slot) const {
    return (t(slot) < end_t) & (y(slot) < end_y) & (x(slot) < end_x);
  }
  __device__ __forceinline__ int32_t count() const { return end_t * end_y * end_x; }
};

// TileGrid for kernels: 32-bit, tile dims as shifts (their product is 64, so each is a power of two).
struct TileLayout {
  int32_t tiled;  // 1 in tiled order, 0 in grid order
  int32_t prefix, prefix_tiles;
  int32_t T, Y, X;              // tokens
  int32_t Ny, Nx;               // tiles along y and x
  int32_t log_t, log_y, log_x;  // of the tile's dims
  int32_t tiles;                // in all, prefix tiles first
  int32_t rows;                 // of a tensor in this order

  TileLayout() = default;
  TileLayout(const TileGrid& grid, Order order) {
    VSA_CHECK(grid.slots() <= INT32_MAX, "a sequence on a GPU must have fewer than 2^31 slots");
    const auto log2 = [](int32_t n) {
      int32_t log = 0;
      while ((1 << log) < n) ++log;
      return log;
    };
    tiled = order == Order::tiled;
    prefix = static_cast<int32_t>(grid.prefix), prefix_tiles = static_cast<int32_t>(grid.prefix_tiles());
    T = static_cast<int32_t>(grid.tokens[0]), Y = static_cast<int32_t>(grid.tokens[1]);
    X = static_cast<int32_t>(grid.tokens[2]);
    Ny = static_cast<int32_t>(grid.tiles(1)), Nx = static_cast<int32_t>(grid.tiles(2));
    log_t = log2(grid.tile[0]), log_y = log2(grid.tile[1]), log_x = log2(grid.tile[2]);
    tiles = static_cast<int32_t>(grid.total_tiles()), rows = static_cast<int32_t>(grid.rows(order));
  }

#if defined(__CUDACC__)
  __device__ __forceinline__ TilePlace place(int32_t tile) const {
    return place(
        tile, [&](int32_t i) { return i / Nx; }, [&](int32_t i) { return i / Ny; });
  }
  // The same with the caller's divisions by Nx and Ny.
  template <class ByNx, class ByNy>
  __device__ __forceinline__ TilePlace place(int32_t tile, const ByNx& by_nx, const ByNy& by_ny) const {
    TilePlace p;
    if (tile < prefix_tiles) {
      p.base = tile * kTileVolume;
      p.stride_t = p.stride_y = kTileVolume;
      p.shift_y = p.shift_x = 6;
      p.end_t = p.end_y = 1;
      p.end_x = min(kTileVolume, prefix - tile * kTileVolume);
      return p;
    }
    const int32_t i = tile - prefix_tiles;
    const int32_t row_of_tiles = by_nx(i), x0 = (i - row_of_tiles * Nx) << log_x;
    const int32_t slab = by_ny(row_of_tiles), y0 = (row_of_tiles - slab * Ny) << log_y, t0 = slab << log_t;
    p.shift_x = log_x, p.shift_y = log_x + log_y;
    p.end_t = min(1 << log_t, T - t0), p.end_y = min(1 << log_y, Y - y0), p.end_x = min(1 << log_x, X - x0);
    if (tiled) {
      p.base = tile * kTileVolume;
      p.stride_t = 1 << p.shift_y, p.stride_y = 1 << p.shift_x;
    } else {
      p.base = prefix + (t0 * Y + y0) * X + x0;
      p.stride_t = Y * X, p.stride_y = X;
    }
    return p;
  }
#endif
};

}  // namespace vsa::cuda
