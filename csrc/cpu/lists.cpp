#include <algorithm>
#include <memory>
#include <new>

#include "core/error.h"
#include "cpu/list_rows.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"

namespace vsa::cpu {

// A counting sort by key tile, head by head: a head has as many entries in the transpose, so it begins where it began.
void run(const TransposeLists& p) {
  VSA_CHECK(p.lists.offsets != nullptr, "full lists have no transpose in memory");
  const int64_t heads = p.B * p.H, rows = p.lists.rows, columns = p.lists.columns;
  parallel_for(heads, [&](int64_t head) {
    int32_t* offsets = p.offsets + head * columns;
    std::fill_n(offsets, columns, 0);
    for (int64_t row = 0; row < rows; ++row) {
      const ListRow list(p.lists, head * rows + row);
      for (int64_t i = 0; i < list.count; ++i) ++offsets[list[i]];
    }
    const std::unique_ptr<int32_t[]> next(new (std::nothrow) int32_t[static_cast<size_t>(columns)]);
    if (next == nullptr) throw OutOfMemory("no memory to transpose lists", columns * 4, 0, 0);
    int32_t position = p.lists.offsets[head * rows];
    for (int64_t column = 0; column < columns; ++column) {
      const int32_t count = offsets[column];
      offsets[column] = next[static_cast<size_t>(column)] = position;
      position += count;
    }
    for (int64_t row = 0; row < rows; ++row) {
      const ListRow list(p.lists, head * rows + row);
      for (int64_t i = 0; i < list.count; ++i) {
        p.indices[next[static_cast<size_t>(list[i])]++] = static_cast<int32_t>(row);
      }
    }
  });
  p.offsets[heads * columns] = p.lists.offsets[heads * rows];
}

void run(const ListsToBits& p) {
  const int64_t words = (p.lists.columns + 31) / 32;
  parallel_for(p.B * p.H * p.lists.rows, [&](int64_t row) {
    int32_t* bits = p.bits + row * words;
    std::fill_n(bits, words, 0);
    const ListRow list(p.lists, row);
    for (int64_t i = 0; i < list.count; ++i) {
      const int64_t tile = list[i];
      const uint32_t word = static_cast<uint32_t>(bits[tile / 32]) | 1u << (tile % 32);
      bits[tile / 32] = static_cast<int32_t>(word);
    }
  });
}

}  // namespace vsa::cpu
