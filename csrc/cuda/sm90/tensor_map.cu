#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <string>
#include <type_traits>

#include "core/error.h"
#include "cuda/driver.h"
#include "cuda/sm90/tensor_map.h"

namespace vsa::cuda::sm90 {
namespace {

PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto function = driver_function<PFN_cuTensorMapEncodeTiled_v12000>("cuTensorMapEncodeTiled", 12000);
  return function;
}

// All that a map depends on. Compared and hashed as bytes, so without padding, and zero where there is nothing.
struct MapKey {
  uint64_t tensor;
  cuuint64_t sizes[5], strides[4];
  cuuint32_t box[5], rank, dtype, unused;

  uint64_t hash() const {
    uint64_t words[sizeof(MapKey) / 8], sum = 0;
    std::memcpy(words, this, sizeof(MapKey));
    for (const uint64_t word : words) sum = (sum ^ word) * 0x9E3779B97F4A7C15, sum ^= sum >> 32;
    return sum;
  }
};
static_assert(std::has_unique_object_representations_v<MapKey>, "keys are compared as bytes");

CUtensorMap encode(const MapKey& key) {
  const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encoder()(&map, static_cast<CUtensorMapDataType>(key.dtype), key.rank, reinterpret_cast<void*>(key.tensor),
                key.sizes, key.strides, key.box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  VSA_CHECK(result == CUDA_SUCCESS, "a tensor map was refused, CUresult " + std::to_string(result));
  return map;
}

// Maps made lately, one for each value of some bits of the hash: the driver takes longer to make one than to find it
// here takes, and tensors come back to the same addresses. Any thread.
CUtensorMap cached_map(const MapKey& key) {
  struct Known {
    MapKey key;
    CUtensorMap map;
  };
  constexpr size_t kMost = 1024;
  static std::mutex mutex;
  static auto& known = *new std::array<Known, kMost>();  // outlives every thread; a rank of 0 is nobody's
  Known& one = known[key.hash() % kMost];
  const std::lock_guard lock(mutex);
  if (std::memcmp(&one.key, &key, sizeof(MapKey)) != 0) {
    one.map = encode(key);
    one.key = key;
  }
  return one.map;
}

// `sizes` has kRank values, the fastest dim first, `strides` (bytes) and `box` go with it; strides[0] is of dim 1.
template <int kRank>
CUtensorMap make_map(DType dtype, const void* tensor, const cuuint64_t (&sizes)[kRank],
                     const cuuint64_t (&strides)[kRank - 1], const cuuint32_t (&box)[kRank]) {
  MapKey key = {};
  key.tensor = reinterpret_cast<uintptr_t>(tensor), key.rank = kRank;
  key.dtype = dtype == DType::bfloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  std::copy_n(sizes, kRank, key.sizes);
  std::copy_n(strides, kRank - 1, key.strides);
  std::copy_n(box, kRank, key.box);
  return cached_map(key);
}

cuuint64_t size(int64_t x) {
  return static_cast<cuuint64_t>(x);
}

}  // namespace

CUtensorMap tile_map(DType dtype, const void* tensor, int64_t rows, int64_t heads, int64_t D) {
  const cuuint32_t panels = static_cast<cuuint32_t>(D / 64);
  return make_map<3>(dtype, tensor, {64, size(rows), size(heads * D / 64)}, {size(heads * D * size_of(dtype)), 128},
                     {64, 64, panels});
}

GridBoxes grid_boxes(DType dtype, const void* tensor, const TileGrid& grid, int64_t B, int64_t heads, int64_t D) {
  GridBoxes boxes{};
  const TileLayout layout(grid, Order::grid);
  boxes.prefix_tiles = layout.prefix_tiles, boxes.Nx = layout.Nx, boxes.Ny = layout.Ny;
  boxes.log_t = layout.log_t, boxes.log_y = layout.log_y, boxes.log_x = layout.log_x;
  boxes.by_x = FastDivision(std::max(layout.Nx, 1)), boxes.by_y = FastDivision(std::max(layout.Ny, 1));
  const int64_t row = heads * D * size_of(dtype), rows = grid.length();
  const int64_t T = grid.tokens[0], Y = grid.tokens[1], X = grid.tokens[2];
  if (grid.video_tiles() > 0) {
    const auto box = [&](int dim) { return static_cast<cuuint32_t>(grid.tile[dim]); };
    boxes.video =
        make_map<5>(dtype, static_cast<const uint8_t*>(tensor) + grid.prefix * row,
                    {size(heads * D), size(X), size(Y), size(T), size(B)},
                    {size(row), size(X * row), size(Y * X * row), size(rows * row)}, {64, box(2), box(1), box(0), 1});
  }
  if (grid.prefix > 0) {
    boxes.prefix = make_map<3>(dtype, tensor, {size(heads * D), size(grid.prefix), size(B)},
                               {size(row), size(rows * row)}, {64, 64, 1});
  }
  return boxes;
}

namespace {

// Tokens of a tile along (t, y, x) and the box that they are in, for a map of tiled order.
struct ClassBox {
  int64_t tokens[3];
  int32_t box[3];
};

ClassBox class_box(const TileGrid& grid, int tile_class) {
  if (tile_class == 0) return {{1, 1, kTileVolume}, {1, 1, kTileVolume}};
  if (tile_class == 8) return {{1, 1, grid.prefix % kTileVolume}, {1, 1, kTileVolume}};
  ClassBox of;
  for (int dim = 0; dim < 3; ++dim) {
    const bool cut = (tile_class >> dim & 1) != 0;
    of.box[dim] = grid.tile[dim], of.tokens[dim] = cut ? grid.tokens[dim] % grid.tile[dim] : grid.tile[dim];
  }
  return of;
}

}  // namespace

bool has_slot_boxes(const TileGrid& grid, Order order, int map) {
  if (order == Order::grid) return map == 0 ? grid.video_tiles() > 0 : grid.prefix > 0;
  const ClassBox of = class_box(grid, map);
  return grid.total_tiles() > 0 && of.tokens[0] * of.tokens[1] * of.tokens[2] > 0;
}

CUtensorMap slot_boxes(DType dtype, const void* tensor, const TileGrid& grid, Order order, int map, int64_t B,
                       int64_t heads, int64_t D) {
  const int64_t row = heads * D * size_of(dtype), rows = grid.rows(order);
  const auto dim = [](int32_t x) { return static_cast<cuuint32_t>(x); };
  if (order == Order::grid && map == 1) {
    return make_map<5>(dtype, tensor, {size(heads * D), size(grid.prefix), 1, 1, size(B)},
                       {size(row), size(rows * row), size(rows * row), size(rows * row)}, {64, 64, 1, 1, 1});
  }
  if (order == Order::grid) {
    const int64_t T = grid.tokens[0], Y = grid.tokens[1], X = grid.tokens[2];
    return make_map<5>(dtype, static_cast<const uint8_t*>(tensor) + grid.prefix * row,
                       {size(heads * D), size(X), size(Y), size(T), size(B)},
                       {size(row), size(X * row), size(Y * X * row), size(rows * row)},
                       {64, dim(grid.tile[2]), dim(grid.tile[1]), dim(grid.tile[0]), 1});
  }
  const ClassBox of = class_box(grid, map);
  const int64_t along_y = of.box[2] * row, along_t = of.box[1] * along_y;
  return make_map<5>(
      dtype, tensor,
      {size(heads * D), size(of.tokens[2]), size(of.tokens[1]), size(of.tokens[0]), size(B * grid.total_tiles())},
      {size(row), size(along_y), size(along_t), size(kTileVolume * row)},
      {64, dim(of.box[2]), dim(of.box[1]), dim(of.box[0]), 1});
}

}  // namespace vsa::cuda::sm90
