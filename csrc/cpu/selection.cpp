#include <algorithm>
#include <bit>
#include <limits>

#include "core/error.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace vsa::cpu {
namespace {

constexpr int64_t kBlock = 64;  // query tiles ranked together, and key tiles scored together
constexpr int32_t kForced = std::numeric_limits<int32_t>::max();  // above the rank of +inf

// Integers in the order of the scores: NaN lowest, then -inf, -0 equal to +0.
int32_t rank_of(float score) {
  const int32_t bits = std::bit_cast<int32_t>(score + 0.0f);  // -0 + 0 is +0
  const int32_t ordered = bits ^ (bits >> 31 & 0x7fffffff);
  return score != score ? std::numeric_limits<int32_t>::min() : ordered;
}

// Writes the `count` largest of the scores of tiles [first, last) as an ascending list, ties to the lowest tile.
// `forced` (or -1) is kept whatever its score.
void keep_largest(const float* scores, int64_t first, int64_t last, int64_t count, int64_t forced, int32_t* ranks,
                  int32_t* list) {
  for (int64_t j = first; j < last; ++j) ranks[j] = rank_of(scores[j]);
  if (forced >= 0) ranks[forced] = kForced;
  const int32_t threshold = kernels().kth_largest(last - first, ranks + first, count);
  int64_t above = 0;
  for (int64_t j = first; j < last; ++j) above += ranks[j] > threshold;
  // Without branches, for which tiles are kept cannot be predicted. Ends at the last kept: no write goes past the list.
  int64_t ties = count - above, kept = 0;
  for (int64_t j = first; kept < count; ++j) {
    const bool tie = ranks[j] == threshold;
    list[kept] = static_cast<int32_t>(j);
    kept += (ranks[j] > threshold) | (tie & (ties > 0));
    ties -= tie;
  }
}

struct SelectionScratch {
  Scratch queries, transposed, scores, ranks;
};

// Query tiles [begin, end) of one head: all their scores first, key block by key block, then their lists.
void select_block(const Selection& p, int64_t b, int64_t h, int64_t begin, int64_t end) {
  thread_local SelectionScratch scratch;
  const Kernels& kernel = kernels();
  const int64_t kv_head = h / (p.H / p.Hkv), kept = p.prefix_k + p.top_k;
  const int64_t head_length = p.prefix_q * p.Nk + (p.Nq - p.prefix_q) * kept;
  const float* q = p.q + ((b * p.Nq + begin) * p.H + h) * p.D;
  const float* k = p.k + (b * p.Nk * p.Hkv + kv_head) * p.D;
  const int64_t queries = end - begin, width = round_up(queries, 16), stride = row_stride(kBlock);

  float* q_transposed = scratch.queries.floats(p.D * stride);
  float* block = scratch.transposed.floats(kBlock * stride);  // [key, query]
  const int64_t score_stride = p.scores != nullptr ? p.score_stride : p.Nk;
  float* scores = p.scores != nullptr ? p.scores + ((b * p.H + h) * p.Nq + begin) * score_stride
                                      : scratch.scores.floats(kBlock * p.Nk);  // [query, key]
  kernel.transpose(queries, p.D, q, p.H * p.D, q_transposed, stride, width);
  for (int64_t key = 0; key < p.Nk; key += kBlock) {
    const int64_t keys = std::min(kBlock, p.Nk - key);
    kernel.product({.m = keys,
                    .n = width,
                    .k = p.D,
                    .a = k + key * p.Hkv * p.D,
                    .a_row = p.Hkv * p.D,
                    .a_column = 1,
                    .b = q_transposed,
                    .b_row = stride,
                    .c = block,
                    .c_row = stride,
                    .accumulate = false});
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t i = 0; i < width; ++i) block[j * stride + i] *= p.scale;
    }
    kernel.transpose(keys, queries, block, stride, scores + key, score_stride, keys);
  }

  int32_t* ranks = reinterpret_cast<int32_t*>(scratch.ranks.floats(p.Nk));
  for (int64_t i = begin; i < end; ++i) {
    const int64_t videos = std::max<int64_t>(i - p.prefix_q, 0), prefixes = i - videos;
    const int64_t offset = (b * p.H + h) * head_length + prefixes * p.Nk + videos * kept;
    int32_t* list = p.indices + offset;
    p.offsets[(b * p.H + h) * p.Nq + i] = static_cast<int32_t>(offset);
    const float* row = scores + (i - begin) * score_stride;
    const int64_t forced = p.include_self ? i : -1;
    if (i < p.prefix_q) {
      for (int64_t j = 0; j < p.Nk; ++j) list[j] = static_cast<int32_t>(j);
    } else if (p.prefix_mode == PrefixMode::exempt) {
      for (int64_t j = 0; j < p.prefix_k; ++j) list[j] = static_cast<int32_t>(j);
      keep_largest(row, p.prefix_k, p.Nk, p.top_k, forced, ranks, list + p.prefix_k);
    } else {
      keep_largest(row, 0, p.Nk, kept, forced, ranks, list);
    }
  }
}

}  // namespace

void run(const Selection& p) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  VSA_CHECK(p.top_k >= 1 && p.top_k <= p.Nk - p.prefix_k, "K must be 1 to the number of video key tiles");
  VSA_CHECK(!p.include_self || (p.Nq == p.Nk && p.prefix_q == p.prefix_k), "a tile's own key needs equal grids");
  const int64_t length = p.B * p.H * (p.prefix_q * p.Nk + (p.Nq - p.prefix_q) * (p.prefix_k + p.top_k));
  VSA_CHECK(length <= std::numeric_limits<int32_t>::max(), "lists must have fewer than 2^31 entries");
  const int64_t blocks = (p.Nq + kBlock - 1) / kBlock;
  parallel_for(p.B * p.H * blocks, [&](int64_t item) {
    const int64_t begin = item % blocks * kBlock;
    select_block(p, item / (p.H * blocks), item / blocks % p.H, begin, std::min(begin + kBlock, p.Nq));
  });
  p.offsets[p.B * p.H * p.Nq] = static_cast<int32_t>(length);
}

}  // namespace vsa::cpu
