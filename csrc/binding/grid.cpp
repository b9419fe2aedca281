#include "binding/grid.h"

#include <array>
#include <cstdint>

#include "binding/throw.h"
#include "core/error.h"

namespace vsa::binding {
namespace {

// What JavaScript holds, told apart from other things by its first word as memory is (binding/handle.h).
struct GridHandle {
  static constexpr uint64_t kMagic = 0x51c4d2e86a0f97b3;
  const uint64_t magic = kMagic;
  TileGrid grid;
};

// tileGrid([T, Y, X, ct, cy, cx, prefix]) -> handle
Napi::Value tile_grid(const Napi::CallbackInfo& info) {
  const auto array = info[0].As<Napi::Float64Array>();
  VSA_CHECK(array.IsTypedArray() && array.TypedArrayType() == napi_float64_array && array.ElementLength() == 7,
            "a grid is seven numbers");
  std::array<int64_t, 7> n;
  for (size_t i = 0; i < 7; ++i) n[i] = static_cast<int64_t>(array[i]);
  const TileGrid grid{
      {n[0], n[1], n[2]}, {static_cast<int32_t>(n[3]), static_cast<int32_t>(n[4]), static_cast<int32_t>(n[5])}, n[6]};
  constexpr int64_t kMost = int64_t{1} << 40;
  for (int dim = 0; dim < 3; ++dim) {
    VSA_CHECK(n[dim] >= 1 && n[dim] < kMost, "grid dims must be positive");
    VSA_CHECK(n[dim + 3] >= 1 && n[dim + 3] <= kTileVolume, "tile dims must be positive");
  }
  VSA_CHECK(n[3] * n[4] * n[5] == kTileVolume, "a tile has 64 slots");
  VSA_CHECK(n[6] >= 0 && n[6] < kMost, "the prefix must not be negative");
  VSA_CHECK(grid.total_tiles() <= INT32_MAX, "tiles must be counted in 32 bits");
  return Napi::External<GridHandle>::New(info.Env(), new GridHandle{.grid = grid},
                                         [](Napi::Env, GridHandle* handle) { delete handle; });
}

}  // namespace

const TileGrid& grid_of(Napi::Value value) {
  void* data = nullptr;
  const bool external = napi_get_value_external(value.Env(), value, &data) == napi_ok && data != nullptr;
  const auto* const handle = static_cast<const GridHandle*>(data);
  if (!external || handle->magic != GridHandle::kMagic)
    throw Error("ERR_INTERNAL", "the handle of a grid was expected");
  return handle->grid;
}

void export_grids(Napi::Env env, Napi::Object exports) {
  exports.Set("tileGrid", function<tile_grid>(env));
}

}  // namespace vsa::binding
