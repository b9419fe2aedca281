#include "core/error.h"
#include "cuda/fine.h"

// The backward of coarse attention is that of fine attention with full lists over a plain sequence of pooled tiles, in
// fp32.
namespace vsa::cuda {
namespace {

TileGrid sequence(int64_t length) {
  return {{1, 1, length}, {1, 1, kTileVolume}, 0};
}

TileLists full_lists(const TileGrid& rows, const TileGrid& columns) {
  return {nullptr, nullptr, rows.total_tiles(), columns.total_tiles(), 0};
}

FineBackward fine(const CoarseBackward& p) {
  FineBackward f{};
  f.dtype = DType::float32;
  f.B = p.B, f.H = p.H, f.Hkv = p.Hkv, f.D = p.D;
  f.q_grid = sequence(p.Nq), f.kv_grid = sequence(p.Nk);
  f.order = Order::grid;
  f.scale = p.scale;
  f.lists = full_lists(f.q_grid, f.kv_grid);
  f.q = p.q, f.k = p.k, f.v = p.v, f.output = p.output, f.lse = p.lse;
  return f;
}

}  // namespace

void launch(const CoarseBackward& p, const Launch& launch) {
  if (p.B == 0 || p.Nq + p.Nk == 0) return;
  FineBackward f = fine(p);
  f.transposed = full_lists(f.kv_grid, f.q_grid);
  f.doutput = p.doutput;
  f.delta = launch.scratch_of<float>(p.B * p.H * p.Nq);
  f.dq = p.dq, f.dk = p.dk, f.dv = p.dv;
  launch_fine_backward_f32(f, launch);
}

}  // namespace vsa::cuda
