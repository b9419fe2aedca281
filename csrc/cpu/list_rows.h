#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/error.h"
#include "core/tile_lists.h"
#include "cpu/parallel.h"

namespace vsa::cpu {

// One row of TileLists: the tiles of a list, in ascending order.
struct ListRow {
  const int32_t* indices = nullptr;  // null: every column
  int64_t count = 0;
  int64_t columns = 0;

  ListRow() = default;
  ListRow(const TileLists& lists, int64_t row) : count(lists.columns), columns(lists.columns) {
    if (lists.offsets == nullptr) return;
    const int64_t begin = lists.offsets[row], end = lists.offsets[row + 1];
    VSA_CHECK(begin >= 0 && begin <= end && end <= lists.count, "offsets of lists must ascend within the entries");
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

// Neighbouring tiles select much the same: a work item takes up to kGroup of them, and what it gathers for one it has
// for all. Each tile still goes through its own list in its own order, so the group's size changes no bit.
constexpr int kGroup = 4;

struct TileGroups {
  int64_t tiles;   // of a head
  int64_t size;    // tiles in a group, the last of a head excepted
  int64_t groups;  // of a head

  // Smaller groups where there would not be enough of them for all threads to end at about the same time.
  TileGroups(int64_t heads, int64_t tiles_) : tiles(tiles_) {
    size = std::clamp<int64_t>(heads * tiles / (4 * threads()), 1, kGroup);
    groups = (tiles + size - 1) / size;
  }

  int64_t first(int64_t group) const { return group * size; }
  int members(int64_t group) const { return static_cast<int>(std::min(size, tiles - first(group))); }
};

// Goes through the lists of a group together: load(tile) once for a tile, then use(member) for every member that has
// it.
template <class Load, class Use>
void walk_lists(const ListRow* lists, int members, const Load& load, const Use& use) {
  constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
  int64_t next[kGroup] = {};
  const auto front = [&](int member) {
    return next[member] < lists[member].count ? lists[member][next[member]] : kEnd;
  };
  for (;;) {
    int64_t tile = kEnd;
    for (int member = 0; member < members; ++member) tile = std::min(tile, front(member));
    if (tile == kEnd) return;
    load(tile);
    for (int member = 0; member < members; ++member) {
      if (front(member) != tile) continue;
      use(member);
      ++next[member];
    }
  }
}

}  // namespace vsa::cpu
