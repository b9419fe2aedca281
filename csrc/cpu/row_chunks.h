#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace vsa::cpu {

// The rows of a matrix, in groups of equally many, cut into chunks. Where the cuts are depends on the shape alone, and
// so do the bits of sums over them.
struct RowChunks {
  static constexpr int64_t kLeastRows = 16;
  static constexpr int64_t kMostChunks = 64;  // of a group: bounds the memory of partial sums

  RowChunks(int64_t rows, int64_t groups_)
      : groups(groups_),
        group_rows(rows / groups_),
        chunk_rows(std::max(kLeastRows, (group_rows + kMostChunks - 1) / kMostChunks)),
        per_group((group_rows + chunk_rows - 1) / chunk_rows) {}

  int64_t count() const { return groups * per_group; }
  int64_t group(int64_t chunk) const { return chunk / per_group; }
  int64_t begin(int64_t chunk) const { return group(chunk) * group_rows + chunk % per_group * chunk_rows; }
  int64_t end(int64_t chunk) const { return std::min(begin(chunk) + chunk_rows, (group(chunk) + 1) * group_rows); }

  int64_t groups, group_rows, chunk_rows;
  int64_t per_group;  // chunks
};

// Sums over the rows of each group, [groups, width]: of each chunk first, then these in order.
class GroupSums {
public:
  // `output` may be null: not wanted. `memory` is for the chunks' sums.
  GroupSums(const RowChunks& chunks, int64_t width, float* output, Scratch& memory)
      : chunks_(chunks), width_(width), output_(output) {
    if (output_ != nullptr) partial_ = chunks.per_group == 1 ? output : memory.floats(chunks.count() * width);
  }

  // Zeros for a chunk to add its rows to; null if not wanted.
  float* begin(int64_t chunk) const {
    if (output_ == nullptr) return nullptr;
    float* const sums = partial_ + chunk * width_;
    std::fill_n(sums, width_, 0.0f);
    return sums;
  }

  // Once all chunks are done.
  void finish() const {
    if (output_ == nullptr || chunks_.per_group == 1) return;
    const int64_t blocks = (width_ + kColumns - 1) / kColumns;
    parallel_for(chunks_.groups * blocks, [&](int64_t item) {
      const int64_t group = item / blocks, first = item % blocks * kColumns;
      const int64_t columns = std::min(kColumns, width_ - first);
      float* sum = output_ + group * width_ + first;
      std::fill_n(sum, columns, 0.0f);
      for (int64_t chunk = 0; chunk < chunks_.per_group; ++chunk) {
        const float* partial = partial_ + (group * chunks_.per_group + chunk) * width_ + first;
        for (int64_t c = 0; c < columns; ++c) sum[c] += partial[c];
      }
    });
  }

private:
  static constexpr int64_t kColumns = 256;

  RowChunks chunks_;
  int64_t width_;
  float* output_;
  float* partial_ = nullptr;
};

}  // namespace vsa::cpu
