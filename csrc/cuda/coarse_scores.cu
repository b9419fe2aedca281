#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/coarse_scores.cuh"
#include "cuda/kernel_attributes.h"
#include "cuda/selection_scores.cuh"

namespace vsa::cuda::coarse {
namespace {

struct Args {
  int32_t H, group, D, Nq, Nk;
  int32_t first_head, first_row, rows;
  int32_t row_blocks, column_blocks;  // of a head
  float scale;
  const float* q;
  const float* k;
  Scores to;
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) coarse_scores(const __grid_constant__ Args a) {
  extern __shared__ float4 shared_memory[];
  const int row_block = static_cast<int>(blockIdx.x) / a.column_blocks, index = row_block / a.row_blocks;
  const int head = a.first_head + index, b = head / a.H, h = head - b * a.H, Hkv = a.H / a.group;
  const int row = (row_block - index * a.row_blocks) * S::kRows;
  selection::ScoreBlock block;
  block.q = a.q + (int64_t{b} * a.Nq * a.H + h) * a.D;
  block.k = a.k + (int64_t{b} * a.Nk * Hkv + h / a.group) * a.D;
  block.q_stride = a.H * a.D, block.k_stride = Hkv * a.D;
  block.Nq = a.first_row + a.rows, block.Nk = a.Nk, block.D = a.D;
  block.first_row = a.first_row + row;
  block.first_column = (static_cast<int>(blockIdx.x) - row_block * a.column_blocks) * S::kColumns;
  block.scale = a.scale;
  block.scores = a.to.first + index * a.to.head_stride + int64_t{row} * a.to.row_stride;
  block.row_stride = a.to.row_stride, block.wide = true;
  selection::score<S>(block, reinterpret_cast<float*>(shared_memory));
}

template <class S>
void launch_as(Args a, int64_t heads, const Launch& on) {
  a.row_blocks = (a.rows + S::kRows - 1) / S::kRows, a.column_blocks = (a.Nk + S::kColumns - 1) / S::kColumns;
  const int64_t blocks = heads * a.row_blocks * a.column_blocks;
  if (blocks == 0) return;
  VSA_CHECK(blocks <= INT32_MAX, "too many tiles for a launch");
  allow_shared_memory(coarse_scores<S>, S::kSharedBytes, "coarse_scores");
  prefer_shared_memory(coarse_scores<S>, "coarse_scores");
  launch_kernel(coarse_scores<S>, "coarse_scores", on, static_cast<unsigned>(blocks), S::kThreads, S::kSharedBytes, a);
}

template <class Coarse>
void launch_for(const Coarse& p, const Portion& portion, const Scores& to, const Launch& on) {
  VSA_CHECK(p.H * p.D <= INT32_MAX, "a tile's heads must have fewer than 2^31 elements");
  Args a{};
  a.H = static_cast<int32_t>(p.H), a.group = static_cast<int32_t>(p.H / p.Hkv), a.D = static_cast<int32_t>(p.D);
  a.Nq = static_cast<int32_t>(p.Nq), a.Nk = static_cast<int32_t>(p.Nk);
  a.first_head = static_cast<int32_t>(portion.first_head);
  a.first_row = static_cast<int32_t>(portion.first_row), a.rows = static_cast<int32_t>(portion.rows);
  a.scale = p.scale, a.q = p.q, a.k = p.k, a.to = to;
  // Small blocks where large ones would leave SMs without work; the sums are the same.
  const int64_t blocks = portion.heads * ((portion.rows + 47) / 48) * ((p.Nk + 127) / 128);
  const auto launch =
      blocks < 2 * on.sm_count ? launch_as<selection::Shape<1, 2, 8>> : launch_as<selection::Shape<3, 2, 6>>;
  launch(a, portion.heads, on);
}

}  // namespace

void launch_scores(const CoarseForward& p, const Portion& portion, const Scores& to, const Launch& on) {
  launch_for(p, portion, to, on);
}

void launch_scores(const CoarseBackward& p, const Portion& portion, const Scores& to, const Launch& on) {
  launch_for(p, portion, to, on);
}

}  // namespace vsa::cuda::coarse
