#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/tile_layout.h"

// Copies rows as they are. A thread copies one vector of columns of kSlots slots of a tile: it asks for all of them
// before it writes the first.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSlots = 8;

template <typename V>
__global__ void __launch_bounds__(kThreads) tiling(TileLayout grid, TileLayout tiled, bool to_tiled, int64_t vectors,
                                                   int64_t items, const V* __restrict__ x, V* __restrict__ output) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= items) return;
  constexpr int kGroups = kTileVolume / kSlots;
  const int64_t group = item / vectors, column = item - group * vectors;
  const auto tile_of_batch = static_cast<uint32_t>(group / kGroups);
  const int begin = static_cast<int>(group % kGroups) * kSlots;
  const uint32_t b = tile_of_batch / static_cast<uint32_t>(grid.tiles);
  const auto tile = static_cast<int32_t>(tile_of_batch - b * static_cast<uint32_t>(grid.tiles));
  const TilePlace grid_place = grid.place(tile), tiled_place = tiled.place(tile);
  const TilePlace& from = to_tiled ? grid_place : tiled_place;
  const TilePlace& to = to_tiled ? tiled_place : grid_place;
  x += static_cast<int64_t>(b) * (to_tiled ? grid.rows : tiled.rows) * vectors + column;
  output += static_cast<int64_t>(b) * (to_tiled ? tiled.rows : grid.rows) * vectors + column;

  V row[kSlots];
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    row[i] = {};
    if (from.valid(begin + i)) row[i] = x[from.row(begin + i) * vectors];
  }
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    if (to_tiled || to.valid(begin + i)) output[to.row(begin + i) * vectors] = row[i];
  }
}

template <typename V>
void launch_as(const Tiling& p, const Launch& on) {
  const TileLayout grid(p.grid, Order::grid), tiled(p.grid, Order::tiled);
  const int64_t vectors = p.row_bytes / static_cast<int64_t>(sizeof(V));
  const int64_t items = p.B * tiled.tiles * (kTileVolume / kSlots) * vectors;
  const int64_t blocks = (items + kThreads - 1) / kThreads;
  VSA_CHECK(blocks <= INT32_MAX && p.B * tiled.tiles <= INT32_MAX, "too large a problem for one launch");
  tiling<<<static_cast<uint32_t>(blocks), kThreads, 0, on.stream()>>>(
      grid, tiled, p.to == Order::tiled, vectors, items, static_cast<const V*>(p.x), static_cast<V*>(p.output));
  check_launch("tiling");
}

}  // namespace

void launch(const Tiling& p, const Launch& on) {
  if (p.B * p.row_bytes * p.grid.slots() == 0) return;
  const uintptr_t alignment =
      reinterpret_cast<uintptr_t>(p.x) | reinterpret_cast<uintptr_t>(p.output) | static_cast<uintptr_t>(p.row_bytes);
  if (alignment % 16 == 0) return launch_as<uint4>(p, on);
  if (alignment % 8 == 0) return launch_as<uint2>(p, on);
  if (alignment % 4 == 0) return launch_as<uint32_t>(p, on);
  if (alignment % 2 == 0) return launch_as<uint16_t>(p, on);
  launch_as<uint8_t>(p, on);
}

}  // namespace vsa::cuda
