#pragma once

#include <cstdint>
#include <cstring>

#include "core/tile_grid.h"
#include "cpu/kernels.h"

namespace vsa::cpu {

// Where the slots of one tile lie: the memory rows of its valid tokens, in slot order, and those of its padding,
// which exist in tiled order only. What TileGrid::row says, without a division for every slot.
struct TileRows {
  int count = 0, padding_count = 0;
  int64_t row[kTileVolume];
  int64_t padding[kTileVolume];

  TileRows() = default;
  TileRows(const TileGrid& grid, Order order, int64_t tile) {
    const bool tiled = order == Order::tiled;
    const int64_t first_slot = tile * kTileVolume;
    int slot = 0;
    const auto add = [&](bool valid, int64_t token) {
      if (valid) {
        row[count++] = tiled ? first_slot + slot : token;
      } else if (tiled) {
        padding[padding_count++] = first_slot + slot;
      }
      ++slot;
    };
    const int64_t prefix_tiles = grid.prefix_tiles();
    if (tile < prefix_tiles) {
      for (int64_t token = first_slot; token < first_slot + kTileVolume; ++token) add(token < grid.prefix, token);
      return;
    }
    const int64_t video_tile = tile - prefix_tiles;
    const int64_t t0 = video_tile / (grid.tiles(1) * grid.tiles(2)) * grid.tile[0];
    const int64_t y0 = video_tile / grid.tiles(2) % grid.tiles(1) * grid.tile[1];
    const int64_t x0 = video_tile % grid.tiles(2) * grid.tile[2];
    for (int64_t t = t0; t < t0 + grid.tile[0]; ++t) {
      for (int64_t y = y0; y < y0 + grid.tile[1]; ++y) {
        const bool inside = t < grid.tokens[0] && y < grid.tokens[1];
        const int64_t line = grid.prefix + (t * grid.tokens[1] + y) * grid.tokens[2];
        for (int64_t x = x0; x < x0 + grid.tile[2]; ++x) add(inside && x < grid.tokens[2], line + x);
      }
    }
  }
};

// The rows of one head of a [B, rows, H, D] tensor, or with H = 1 and D = heads * head_dim all heads of one batch.
struct HeadRows {
  DType dtype;
  int64_t D;
  int64_t stride;  // bytes from row to row
  char* first;

  HeadRows(DType dtype_, const void* tensor, int64_t b, int64_t rows, int64_t H, int64_t h, int64_t D_)
      : dtype(dtype_),
        D(D_),
        stride(H * D_ * size_of(dtype_)),
        first(static_cast<char*>(const_cast<void*>(tensor)) + b * rows * stride + h * D_ * size_of(dtype_)) {}

  void* at(int64_t row) const { return first + row * stride; }

  // The valid tokens of a tile as fp32, [tile.count, output_row]; columns D up to D rounded up to 16 are 0.
  void gather(const TileRows& tile, float* output, int64_t output_row) const {
    const int64_t padded = (D + 15) / 16 * 16;
    for (int i = 0; i < tile.count; ++i) {
      float* to = output + i * output_row;
      kernels().to_float(dtype, D, at(tile.row[i]), to);
      for (int64_t column = D; column < padded; ++column) to[column] = 0;
    }
  }

  // The opposite; padding becomes 0.
  void scatter(const TileRows& tile, const float* x, int64_t x_row) const {
    for (int i = 0; i < tile.count; ++i) kernels().from_float(dtype, D, x + i * x_row, at(tile.row[i]));
    clear_padding(tile);
  }

  void clear_padding(const TileRows& tile) const {
    for (int i = 0; i < tile.padding_count; ++i) {
      std::memset(at(tile.padding[i]), 0, static_cast<size_t>(D * size_of(dtype)));
    }
  }
};

}  // namespace vsa::cpu
