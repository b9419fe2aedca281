#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace vsa::cuda {

// The rows of a matrix, in groups of equally many, each group cut into parts. A block or a warp works on one part.
struct RowParts {
  int64_t groups, group_rows, part_rows;
  int64_t parts;  // of each group

  // About `wanted` parts in all, of at least `least` rows.
  RowParts(int64_t rows, int64_t groups_, int64_t wanted, int64_t least) : groups(groups_), group_rows(rows / groups_) {
    const int64_t of_group = std::max<int64_t>(wanted / groups, 1);
    part_rows = std::max(least, (group_rows + of_group - 1) / of_group);
    parts = (group_rows + part_rows - 1) / part_rows;
  }

  __host__ __device__ int64_t count() const { return groups * parts; }

  __device__ __forceinline__ int64_t group(int64_t part) const { return part / parts; }
  __device__ __forceinline__ int64_t begin(int64_t part) const {
    return group(part) * group_rows + part % parts * part_rows;
  }
  __device__ __forceinline__ int64_t end(int64_t part) const {
    const int64_t here = begin(part) + part_rows, last = (group(part) + 1) * group_rows;
    return here < last ? here : last;
  }
};

}  // namespace vsa::cuda
