#include <algorithm>

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

// The tensors of one query head, as rows.
struct QueryHead {
  HeadRows q, output, doutput;
  const float* lse;
  float* delta;

  QueryHead(const FineBackward& p, int64_t b, int64_t h)
      : q(p.dtype, p.q, b, p.q_grid.rows(p.order), p.H, h, p.D),
        output(p.dtype, p.output, b, p.q_grid.rows(p.order), p.H, h, p.D),
        doutput(p.dtype, p.doutput, b, p.q_grid.rows(p.order), p.H, h, p.D),
        lse(p.lse + (b * p.H + h) * p.q_grid.rows(p.order)),
        delta(p.delta + (b * p.H + h) * p.q_grid.rows(p.order)) {}
};

// lse and delta of the valid tokens of a tile, together; what follows them is 0.
struct RowStatistics {
  alignas(64) float lse[kTileVolume] = {};
  alignas(64) float delta[kTileVolume] = {};

  RowStatistics() = default;
  RowStatistics(const QueryHead& head, const TileRows& tile) {
    for (int i = 0; i < tile.count; ++i) {
      lse[i] = head.lse[tile.row[i]];
      delta[i] = head.delta[tile.row[i]];
    }
  }
};

// x = x * scale, plus the gradient of the pooling where there is one: the tile's over its number of tokens.
void finish(const TileRows& tile, float scale, const float* pooled, int64_t D, float* x, int64_t x_row) {
  const float count = static_cast<float>(tile.count);
  for (int i = 0; i < tile.count; ++i) {
    float* row = x + i * x_row;
    for (int64_t d = 0; d < D; ++d) row[d] = row[d] * scale + (pooled == nullptr ? 0.0f : pooled[d] / count);
  }
}

const float* pooled_row(const float* pooled, int64_t b, int64_t tiles, int64_t tile, int64_t H, int64_t h, int64_t D) {
  return pooled == nullptr ? nullptr : pooled + ((b * tiles + tile) * H + h) * D;
}

void delta_of_tile(const FineBackward& p, int64_t b, int64_t h, int64_t query_tile) {
  thread_local Scratch output_scratch, doutput_scratch;
  const QueryHead head(p, b, h);
  const TileRows queries(p.q_grid, p.order, query_tile);
  const int64_t stride = row_stride(p.D);
  float* output = output_scratch.floats(kTileVolume * stride);
  float* doutput = doutput_scratch.floats(kTileVolume * stride);
  head.output.gather(queries, output, stride);
  head.doutput.gather(queries, doutput, stride);
  for (int i = 0; i < queries.count; ++i) {
    head.delta[queries.row[i]] = kernels().dot(p.D, output + i * stride, doutput + i * stride);
  }
  for (int i = 0; i < queries.padding_count; ++i) head.delta[queries.padding[i]] = 0;
}

// A tile that receives gradients: two of its tensors transposed, [D, token], and the sums so far, [token, D].
struct GradientTile {
  TileRows rows;
  Scratch left, right, sum, more_sum;

  int64_t width() const { return round_up(rows.count, 16); }

  static void transpose(const HeadRows& from, const TileRows& rows, float* scratch, Scratch& to) {
    const int64_t stride = row_stride(from.D);
    from.gather(rows, scratch, stride);
    kernels().transpose(rows.count, from.D, scratch, stride, to.floats(from.D * kBlockStride), kBlockStride,
                        round_up(rows.count, 16));
  }

  static float* zeros(Scratch& sum, int64_t D) {
    float* x = sum.floats(kTileVolume * row_stride(D));
    std::fill_n(x, kTileVolume * row_stride(D), 0.0f);
    return x;
  }
};

struct BackwardScratch {
  Scratch rows, more_rows, scores, gradients;
  GradientTile tiles[kGroup];
};

// Scores, and the gradients of P, of the rows of `a` and `b` (gathered, [rows, D]) against a tile's two tensors.
void score(GradientTile& tile, int64_t rows, const float* a, const float* b, int64_t D, float* scores,
           float* gradients) {
  score_block(rows, a, tile.rows.count, tile.left.floats(D * kBlockStride), D, scores);
  score_block(rows, b, tile.rows.count, tile.right.floats(D * kBlockStride), D, gradients);
}

// dq of query tiles: the sum of dS K over their lists. Blocks are transposed, [key, query], as in the forward.
void dq_of_group(const FineBackward& p, int64_t b, int64_t h, int64_t first, int members) {
  thread_local BackwardScratch scratch;
  const QueryHead head(p, b, h);
  const int64_t kv_head = h / (p.H / p.Hkv), kv_rows = p.kv_grid.rows(p.order), stride = row_stride(p.D);
  const HeadRows k(p.dtype, p.k, b, kv_rows, p.Hkv, kv_head, p.D), v(p.dtype, p.v, b, kv_rows, p.Hkv, kv_head, p.D);
  const HeadRows dq(p.dtype, p.dq, b, p.q_grid.rows(p.order), p.H, h, p.D);
  float* k_rows = scratch.rows.floats(kTileVolume * stride);
  float* v_rows = scratch.more_rows.floats(kTileVolume * stride);
  float* scores = scratch.scores.floats(kTileVolume * kBlockStride);
  float* gradients = scratch.gradients.floats(kTileVolume * kBlockStride);

  ListRow lists[kGroup];
  RowStatistics statistics[kGroup];
  float* sums[kGroup];
  for (int member = 0; member < members; ++member) {
    GradientTile& tile = scratch.tiles[member];
    tile.rows = TileRows(p.q_grid, p.order, first + member);
    GradientTile::transpose(head.q, tile.rows, k_rows, tile.left);
    GradientTile::transpose(head.doutput, tile.rows, k_rows, tile.right);
    statistics[member] = RowStatistics(head, tile.rows);
    lists[member] = ListRow(p.lists, (b * p.H + h) * p.lists.rows + first + member);
    sums[member] = GradientTile::zeros(tile.sum, p.D);
  }
  TileRows keys;
  const auto load = [&](int64_t key_tile) {
    keys = TileRows(p.kv_grid, p.order, key_tile);
    k.gather(keys, k_rows, stride);
    v.gather(keys, v_rows, stride);
  };
  walk_lists(lists, members, load, [&](int member) {
    GradientTile& tile = scratch.tiles[member];
    score(tile, keys.count, k_rows, v_rows, p.D, scores, gradients);
    kernels().softmax_gradient_by_column({.rows = keys.count,
                                          .columns = tile.width(),
                                          .scale = p.scale,
                                          .s = scores,
                                          .dp = gradients,
                                          .stride = kBlockStride,
                                          .lse = statistics[member].lse,
                                          .delta = statistics[member].delta});
    accumulate_block(keys.count, gradients, tile.rows.count, k_rows, p.D, sums[member]);
  });
  for (int member = 0; member < members; ++member) {
    const TileRows& rows = scratch.tiles[member].rows;
    const float* pooled = pooled_row(p.dq_pooled, b, p.lists.rows, first + member, p.H, h, p.D);
    finish(rows, p.scale, pooled, p.D, sums[member], stride);
    dq.scatter(rows, sums[member], stride);
  }
}

// dk and dv of key tiles: the sums of dS^T Q and P^T dO over the query tiles that selected them, head after head of
// the group of query heads. Blocks are [query, key].
void dk_dv_of_group(const FineBackward& p, int64_t b, int64_t kv_head, int64_t first, int members) {
  thread_local BackwardScratch scratch;
  const int64_t kv_rows = p.kv_grid.rows(p.order), kv_tiles = p.transposed.rows, stride = row_stride(p.D);
  const HeadRows k(p.dtype, p.k, b, kv_rows, p.Hkv, kv_head, p.D), v(p.dtype, p.v, b, kv_rows, p.Hkv, kv_head, p.D);
  const HeadRows dk(p.dtype, p.dk, b, kv_rows, p.Hkv, kv_head, p.D);
  const HeadRows dv(p.dtype, p.dv, b, kv_rows, p.Hkv, kv_head, p.D);
  float* q_rows = scratch.rows.floats(kTileVolume * stride);
  float* doutput_rows = scratch.more_rows.floats(kTileVolume * stride);
  float* scores = scratch.scores.floats(kTileVolume * kBlockStride);
  float* gradients = scratch.gradients.floats(kTileVolume * kBlockStride);

  float *dk_sums[kGroup], *dv_sums[kGroup];
  for (int member = 0; member < members; ++member) {
    GradientTile& tile = scratch.tiles[member];
    tile.rows = TileRows(p.kv_grid, p.order, first + member);
    GradientTile::transpose(k, tile.rows, q_rows, tile.left);
    GradientTile::transpose(v, tile.rows, q_rows, tile.right);
    dk_sums[member] = GradientTile::zeros(tile.sum, p.D);
    dv_sums[member] = GradientTile::zeros(tile.more_sum, p.D);
  }
  const int64_t group = p.H / p.Hkv;
  for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    const QueryHead head(p, b, h);
    ListRow lists[kGroup];
    for (int member = 0; member < members; ++member) {
      lists[member] = ListRow(p.transposed, (b * p.H + h) * kv_tiles + first + member);
    }
    TileRows queries;
    RowStatistics statistics;
    const auto load = [&](int64_t query_tile) {
      queries = TileRows(p.q_grid, p.order, query_tile);
      statistics = RowStatistics(head, queries);
      head.q.gather(queries, q_rows, stride);
      head.doutput.gather(queries, doutput_rows, stride);
    };
    walk_lists(lists, members, load, [&](int member) {
      GradientTile& tile = scratch.tiles[member];
      score(tile, queries.count, q_rows, doutput_rows, p.D, scores, gradients);
      kernels().softmax_gradient_by_row({.rows = queries.count,
                                         .columns = tile.width(),
                                         .scale = p.scale,
                                         .s = scores,
                                         .dp = gradients,
                                         .stride = kBlockStride,
                                         .lse = statistics.lse,
                                         .delta = statistics.delta});
      accumulate_block(queries.count, scores, tile.rows.count, doutput_rows, p.D, dv_sums[member]);
      accumulate_block(queries.count, gradients, tile.rows.count, q_rows, p.D, dk_sums[member]);
    });
  }
  for (int member = 0; member < members; ++member) {
    const TileRows& rows = scratch.tiles[member].rows;
    const int64_t tile = first + member;
    finish(rows, p.scale, pooled_row(p.dk_pooled, b, kv_tiles, tile, p.Hkv, kv_head, p.D), p.D, dk_sums[member],
           stride);
    finish(rows, 1.0f, pooled_row(p.dv_pooled, b, kv_tiles, tile, p.Hkv, kv_head, p.D), p.D, dv_sums[member], stride);
    dk.scatter(rows, dk_sums[member], stride);
    dv.scatter(rows, dv_sums[member], stride);
  }
}

}  // namespace

void run(const FineBackward& p) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  const int64_t q_tiles = p.q_grid.total_tiles(), kv_tiles = p.kv_grid.total_tiles();
  VSA_CHECK(p.lists.rows == q_tiles && p.lists.columns == kv_tiles, "lists must fit the grids");
  VSA_CHECK(p.transposed.rows == kv_tiles && p.transposed.columns == q_tiles, "transposed lists must fit the grids");
  if (!p.delta_ready) {
    parallel_for(p.B * p.H * q_tiles, [&](int64_t item) {
      const int64_t head = item / q_tiles;
      delta_of_tile(p, head / p.H, head % p.H, item % q_tiles);
    });
  }
  const TileGroups query_groups(p.B * p.H, q_tiles), key_groups(p.B * p.Hkv, kv_tiles);
  parallel_for(p.B * p.Hkv * key_groups.groups, [&](int64_t item) {
    const int64_t head = item / key_groups.groups, group = item % key_groups.groups;
    dk_dv_of_group(p, head / p.Hkv, head % p.Hkv, key_groups.first(group), key_groups.members(group));
  });
  // Last: dq may lie where doutput does, of which a tile's dq needs that tile's alone.
  parallel_for(p.B * p.H * query_groups.groups, [&](int64_t item) {
    const int64_t head = item / query_groups.groups, group = item % query_groups.groups;
    dq_of_group(p, head / p.H, head % p.H, query_groups.first(group), query_groups.members(group));
  });
}

}  // namespace vsa::cpu
