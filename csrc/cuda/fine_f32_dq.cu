#include <cmath>

#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/fine_f32.cuh"
#include "cuda/fine_f32_backward.cuh"
#include "cuda/kernel_attributes.h"

// dq in fp32: a block has 32 rows of a query tile, q and dO, and walks the tile's list. Its four warps stand 2 x 2 over
// S and dP (32 x 64 keys) and over dq (32 x D).
namespace vsa::cuda::f32 {
namespace {

template <int D>
struct DqShared {
  alignas(16) float q[kHalfTile * kResidentStride<D>];
  alignas(16) float doutput[kHalfTile * kResidentStride<D>];
  alignas(16) float stages[kStages][kStageFloats];
  alignas(16) float block[kHalfTile * kBlockStride];  // dS
  TileTable tables[2];
};

template <int D>
__global__ void __launch_bounds__(kThreads, 3) fine_dq_f32(const __grid_constant__ BackwardArgs p) {
  constexpr int kDepthChunks = D / kDepth, kChunks = 2 * kDepthChunks + kRowChunks;
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<DqShared<D>*>(memory);

  const int32_t item = blockIdx.x / 2, first_slot = blockIdx.x % 2 * kHalfTile;
  const int32_t head = item / p.queries.tiles, tile = item - head * p.queries.tiles;
  const int32_t b = head / p.H, h = head - b * p.H, Hkv = p.H / p.group;
  const HeadRows q(p.q, b, p.queries.rows, p.H, h, D), doutput(p.doutput, b, p.queries.rows, p.H, h, D);
  const HeadRows k(p.k, b, p.keys.rows, Hkv, h / p.group, D), v(p.v, b, p.keys.rows, Hkv, h / p.group, D);
  ListWalk walk(p.lists, int64_t{head} * p.lists.rows + tile, 1);

  const Lane lane;
  const int warp = threadIdx.x / 32, first_row = warp / 2 * 16 + lane.row;
  const int first_key = warp % 2 * 32 + lane.column;
  const int first_column = warp % 2 * (D / 2) + lane.column * kVectorWidth<D / 16>;
  const TilePlace place = p.queries.place(tile);
  float lse[4], delta[4], sum[4][D / 16] = {};
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int slot = first_slot + first_row + 4 * r;
    const bool valid = place.valid(slot);
    const int64_t row = int64_t{head} * p.queries.rows + place.row(slot);
    lse[r] = valid ? p.lse[row] : -INFINITY, delta[r] = valid ? p.delta[row] : 0;
  }

  const auto load = [&](int chunk, const TileTable& table, int stage) {
    if (chunk < kDepthChunks) {
      load_depth_chunk(shared.stages[stage], k, table, chunk * kDepth);
    } else if (chunk < 2 * kDepthChunks) {
      load_depth_chunk(shared.stages[stage], v, table, (chunk - kDepthChunks) * kDepth);
    } else {
      load_row_chunk<D>(shared.stages[stage], k, table, (chunk - 2 * kDepthChunks) * kChunkRows);
    }
  };
  const auto next_stage = [](int stage) { return stage == kStages - 1 ? 0 : stage + 1; };

  Step current = walk.take(), upcoming = walk.take();
  if (current.tile >= 0) {
    shared.tables[0].fill(p.keys, current.tile);
    load_residents<D, kHalfTile>(shared.q, q, place, first_slot);
    load_residents<D, kHalfTile>(shared.doutput, doutput, place, first_slot);
    __syncthreads();
    load(0, shared.tables[0], 0);
    ptx::cp_async_commit();
    load(1, shared.tables[0], 1);
    ptx::cp_async_commit();
  }
  int stage = 0;
  for (int parity = 0; current.tile >= 0; parity ^= 1) {
    const Step ahead = walk.take();  // used a tile later: the loop does not wait for the index
    const TileTable& table = shared.tables[parity];
    // Waits for a chunk, and for everyone to be done with the one before, whose stage is filled again.
    const auto enter = [&](int chunk) {
      ptx::cp_async_wait<1>();
      __syncthreads();
      if (chunk == 0 && upcoming.tile >= 0) shared.tables[parity ^ 1].fill(p.keys, upcoming.tile);
      const int refilled = next_stage(next_stage(stage));
      if (chunk + 2 < kChunks) {
        load(chunk + 2, table, refilled);
      } else if (upcoming.tile >= 0) {
        load(chunk + 2 - kChunks, shared.tables[parity ^ 1], refilled);
      }
      ptx::cp_async_commit();
    };

    float s[4][4] = {}, dp[4][4] = {};
#pragma unroll 1
    for (int chunk = 0; chunk < kDepthChunks; ++chunk) {
      enter(chunk);
      multiply_depth<4, kResidentStride<D>>(s, shared.q + first_row * kResidentStride<D> + chunk * kDepth,
                                            shared.stages[stage] + first_key * kDepthStride);
      stage = next_stage(stage);
    }
#pragma unroll 1
    for (int chunk = 0; chunk < kDepthChunks; ++chunk) {
      enter(kDepthChunks + chunk);
      multiply_depth<4, kResidentStride<D>>(dp, shared.doutput + first_row * kResidentStride<D> + chunk * kDepth,
                                            shared.stages[stage] + first_key * kDepthStride);
      stage = next_stage(stage);
    }
    // Of a key that does not exist, or where lse is -inf, P is 0 whatever the rest says.
    const uint32_t valid = table.valid[warp % 2] >> lane.column;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool alive = (valid >> 8 * j & 1) && lse[r] != -INFINITY;
        const float probability = expf(fmaf(s[r][j], p.scale, -lse[r]));
        shared.block[(first_row + 4 * r) * kBlockStride + first_key + 8 * j] =
            alive ? probability * (dp[r][j] - delta[r]) : 0.0f;
      }
    }
#pragma unroll 1
    for (int chunk = 0; chunk < kRowChunks; ++chunk) {
      enter(2 * kDepthChunks + chunk);
      multiply_rows<D / 16, kBlockStride, D>(sum, shared.block + first_row * kBlockStride + chunk * kChunkRows,
                                             shared.stages[stage] + first_column);
      stage = next_stage(stage);
    }
    current = upcoming, upcoming = ahead;
  }
  write_gradient<D>(p.dx, p.pooled, p.scale, p.queries, tile, first_slot + first_row, b, p.H, h, first_column, sum);
}

template <int D>
void launch_for(const BackwardArgs& args, int64_t blocks, const Launch& launch) {
  constexpr int kShared = sizeof(DqShared<D>);
  static_assert(kShared <= 75 * 1024 - 256, "three blocks must fit into an SM of 228 KB, one into any");
  allow_shared_memory(fine_dq_f32<D>, kShared, "fine_dq_f32");
  launch_kernel(fine_dq_f32<D>, "fine_dq_f32", launch, static_cast<unsigned>(blocks), kThreads, kShared, args);
}

}  // namespace

void launch_dq(const BackwardArgs& args, int64_t B, int64_t D, const Launch& launch) {
  const int64_t blocks = B * args.H * args.queries.tiles * 2;
  if (blocks == 0) return;
  VSA_CHECK(blocks <= INT32_MAX, "too many query tiles for a launch");
  switch (D) {
    case 64:
      return launch_for<64>(args, blocks, launch);
    case 96:
      return launch_for<96>(args, blocks, launch);
    case 128:
      return launch_for<128>(args, blocks, launch);
    default:
      VSA_CHECK(false, "D must be 64, 96 or 128");
  }
}

}  // namespace vsa::cuda::f32
