#pragma once

#include <napi.h>

#include "core/tile_grid.h"

namespace vsa::binding {

// The grid of a handle that tileGrid() returned. Operations take handles, not the numbers: those are read and checked
// once, not in every call.
const TileGrid& grid_of(Napi::Value value);

void export_grids(Napi::Env env, Napi::Object exports);

}  // namespace vsa::binding
