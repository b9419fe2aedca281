#pragma once

#include "core/tile_lists.h"

namespace vsa {

// For every (batch, head, key tile) the ascending query tiles that selected it.
struct TransposeLists {
  int64_t B, H;
  TileLists lists;   // not full: offsets is not null
  int32_t* offsets;  // [B * H * lists.columns + 1]
  int32_t* indices;  // as many as lists has
};

// Bit j % 32 of word j / 32 of a row is set where the row's list holds j.
struct ListsToBits {
  int64_t B, H;
  TileLists lists;  // may be full
  int32_t* bits;    // [B, H, rows, ceil(columns / 32)]
};

}  // namespace vsa
