#pragma once

#include <cstdint>

#include "core/error.h"
#include "core/tile_lists.h"

namespace vsa::cpu {

// One row of TileLists: the tiles of a list, in ascending order.
struct ListRow {
  const int32_t* indices;  // null: every column
  int64_t count;
  int64_t columns;

  ListRow(const TileLists& lists, int64_t row) : indices(nullptr), count(lists.columns), columns(lists.columns) {
    if (lists.offsets == nullptr) return;
    const int64_t begin = lists.offsets[row], end = lists.offsets[row + 1];
    VSA_CHECK(begin >= 0 && begin <= end, "offsets of lists must ascend");
    indices = lists.indices + begin;
    count = end - begin;
  }

  int64_t operator[](int64_t i) const {
    if (indices == nullptr) return i;
    const int64_t tile = indices[i];
    VSA_CHECK(tile >= 0 && tile < columns, "a list names a tile that does not exist");
    return tile;
  }
};

}  // namespace vsa::cpu
