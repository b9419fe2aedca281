#include <memory>
#include <new>

#include "core/error.h"
#include "cpu/ops.h"

// Coarse attention is fine attention with full lists over a plain sequence of pooled tiles, in fp32.
namespace vsa::cpu {
namespace {

TileGrid sequence(int64_t length) {
  return {.tokens = {1, 1, length}, .tile = {1, 1, kTileVolume}, .prefix = 0};
}

TileLists full_lists(const TileGrid& rows, const TileGrid& columns) {
  return {
      .offsets = nullptr, .indices = nullptr, .rows = rows.total_tiles(), .columns = columns.total_tiles(), .count = 0};
}

}  // namespace

void run(const CoarseForward& p) {
  const TileGrid queries = sequence(p.Nq), keys = sequence(p.Nk);
  run(FineForward{.dtype = DType::float32,
                  .B = p.B,
                  .H = p.H,
                  .Hkv = p.Hkv,
                  .D = p.D,
                  .q_grid = queries,
                  .kv_grid = keys,
                  .order = Order::grid,
                  .scale = p.scale,
                  .lists = full_lists(queries, keys),
                  .q = p.q,
                  .k = p.k,
                  .v = p.v,
                  .output = p.output,
                  .lse = p.lse});
}

void run(const CoarseBackward& p) {
  const TileGrid queries = sequence(p.Nq), keys = sequence(p.Nk);
  const int64_t rows = p.B * p.H * p.Nq;
  const std::unique_ptr<float[]> delta(new (std::nothrow) float[static_cast<size_t>(rows)]);
  if (delta == nullptr) throw OutOfMemory("no memory for the workspace of the coarse backward", rows * 4, 0, 0);
  run(FineBackward{.dtype = DType::float32,
                   .B = p.B,
                   .H = p.H,
                   .Hkv = p.Hkv,
                   .D = p.D,
                   .q_grid = queries,
                   .kv_grid = keys,
                   .order = Order::grid,
                   .scale = p.scale,
                   .lists = full_lists(queries, keys),
                   .transposed = full_lists(keys, queries),
                   .q = p.q,
                   .k = p.k,
                   .v = p.v,
                   .output = p.output,
                   .lse = p.lse,
                   .doutput = p.doutput,
                   .dq_pooled = nullptr,
                   .dk_pooled = nullptr,
                   .dv_pooled = nullptr,
                   .delta = delta.get(),
                   .dq = p.dq,
                   .dk = p.dk,
                   .dv = p.dv});
}

}  // namespace vsa::cpu
