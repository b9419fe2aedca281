#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "cpu/kernels.h"
#include "cpu/list_rows.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/token_rows.h"

namespace vsa::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct ForwardScratch {
  Scratch rows, q, k, v, scores, sum;
};

// Online softmax over the tiles of the list (flash attention). Scores are kept transposed, [key, query], so that the
// statistics of the queries are plain vectors; only valid tokens are gathered, so padding never enters a product.
void forward_tile(const FineForward& p, int64_t b, int64_t h, int64_t query_tile) {
  thread_local ForwardScratch scratch;
  const Kernels& kernel = kernels();
  const int64_t q_rows = p.q_grid.rows(p.order), kv_rows = p.kv_grid.rows(p.order);
  const int64_t kv_head = h / (p.H / p.Hkv);
  const HeadRows q(p.dtype, p.q, b, q_rows, p.H, h, p.D), output(p.dtype, p.output, b, q_rows, p.H, h, p.D);
  const HeadRows k(p.dtype, p.k, b, kv_rows, p.Hkv, kv_head, p.D), v(p.dtype, p.v, b, kv_rows, p.Hkv, kv_head, p.D);
  const TileRows queries(p.q_grid, p.order, query_tile);
  const ListRow list(p.lists, (b * p.H + h) * p.lists.rows + query_tile);

  const int64_t width = round_up(p.D, 16), stride = row_stride(p.D);                    // of rows of D
  const int64_t query_width = round_up(queries.count, 16), query_stride = row_stride(kTileVolume);
  float* q_rows_fp32 = scratch.rows.floats(kTileVolume * stride);
  float* q_transposed = scratch.q.floats(p.D * query_stride);
  float* k_rows_fp32 = scratch.k.floats(kTileVolume * stride);
  float* v_rows_fp32 = scratch.v.floats(kTileVolume * stride);
  float* scores = scratch.scores.floats(kTileVolume * query_stride);
  float* sum = scratch.sum.floats(kTileVolume * stride);  // of P V, [query, D]
  alignas(64) float maximum[kTileVolume], total[kTileVolume], correction[kTileVolume];
  std::fill_n(maximum, kTileVolume, -kInfinity);
  std::fill_n(total, kTileVolume, 0.0f);
  std::fill_n(sum, kTileVolume * stride, 0.0f);

  if (list.count > 0) {
    q.gather(queries, q_rows_fp32, stride);
    kernel.transpose(queries.count, p.D, q_rows_fp32, stride, q_transposed, query_stride, query_width);
  }
  for (int64_t i = 0; i < list.count; ++i) {
    const TileRows keys(p.kv_grid, p.order, list[i]);
    k.gather(keys, k_rows_fp32, stride);
    v.gather(keys, v_rows_fp32, stride);
    kernel.product({.m = keys.count, .n = query_width, .k = p.D, .a = k_rows_fp32, .a_row = stride, .a_column = 1,
                    .b = q_transposed, .b_row = query_stride, .c = scores, .c_row = query_stride,
                    .accumulate = false});
    const bool rescale = kernel.softmax_step({.keys = keys.count, .queries = query_width, .scale = p.scale,
                                              .s = scores, .s_row = query_stride, .maximum = maximum, .sum = total,
                                              .correction = correction});
    if (rescale) {
      for (int query = 0; query < queries.count; ++query) {
        for (int64_t d = 0; d < width; ++d) sum[query * stride + d] *= correction[query];
      }
    }
    kernel.product({.m = queries.count, .n = width, .k = keys.count, .a = scores, .a_row = 1,
                    .a_column = query_stride, .b = v_rows_fp32, .b_row = stride, .c = sum, .c_row = stride,
                    .accumulate = true});
  }

  float* lse = p.lse + (b * p.H + h) * q_rows;
  for (int query = 0; query < queries.count; ++query) {
    const bool empty = total[query] == 0;  // no key, or no score above -inf
    const float factor = empty ? 0.0f : 1.0f / total[query];
    for (int64_t d = 0; d < p.D; ++d) sum[query * stride + d] = empty ? 0.0f : sum[query * stride + d] * factor;
    lse[queries.row[query]] = empty ? -kInfinity : maximum[query] + std::log(total[query]);
  }
  for (int i = 0; i < queries.padding_count; ++i) lse[queries.padding[i]] = -kInfinity;
  output.scatter(queries, sum, stride);
}

}  // namespace

void run(const FineForward& p) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  const int64_t q_tiles = p.q_grid.total_tiles();
  VSA_CHECK(p.lists.rows == q_tiles && p.lists.columns == p.kv_grid.total_tiles(), "lists must fit the grids");
  parallel_for(p.B * p.H * q_tiles, [&](int64_t item) {
    forward_tile(p, item / (p.H * q_tiles), item / q_tiles % p.H, item % q_tiles);
  });
}

}  // namespace vsa::cpu
