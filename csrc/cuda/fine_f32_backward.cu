#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/fine.h"
#include "cuda/fine_f32.cuh"
#include "cuda/fine_f32_backward.cuh"

namespace vsa::cuda {
namespace f32 {
namespace {

constexpr int kDeltaThreads = 256, kDeltaLanes = 8;  // lanes to a row

// delta = rowsum(output * doutput), 0 for padding.
template <int D>
__global__ void __launch_bounds__(kDeltaThreads)
    fine_delta_f32(const __grid_constant__ TileLayout queries, int64_t rows, int32_t H, const float* output,
                   const float* doutput, float* delta) {
  const int64_t unit = (blockIdx.x * int64_t{kDeltaThreads} + threadIdx.x) / kDeltaLanes;  // [B, q_rows, H]
  if (unit >= rows) return;                                                                // all eight lanes
  const int lane = threadIdx.x % kDeltaLanes;
  const int64_t batch_row = unit / H, b = batch_row / queries.rows;
  const int32_t h = static_cast<int32_t>(unit - batch_row * H);
  const int32_t row = static_cast<int32_t>(batch_row - b * queries.rows);
  const bool valid = !queries.tiled || queries.place(row / kTileVolume).valid(row % kTileVolume);
  float sum = 0;
  if (valid) {
#pragma unroll
    for (int i = 0; i < D / (4 * kDeltaLanes); ++i) {
      const int64_t at = unit * D + (i * kDeltaLanes + lane) * 4;
      float x[4], y[4];
      load_vector<4>(x, output + at);
      load_vector<4>(y, doutput + at);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum = fmaf(x[e], y[e], sum);
    }
  }
  const unsigned mask = 0xffu << (threadIdx.x & 24);
#pragma unroll
  for (int distance = 4; distance > 0; distance /= 2) sum += __shfl_xor_sync(mask, sum, distance);
  if (lane == 0) delta[(b * H + h) * queries.rows + row] = sum;
}

template <int D>
void launch_delta(const FineBackward& p, const TileLayout& queries, const Launch& launch) {
  const int64_t rows = p.B * queries.rows * p.H;
  if (rows == 0) return;
  const int64_t blocks = (rows + kDeltaThreads / kDeltaLanes - 1) / (kDeltaThreads / kDeltaLanes);
  VSA_CHECK(blocks <= INT32_MAX, "too many rows for a launch");
  launch_kernel(fine_delta_f32<D>, "fine_delta_f32", launch, static_cast<unsigned>(blocks), kDeltaThreads, 0, queries,
                rows, static_cast<int32_t>(p.H), static_cast<const float*>(p.output),
                static_cast<const float*>(p.doutput), p.delta);
}

}  // namespace
}  // namespace f32

void launch_fine_backward_f32(const FineBackward& p, const Launch& launch) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  const int64_t q_tiles = p.q_grid.total_tiles(), kv_tiles = p.kv_grid.total_tiles();
  VSA_CHECK(p.lists.rows == q_tiles && p.lists.columns == kv_tiles, "lists must fit the grids");
  VSA_CHECK(p.transposed.rows == kv_tiles && p.transposed.columns == q_tiles, "transposed lists must fit the grids");
  VSA_CHECK(p.D == 64 || p.D == 96 || p.D == 128, "D must be 64, 96 or 128");
  if (p.B == 0) return;
  f32::BackwardArgs args;
  args.queries = TileLayout(p.q_grid, p.order), args.keys = TileLayout(p.kv_grid, p.order);
  args.H = static_cast<int32_t>(p.H), args.group = static_cast<int32_t>(p.H / p.Hkv);
  args.scale = p.scale;
  args.q = static_cast<const float*>(p.q), args.k = static_cast<const float*>(p.k);
  args.v = static_cast<const float*>(p.v), args.doutput = static_cast<const float*>(p.doutput);
  args.lse = p.lse, args.delta = p.delta;

  const auto delta = p.D == 64 ? f32::launch_delta<64> : p.D == 96 ? f32::launch_delta<96> : f32::launch_delta<128>;
  if (!p.delta_ready) delta(p, args.queries, launch);
  args.lists = p.transposed;
  args.pooled = p.dk_pooled, args.more_pooled = p.dv_pooled;
  args.dx = static_cast<float*>(p.dk), args.more_dx = static_cast<float*>(p.dv);
  f32::launch_dk_dv(args, p.B, p.D, launch);
  // Last: dq may lie where doutput does, of which a tile's dq needs that tile's alone.
  args.lists = p.lists;
  args.pooled = p.dq_pooled, args.more_pooled = nullptr;
  args.dx = static_cast<float*>(p.dq), args.more_dx = nullptr;
  f32::launch_dq(args, p.B, p.D, launch);
}

}  // namespace vsa::cuda
