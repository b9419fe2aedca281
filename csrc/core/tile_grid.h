#pragma once

#include <cstdint>

#include "core/dtype.h"

#if defined(__CUDACC__)
#define VSA_HOST_DEVICE __host__ __device__
#else
#define VSA_HOST_DEVICE
#endif

namespace vsa {

inline constexpr int kTileVolume = 64;  // slots in a tile

// Where the tokens of a sequence lie: `prefix` tokens that are not video, then a token grid (t, y, x), row-major.
// The prefix is cut into 1-D tiles of 64, numbered first; the grid into tiles of `tile` (volume 64), row-major, the
// last along a dim clipped. A slot is a place in the full tile, so a partial tile's valid slots may have gaps.
// Source: VSA (arXiv 2505.13389), tiles. A POD, used by host and device code alike.
struct TileGrid {
  int64_t tokens[3];  // (T, Y, X)
  int32_t tile[3];    // (ct, cy, cx), volume 64
  int64_t prefix;     // P0

  VSA_HOST_DEVICE int64_t tiles(int dim) const { return (tokens[dim] + tile[dim] - 1) / tile[dim]; }
  VSA_HOST_DEVICE int64_t video_tiles() const { return tiles(0) * tiles(1) * tiles(2); }  // N
  VSA_HOST_DEVICE int64_t prefix_tiles() const { return (prefix + kTileVolume - 1) / kTileVolume; }
  VSA_HOST_DEVICE int64_t total_tiles() const { return prefix_tiles() + video_tiles(); }
  VSA_HOST_DEVICE int64_t length() const { return prefix + tokens[0] * tokens[1] * tokens[2]; }  // L
  VSA_HOST_DEVICE int64_t slots() const { return kTileVolume * total_tiles(); }
  // Rows of a tensor in this order.
  VSA_HOST_DEVICE int64_t rows(Order order) const { return order == Order::grid ? length() : slots(); }

  // The token (grid-order row) in a slot of a tile, or -1 for padding.
  VSA_HOST_DEVICE int64_t token(int64_t tile_index, int slot) const {
    const int64_t prefix_count = prefix_tiles();
    if (tile_index < prefix_count) {
      const int64_t token = tile_index * kTileVolume + slot;
      return token < prefix ? token : -1;
    }
    const int64_t i = tile_index - prefix_count;
    const int64_t t = i / (tiles(1) * tiles(2)) * tile[0] + slot / (tile[1] * tile[2]);
    const int64_t y = i / tiles(2) % tiles(1) * tile[1] + slot / tile[2] % tile[1];
    const int64_t x = i % tiles(2) * tile[2] + slot % tile[2];
    if (t >= tokens[0] || y >= tokens[1] || x >= tokens[2]) return -1;
    return prefix + (t * tokens[1] + y) * tokens[2] + x;
  }

  // The memory row of a slot of a tile in an order, or -1 for padding.
  VSA_HOST_DEVICE int64_t row(Order order, int64_t tile_index, int slot) const {
    const int64_t token_row = token(tile_index, slot);
    return token_row < 0 || order == Order::grid ? token_row : tile_index * kTileVolume + slot;
  }

  // Valid tokens of a tile: 1..64.
  VSA_HOST_DEVICE int valid(int64_t tile_index) const {
    const int64_t prefix_count = prefix_tiles();
    if (tile_index < prefix_count) {
      const int64_t left = prefix - tile_index * kTileVolume;
      return static_cast<int>(left < kTileVolume ? left : kTileVolume);
    }
    const int64_t i = tile_index - prefix_count;
    const int64_t at[3] = {i / (tiles(1) * tiles(2)), i / tiles(2) % tiles(1), i % tiles(2)};
    int count = 1;
    for (int dim = 0; dim < 3; ++dim) {
      const int64_t left = tokens[dim] - at[dim] * tile[dim];
      count *= static_cast<int>(left < tile[dim] ? left : tile[dim]);
    }
    return count;
  }
};

}  // namespace vsa
