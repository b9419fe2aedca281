#include <cstring>

#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/token_rows.h"

namespace vsa::cpu {

void run(const Tiling& p) {
  const int64_t tiles = p.grid.total_tiles();
  const bool to_tiled = p.to == Order::tiled;
  const size_t bytes = static_cast<size_t>(p.row_bytes);
  parallel_for(p.B * tiles, [&](int64_t item) {
    const int64_t b = item / tiles;
    const TileRows grid_rows(p.grid, Order::grid, item % tiles), tiled_rows(p.grid, Order::tiled, item % tiles);
    const TileRows& from = to_tiled ? grid_rows : tiled_rows;
    const TileRows& to = to_tiled ? tiled_rows : grid_rows;
    const char* x =
        static_cast<const char*>(p.x) + b * p.grid.rows(to_tiled ? Order::grid : Order::tiled) * p.row_bytes;
    char* output = static_cast<char*>(p.output) + b * p.grid.rows(p.to) * p.row_bytes;
    for (int i = 0; i < to.count; ++i) {
      std::memcpy(output + to.row[i] * p.row_bytes, x + from.row[i] * p.row_bytes, bytes);
    }
    for (int i = 0; i < to.padding_count; ++i) std::memset(output + to.padding[i] * p.row_bytes, 0, bytes);
  });
}

}  // namespace vsa::cpu
