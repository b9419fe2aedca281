#pragma once

#include <cstdint>

namespace vsa {

// For every (batch, head, query tile) the ascending key tiles, as CSR. Rows are numbered (b * H + h) * Nq + i.
// A null `offsets` stands for full lists: every query tile has all `columns` key tiles.
// The transpose has the same shape with key tiles as rows and ascending query tiles as columns.
struct TileLists {
  const int32_t* offsets;  // [B * H * rows + 1], or null: full lists
  const int32_t* indices;  // [count]
  int64_t rows;            // tiles a head has on the row side
  int64_t columns;         // tiles on the column side
  int64_t count;           // entries that indices has room for; offsets are memory anyone may overwrite
};

}  // namespace vsa
