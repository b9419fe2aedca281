#include <algorithm>
#include <cmath>

#include "cuda/chain.h"
#include "cuda/check.h"
#include "cuda/kernel_attributes.h"
#include "cuda/launch.h"
#include "cuda/padding.h"
#include "cuda/selection_row.cuh"
#include "cuda/selection_scores.cuh"

// Two kernels: one makes scores (selection_scores.cuh), one selects from a row with every warp (selection_row.cuh).
// Scores pass from one to the other through scratch, some heads or rows at a time, so that it stays small and mostly
// in L2. One fused kernel was slower (NOTES.md): sums and ranks want different shares of an SM's registers.
namespace vsa::cuda {
namespace selection {
namespace {

constexpr int64_t kScratchBytes = 128 << 20;  // of scores
constexpr int kSelectWarps = 4;

struct Args {
  Selection p;
  Guess guess;
  int column_blocks;  // blocks that share the query tiles
  int blocks_a_head;  // of query tiles
  int first_item;     // block of query tiles, of all heads, with which this launch begins
  int items;          // of this launch
  float* scores;      // scratch: [items * kRows][score_stride], or null: p.scores takes them
  int score_stride;   // of p.scores, in scratch a multiple of 4
  bool wide_scores;   // rows of scores allow 16-byte accesses
  uint32_t* ranks;    // scratch for ranks that shared memory cannot hold: [rows of this launch][128 * rank_quads]
  int rank_quads;     // of a lane
};

// A block of query tiles of one head.
struct Item {
  int b, h, head;   // head = b * H + h
  int begin, rows;  // query tiles [begin, begin + rows)
  float* scores;    // row of the first

  __device__ __forceinline__ Item(const Args& a, int index, int block) {
    const int H = static_cast<int>(a.p.H), Nq = static_cast<int>(a.p.Nq), item = a.first_item + index;
    head = item / a.blocks_a_head, b = head / H, h = head - b * H;
    begin = (item - head * a.blocks_a_head) * block;
    rows = min(block, Nq - begin);
    const int64_t row = a.scores != nullptr ? static_cast<int64_t>(index) * block : head * a.p.Nq + begin;
    scores = (a.scores != nullptr ? a.scores : a.p.scores) + row * a.score_stride;
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) selection_scores(const __grid_constant__ Args a) {
  extern __shared__ float4 shared_memory[];
  const Selection& p = a.p;
  const int index = static_cast<int>(blockIdx.x) / a.column_blocks;
  const Item item(a, index, S::kRows);
  const int D = static_cast<int>(p.D), group = static_cast<int>(p.H) / static_cast<int>(p.Hkv);
  ScoreBlock block;
  block.q = p.q + (item.b * p.Nq * p.H + item.h) * D;
  block.k = p.k + (item.b * p.Nk * p.Hkv + item.h / group) * D;
  block.q_stride = static_cast<int>(p.H) * D, block.k_stride = static_cast<int>(p.Hkv) * D;
  block.Nq = static_cast<int>(p.Nq), block.Nk = static_cast<int>(p.Nk), block.D = D;
  block.first_row = item.begin;
  block.first_column = (static_cast<int>(blockIdx.x) - index * a.column_blocks) * S::kColumns;
  block.scale = p.scale;
  block.scores = item.scores, block.row_stride = a.score_stride, block.wide = a.wide_scores;
  score<S>(block, reinterpret_cast<float*>(shared_memory));
}

// A warp: one query tile's list and offset.
template <class Ranks>
__device__ __forceinline__ void select_row(const Args& a, int head, int i, const float* row, Ranks& ranks) {
  const Selection& p = a.p;
  const int lane = threadIdx.x % 32, Nk = static_cast<int>(p.Nk), prefix_k = static_cast<int>(p.prefix_k);
  const int listed = prefix_k + static_cast<int>(p.top_k);
  const int first = p.prefix_mode == PrefixMode::exempt ? prefix_k : 0;
  const int videos = max(i - static_cast<int>(p.prefix_q), 0), prefixes = i - videos;
  const int64_t head_length = p.prefix_q * Nk + (p.Nq - p.prefix_q) * listed;
  const auto offset = static_cast<int32_t>(head * head_length + prefixes * Nk + videos * listed);
  if (lane == 0) p.offsets[head * p.Nq + i] = offset;
  if (lane == 0 && head == p.B * p.H - 1 && i == p.Nq - 1) {
    p.offsets[p.B * p.H * p.Nq] = static_cast<int32_t>(p.B * p.H * head_length);
  }
  int32_t* list = p.indices + offset;
  const bool all = i < p.prefix_q;
#pragma unroll 1
  for (int j = lane; j < (all ? Nk : first); j += 32) list[j] = j;
  if (all) return;

  const Candidates candidates{first, Nk, p.include_self ? i : -1};
  float guess, step;
  if (a.wide_scores) {
    const auto load = [&](int quad) {
      const int j = 128 * quad + 4 * lane;
      return j < Nk ? *reinterpret_cast<const uint4*>(row + j) : uint4{};
    };
    guess = rank_row(ranks, candidates, a.guess, lane, step, load);
  } else {
    const auto load = [&](int quad) {
      const float* const from = row + 128 * quad + 4 * lane;
      const int left = Nk - 128 * quad - 4 * lane;
      const auto bits = [&](int e) { return e < left ? __float_as_uint(from[e]) : 0u; };
      return uint4{bits(0), bits(1), bits(2), bits(3)};
    };
    guess = rank_row(ranks, candidates, a.guess, lane, step, load);
  }
  const Threshold threshold = find_threshold(ranks, Nk - first, listed - first, p.include_self, guess, step);
  if (threshold.ties > 0) force_ties(ranks, threshold, lane);
  write_list(ranks, threshold.above, lane, list + first);
}

// kQuads: quads of ranks in a lane's registers; 0: ranks in shared memory or in scratch.
template <int kQuads>
__global__ void __launch_bounds__(32 * kSelectWarps) selection_rows(Args a, int block) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = static_cast<int>(blockIdx.x) * (blockDim.x / 32) + warp;
  const int index = row / block, r = row - index * block;
  if (index >= a.items) return;
  const Item item(a, index, block);
  if (r >= item.rows) return;
  const float* scores = item.scores + static_cast<int64_t>(r) * a.score_stride;
  if constexpr (kQuads > 0) {
    RegisterRanks<kQuads> ranks;
    select_row(a, item.head, item.begin + r, scores, ranks);
  } else {
    extern __shared__ uint4 rank_buffers[];
    uint4* const quads = a.ranks == nullptr ? rank_buffers + warp * 32 * a.rank_quads
                                            : reinterpret_cast<uint4*>(a.ranks) + row * (32ll * a.rank_quads);
    MemoryRanks ranks{quads + lane, a.rank_quads};
    select_row(a, item.head, item.begin + r, scores, ranks);
  }
}

Guess find_guess(int64_t keep, int64_t candidates) {
  const double share = (static_cast<double>(keep) - 0.5) / static_cast<double>(candidates);
  double low = -8, high = 8;  // deviations; the share above falls
  for (int i = 0; i < 30; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(middle * std::sqrt(0.5)) > share ? low : high) = middle;
  }
  const double density = std::exp(-low * low / 2) / std::sqrt(2 * 3.14159265358979323846);
  return {static_cast<float>(low), static_cast<float>(1 / (static_cast<double>(candidates) * density))};
}

// The same problem comes again and again, and finding its guess takes as long as a launch.
Guess guess_for(int64_t keep, int64_t candidates) {
  thread_local int64_t last_keep = -1, last_candidates = -1;
  thread_local Guess guess;
  if (keep != last_keep || candidates != last_candidates) guess = find_guess(keep, candidates);
  last_keep = keep, last_candidates = candidates;
  return guess;
}

template <int kQuads>
void launch_rows(const Args& a, int block, int warps, int64_t shared_bytes, const Launch& on) {
  allow_shared_memory(selection_rows<kQuads>, static_cast<int>(shared_bytes), "selection_rows");
  const int64_t rows = static_cast<int64_t>(a.items) * block;
  launch_kernel(selection_rows<kQuads>, "selection_rows", on, static_cast<uint32_t>((rows + warps - 1) / warps),
                32 * warps, static_cast<size_t>(shared_bytes), a, block);
}

template <class S>
void launch_as(const Selection& p, const Launch& on) {
  Args a{};
  a.p = p;
  a.blocks_a_head = static_cast<int>((p.Nq + S::kRows - 1) / S::kRows);
  const int items = static_cast<int>(p.B * p.H * a.blocks_a_head);  // lists have under 2^31 entries, rows fewer
  a.column_blocks = static_cast<int>((p.Nk + S::kColumns - 1) / S::kColumns);
  const bool exempt = p.prefix_mode == PrefixMode::exempt;
  a.guess = guess_for(exempt ? p.top_k : p.top_k + p.prefix_k, exempt ? p.Nk - p.prefix_k : p.Nk);
  a.score_stride = static_cast<int>(p.scores != nullptr ? p.score_stride : (p.Nk + 3) / 4 * 4);
  a.wide_scores = a.score_stride % 4 == 0 && (reinterpret_cast<uintptr_t>(p.scores) & 15) == 0;
  a.rank_quads = static_cast<int>((p.Nk + 127) / 128);

  const int64_t item_bytes = static_cast<int64_t>(S::kRows) * a.rank_quads * 512;
  const int batch = static_cast<int>(std::min<int64_t>(items, std::max<int64_t>(kScratchBytes / item_bytes, 1)));
  if (p.scores == nullptr) a.scores = on.scratch_of<float>(static_cast<int64_t>(batch) * S::kRows * a.score_stride);

  allow_shared_memory(selection_scores<S>, S::kSharedBytes, "selection_scores");
  prefer_shared_memory(selection_scores<S>, "selection_scores");

  const int64_t row_bytes = a.rank_quads * 512ll;
  const int buffers = static_cast<int>(std::min<int64_t>(on.shared_memory / row_bytes, kSelectWarps));
  if (a.rank_quads > 32 && buffers == 0) a.ranks = on.scratch_of<uint32_t>(batch * item_bytes / 4);

  clear_padding(a);
  for (a.first_item = 0; a.first_item < items; a.first_item += batch) {
    a.items = std::min(batch, items - a.first_item);
    VSA_CHECK(static_cast<int64_t>(a.items) * a.column_blocks <= INT32_MAX, "too many tiles for one launch");
    launch_kernel(selection_scores<S>, "selection_scores", on, static_cast<uint32_t>(a.items * a.column_blocks),
                  S::kThreads, S::kSharedBytes, a);
    if (a.rank_quads <= 5) {
      launch_rows<5>(a, S::kRows, kSelectWarps, 0, on);
    } else if (a.rank_quads <= 12) {
      launch_rows<12>(a, S::kRows, kSelectWarps, 0, on);
    } else if (a.rank_quads <= 32) {
      launch_rows<32>(a, S::kRows, kSelectWarps, 0, on);
    } else if (buffers > 0) {
      launch_rows<0>(a, S::kRows, buffers, buffers * row_bytes, on);
    } else {
      launch_rows<0>(a, S::kRows, kSelectWarps, 0, on);
    }
  }
}

}  // namespace
}  // namespace selection

void launch(const Selection& p, const Launch& on) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  VSA_CHECK(p.top_k >= 1 && p.top_k <= p.Nk - p.prefix_k, "K must be 1 to the number of video key tiles");
  VSA_CHECK(!p.include_self || (p.Nq == p.Nk && p.prefix_q == p.prefix_k), "a tile's own key needs equal grids");
  const int64_t length = p.B * p.H * (p.prefix_q * p.Nk + (p.Nq - p.prefix_q) * (p.prefix_k + p.top_k));
  VSA_CHECK(length <= INT32_MAX, "lists must have fewer than 2^31 entries");
  if (p.B * p.H * p.Nq == 0) {
    check(cudaMemsetAsync(p.offsets, 0, sizeof(int32_t), on.stream()), "cudaMemsetAsync");
    return;
  }
  VSA_CHECK(p.H * p.D <= INT32_MAX, "a tile's heads must have fewer than 2^31 elements");
  // Small blocks read shared memory more often, but leave no SM without work.
  const int64_t blocks = p.B * p.H * ((p.Nq + 47) / 48) * ((p.Nk + 127) / 128);
  if (blocks < 2 * on.sm_count) {
    selection::launch_as<selection::Shape<1, 2, 8>>(p, on);
  } else {
    selection::launch_as<selection::Shape<3, 2, 6>>(p, on);
  }
}

}  // namespace vsa::cuda
