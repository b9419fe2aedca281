#include <algorithm>

#include "core/error.h"
#include "cpu/kernels.h"
#include "cpu/list_rows.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/token_rows.h"

namespace vsa::cpu {
namespace {

constexpr int64_t kBlockStride = row_stride(kTileVolume);  // of a block of scores

struct BackwardScratch {
  Scratch rows, more_rows, left, right, scores, gradients, sum, more_sum;
};

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
  thread_local BackwardScratch scratch;
  const QueryHead head(p, b, h);
  const TileRows queries(p.q_grid, p.order, query_tile);
  const int64_t stride = row_stride(p.D);
  float* output = scratch.rows.floats(kTileVolume * stride);
  float* doutput = scratch.more_rows.floats(kTileVolume * stride);
  head.output.gather(queries, output, stride);
  head.doutput.gather(queries, doutput, stride);
  for (int i = 0; i < queries.count; ++i) {
    head.delta[queries.row[i]] = kernels().dot(p.D, output + i * stride, doutput + i * stride);
  }
  for (int i = 0; i < queries.padding_count; ++i) head.delta[queries.padding[i]] = 0;
}

// dq of a query tile: the sum of dS K over its list, with scores and dS transposed, [key, query], as in the forward.
void dq_of_tile(const FineBackward& p, int64_t b, int64_t h, int64_t query_tile) {
  thread_local BackwardScratch scratch;
  const Kernels& kernel = kernels();
  const QueryHead head(p, b, h);
  const int64_t kv_head = h / (p.H / p.Hkv), kv_rows = p.kv_grid.rows(p.order);
  const HeadRows k(p.dtype, p.k, b, kv_rows, p.Hkv, kv_head, p.D), v(p.dtype, p.v, b, kv_rows, p.Hkv, kv_head, p.D);
  const HeadRows dq(p.dtype, p.dq, b, p.q_grid.rows(p.order), p.H, h, p.D);
  const TileRows queries(p.q_grid, p.order, query_tile);
  const RowStatistics statistics(head, queries);
  const ListRow list(p.lists, (b * p.H + h) * p.lists.rows + query_tile);

  const int64_t width = round_up(p.D, 16), stride = row_stride(p.D), query_width = round_up(queries.count, 16);
  float* rows = scratch.rows.floats(kTileVolume * stride);
  float* q_transposed = scratch.left.floats(p.D * kBlockStride);
  float* doutput_transposed = scratch.right.floats(p.D * kBlockStride);
  float* v_rows = scratch.more_rows.floats(kTileVolume * stride);
  float* scores = scratch.scores.floats(kTileVolume * kBlockStride);
  float* gradients = scratch.gradients.floats(kTileVolume * kBlockStride);
  float* sum = scratch.sum.floats(kTileVolume * stride);
  std::fill_n(sum, kTileVolume * stride, 0.0f);

  if (list.count > 0) {
    head.q.gather(queries, rows, stride);
    kernel.transpose(queries.count, p.D, rows, stride, q_transposed, kBlockStride, query_width);
    head.doutput.gather(queries, rows, stride);
    kernel.transpose(queries.count, p.D, rows, stride, doutput_transposed, kBlockStride, query_width);
  }
  for (int64_t i = 0; i < list.count; ++i) {
    const TileRows keys(p.kv_grid, p.order, list[i]);
    k.gather(keys, rows, stride);
    v.gather(keys, v_rows, stride);
    kernel.product({.m = keys.count, .n = query_width, .k = p.D, .a = rows, .a_row = stride, .a_column = 1,
                    .b = q_transposed, .b_row = kBlockStride, .c = scores, .c_row = kBlockStride,
                    .accumulate = false});
    kernel.product({.m = keys.count, .n = query_width, .k = p.D, .a = v_rows, .a_row = stride, .a_column = 1,
                    .b = doutput_transposed, .b_row = kBlockStride, .c = gradients, .c_row = kBlockStride,
                    .accumulate = false});
    kernel.softmax_gradient_by_column({.rows = keys.count, .columns = query_width, .scale = p.scale, .s = scores,
                                       .dp = gradients, .stride = kBlockStride, .lse = statistics.lse,
                                       .delta = statistics.delta});
    kernel.product({.m = queries.count, .n = width, .k = keys.count, .a = gradients, .a_row = 1,
                    .a_column = kBlockStride, .b = rows, .b_row = stride, .c = sum, .c_row = stride,
                    .accumulate = true});
  }
  finish(queries, p.scale, pooled_row(p.dq_pooled, b, p.lists.rows, query_tile, p.H, h, p.D), p.D, sum, stride);
  dq.scatter(queries, sum, stride);
}

// dk and dv of a key tile: the sums of dS^T Q and P^T dO over the query tiles that selected it, head after head of
// the group. Here scores and dS are [query, key].
void dk_dv_of_tile(const FineBackward& p, int64_t b, int64_t kv_head, int64_t key_tile) {
  thread_local BackwardScratch scratch;
  const Kernels& kernel = kernels();
  const int64_t group = p.H / p.Hkv, kv_rows = p.kv_grid.rows(p.order);
  const HeadRows k(p.dtype, p.k, b, kv_rows, p.Hkv, kv_head, p.D), v(p.dtype, p.v, b, kv_rows, p.Hkv, kv_head, p.D);
  const HeadRows dk(p.dtype, p.dk, b, kv_rows, p.Hkv, kv_head, p.D);
  const HeadRows dv(p.dtype, p.dv, b, kv_rows, p.Hkv, kv_head, p.D);
  const TileRows keys(p.kv_grid, p.order, key_tile);

  const int64_t width = round_up(p.D, 16), stride = row_stride(p.D), key_width = round_up(keys.count, 16);
  float* q_rows = scratch.rows.floats(kTileVolume * stride);
  float* doutput_rows = scratch.more_rows.floats(kTileVolume * stride);
  float* k_transposed = scratch.left.floats(p.D * kBlockStride);
  float* v_transposed = scratch.right.floats(p.D * kBlockStride);
  float* scores = scratch.scores.floats(kTileVolume * kBlockStride);
  float* gradients = scratch.gradients.floats(kTileVolume * kBlockStride);
  float* dk_sum = scratch.sum.floats(kTileVolume * stride);
  float* dv_sum = scratch.more_sum.floats(kTileVolume * stride);
  std::fill_n(dk_sum, kTileVolume * stride, 0.0f);
  std::fill_n(dv_sum, kTileVolume * stride, 0.0f);

  k.gather(keys, q_rows, stride);
  kernel.transpose(keys.count, p.D, q_rows, stride, k_transposed, kBlockStride, key_width);
  v.gather(keys, q_rows, stride);
  kernel.transpose(keys.count, p.D, q_rows, stride, v_transposed, kBlockStride, key_width);

  for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    const QueryHead head(p, b, h);
    const ListRow list(p.transposed, (b * p.H + h) * p.transposed.rows + key_tile);
    for (int64_t i = 0; i < list.count; ++i) {
      const TileRows queries(p.q_grid, p.order, list[i]);
      const RowStatistics statistics(head, queries);
      head.q.gather(queries, q_rows, stride);
      head.doutput.gather(queries, doutput_rows, stride);
      kernel.product({.m = queries.count, .n = key_width, .k = p.D, .a = q_rows, .a_row = stride, .a_column = 1,
                      .b = k_transposed, .b_row = kBlockStride, .c = scores, .c_row = kBlockStride,
                      .accumulate = false});
      kernel.product({.m = queries.count, .n = key_width, .k = p.D, .a = doutput_rows, .a_row = stride,
                      .a_column = 1, .b = v_transposed, .b_row = kBlockStride, .c = gradients,
                      .c_row = kBlockStride, .accumulate = false});
      kernel.softmax_gradient_by_row({.rows = queries.count, .columns = key_width, .scale = p.scale, .s = scores,
                                      .dp = gradients, .stride = kBlockStride, .lse = statistics.lse,
                                      .delta = statistics.delta});
      kernel.product({.m = keys.count, .n = width, .k = queries.count, .a = scores, .a_row = 1,
                      .a_column = kBlockStride, .b = doutput_rows, .b_row = stride, .c = dv_sum, .c_row = stride,
                      .accumulate = true});
      kernel.product({.m = keys.count, .n = width, .k = queries.count, .a = gradients, .a_row = 1,
                      .a_column = kBlockStride, .b = q_rows, .b_row = stride, .c = dk_sum, .c_row = stride,
                      .accumulate = true});
    }
  }
  const int64_t kv_tiles = p.transposed.rows;
  finish(keys, p.scale, pooled_row(p.dk_pooled, b, kv_tiles, key_tile, p.Hkv, kv_head, p.D), p.D, dk_sum, stride);
  finish(keys, 1.0f, pooled_row(p.dv_pooled, b, kv_tiles, key_tile, p.Hkv, kv_head, p.D), p.D, dv_sum, stride);
  dk.scatter(keys, dk_sum, stride);
  dv.scatter(keys, dv_sum, stride);
}

}  // namespace

void run(const FineBackward& p) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  const int64_t q_tiles = p.q_grid.total_tiles(), kv_tiles = p.kv_grid.total_tiles();
  VSA_CHECK(p.lists.rows == q_tiles && p.lists.columns == kv_tiles, "lists must fit the grids");
  VSA_CHECK(p.transposed.rows == kv_tiles && p.transposed.columns == q_tiles, "transposed lists must fit the grids");
  const int64_t query_items = p.B * p.H * q_tiles;
  parallel_for(query_items, [&](int64_t item) {
    delta_of_tile(p, item / (p.H * q_tiles), item / q_tiles % p.H, item % q_tiles);
  });
  parallel_for(query_items, [&](int64_t item) {
    dq_of_tile(p, item / (p.H * q_tiles), item / q_tiles % p.H, item % q_tiles);
  });
  parallel_for(p.B * p.Hkv * kv_tiles, [&](int64_t item) {
    dk_dv_of_tile(p, item / (p.Hkv * kv_tiles), item / kv_tiles % p.Hkv, item % kv_tiles);
  });
}

}  // namespace vsa::cpu
