#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/launch.h"

// Scores of pooled queries with pooled keys pass through memory: kept ones (those of the selection), or made again,
// some at a time, in scratch.
namespace vsa::cuda::coarse {

inline constexpr int64_t kScratchFloats = (128 << 20) / 4;  // of one matrix a score

// Some rows of the matrices [Nq, Nk] of neighbouring heads.
struct Scores {
  float* first;         // of the first head and row
  int64_t head_stride;  // floats from head to head
  int32_t row_stride;   // from row to row: a multiple of 4, so that what lies beyond Nk is nobody's
};

// Query tiles [first_row, first_row + rows) of the heads [first_head, first_head + heads) of all batches: whole groups
// of heads that share a key head, or heads of one group, or rows of one head.
struct Portion {
  int64_t first_head, heads, first_row, rows;
};

inline int64_t padded_row(int64_t Nk) {
  return (Nk + 3) / 4 * 4;
}

// Whether blocks have 64 rows of a product or 32. Large ones read less, small ones share out a small problem more
// evenly. The choice decides the order of sums, so it is made for a GPU of 132 SMs whatever there is, and for all
// portions.
inline bool large_blocks(int64_t heads, int64_t rows) {
  const auto rounds = [&](int64_t block) { return (heads * ((rows + block - 1) / block) + 131) / 132; };
  return rounds(64) * 64 <= rounds(32) * 32;
}

// Calls run(portion) for portions that fit the scratch; what they are depends on the sizes only.
template <class Run>
void in_portions(int64_t heads, int64_t group, int64_t Nq, int64_t row_stride, Run&& run) {
  if (Nq == 0) return;
  const int64_t most = std::max<int64_t>(kScratchFloats / std::max<int64_t>(row_stride, 1) / 64 * 64, 64);  // rows
  int64_t heads_at_once = std::max<int64_t>(most / Nq, 1);
  if (heads_at_once > group) heads_at_once -= heads_at_once % group;
  for (int64_t head = 0, count; head < heads; head += count) {
    count = std::min(heads_at_once, heads - head);
    if (heads_at_once < group) count = std::min(count, group - head % group);
    for (int64_t row = 0; row < Nq; row += most) run(Portion{head, count, row, std::min(most, Nq - row)});
  }
}

// Makes the scores scale * q . k of a portion in `to`, in plain fp32, with the bits of the selection's.
void launch_scores(const CoarseForward&, const Portion&, const Scores& to, const Launch&);
void launch_scores(const CoarseBackward&, const Portion&, const Scores& to, const Launch&);

}  // namespace vsa::cuda::coarse
