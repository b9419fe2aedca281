#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "cpu/blocks.h"
#include "cpu/kernels.h"
#include "cpu/list_rows.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/token_rows.h"

namespace vsa::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A query tile and its online softmax (flash attention). Scores are kept transposed, [key, query], so that the
// statistics of the queries are plain vectors.
struct QueryTile {
  TileRows rows;
  Scratch q, sum;  // q transposed, [D, query]; P V so far, [query, D]
  alignas(64) float maximum[kTileVolume];
  alignas(64) float total[kTileVolume];

  void begin(const HeadRows& from, const TileRows& rows_, float* scratch) {
    rows = rows_;
    const int64_t stride = row_stride(from.D);
    from.gather(rows, scratch, stride);
    kernels().transpose(rows.count, from.D, scratch, stride, q.floats(from.D * kBlockStride), kBlockStride, width());
    std::fill_n(sum.floats(kTileVolume * stride), kTileVolume * stride, 0.0f);
    std::fill_n(maximum, kTileVolume, -kInfinity);
    std::fill_n(total, kTileVolume, 0.0f);
  }

  int64_t width() const { return round_up(rows.count, 16); }
};

struct ForwardScratch {
  Scratch rows, k, v, scores;
  QueryTile tiles[kGroup];
};

// k and v are [keys, D], gathered: padding never enters a product.
void attend(const FineForward& p, QueryTile& tile, int64_t keys, const float* k, const float* v, float* scores) {
  const int64_t stride = row_stride(p.D);
  float* sum = tile.sum.floats(kTileVolume * stride);
  alignas(64) float correction[kTileVolume];
  score_block(keys, k, tile.rows.count, tile.q.floats(p.D * kBlockStride), p.D, scores);
  const bool rescale = kernels().softmax_step({.keys = keys,
                                               .queries = tile.width(),
                                               .scale = p.scale,
                                               .s = scores,
                                               .s_row = kBlockStride,
                                               .maximum = tile.maximum,
                                               .sum = tile.total,
                                               .correction = correction});
  if (rescale) {
    for (int query = 0; query < tile.rows.count; ++query) {
      for (int64_t d = 0; d < p.D; ++d) sum[query * stride + d] *= correction[query];
    }
  }
  accumulate_block(keys, scores, tile.rows.count, v, p.D, sum);
}

void finish(QueryTile& tile, const HeadRows& output, float* lse) {
  const int64_t stride = row_stride(output.D);
  float* sum = tile.sum.floats(kTileVolume * stride);
  for (int query = 0; query < tile.rows.count; ++query) {
    const bool empty = tile.total[query] == 0;  // no key, or no score above -inf
    const float factor = 1.0f / tile.total[query];
    for (int64_t d = 0; d < output.D; ++d) sum[query * stride + d] = empty ? 0.0f : sum[query * stride + d] * factor;
    lse[tile.rows.row[query]] = empty ? -kInfinity : tile.maximum[query] + std::log(tile.total[query]);
  }
  for (int i = 0; i < tile.rows.padding_count; ++i) lse[tile.rows.padding[i]] = -kInfinity;
  output.scatter(tile.rows, sum, stride);
}

void forward_group(const FineForward& p, int64_t b, int64_t h, int64_t first, int members) {
  thread_local ForwardScratch scratch;
  const int64_t q_rows = p.q_grid.rows(p.order), kv_rows = p.kv_grid.rows(p.order);
  const int64_t kv_head = h / (p.H / p.Hkv), stride = row_stride(p.D);
  const HeadRows q(p.dtype, p.q, b, q_rows, p.H, h, p.D), output(p.dtype, p.output, b, q_rows, p.H, h, p.D);
  const HeadRows k(p.dtype, p.k, b, kv_rows, p.Hkv, kv_head, p.D), v(p.dtype, p.v, b, kv_rows, p.Hkv, kv_head, p.D);
  float* k_rows = scratch.k.floats(kTileVolume * stride);
  float* v_rows = scratch.v.floats(kTileVolume * stride);
  float* scores = scratch.scores.floats(kTileVolume * kBlockStride);

  ListRow lists[kGroup];
  for (int member = 0; member < members; ++member) {
    const TileRows rows(p.q_grid, p.order, first + member);
    scratch.tiles[member].begin(q, rows, scratch.rows.floats(kTileVolume * stride));
    lists[member] = ListRow(p.lists, (b * p.H + h) * p.lists.rows + first + member);
  }
  TileRows keys;
  walk_lists(
      lists, members,
      [&](int64_t key_tile) {
        keys = TileRows(p.kv_grid, p.order, key_tile);
        k.gather(keys, k_rows, stride);
        v.gather(keys, v_rows, stride);
      },
      [&](int member) { attend(p, scratch.tiles[member], keys.count, k_rows, v_rows, scores); });
  for (int member = 0; member < members; ++member) {
    finish(scratch.tiles[member], output, p.lse + (b * p.H + h) * q_rows);
  }
}

}  // namespace

void run(const FineForward& p) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  VSA_CHECK(p.lists.rows == p.q_grid.total_tiles() && p.lists.columns == p.kv_grid.total_tiles(),
            "lists must fit the grids");
  const TileGroups groups(p.B * p.H, p.lists.rows);
  parallel_for(p.B * p.H * groups.groups, [&](int64_t item) {
    const int64_t head = item / groups.groups, group = item % groups.groups;
    forward_group(p, head / p.H, head % p.H, groups.first(group), groups.members(group));
  });
  if (p.combined != nullptr) run(combination_of(p));
}

}  // namespace vsa::cpu
