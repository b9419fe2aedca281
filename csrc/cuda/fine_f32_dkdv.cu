#include <cmath>

#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/fine_f32.cuh"
#include "cuda/fine_f32_backward.cuh"
#include "cuda/kernel_attributes.h"

// dk and dv in fp32: a block has 32 rows of a key tile, k and v, and walks the query tiles that selected it, head after
// head of the group that shares the key head. Blocks are transposed, [key, query], so that this is the same work as
// dq's: four warps, 2 x 2 over S^T and dP^T (32 x 64 queries) and over dk and dv (32 x D).
namespace vsa::cuda::f32 {
namespace {

template <int D>
struct DkDvShared {
  alignas(16) float k[kHalfTile * kResidentStride<D>];
  alignas(16) float v[kHalfTile * kResidentStride<D>];
  alignas(16) float stages[kStages][kStageFloats];
  alignas(16) float block[kHalfTile * kBlockStride];  // P^T, then dS^T
  TileTable tables[2];
  float lse[2][kTileVolume], delta[2][kTileVolume];  // of the tables' tiles
  // What the loop needs rarely, or not at all: here it costs no registers.
  int32_t tile, b, h, first_slot;
  const float* q;  // of the first head of the group
  const float* doutput;
};

template <int D>
__global__ void __launch_bounds__(kThreads, 3) fine_dk_dv_f32(const __grid_constant__ BackwardArgs p) {
  constexpr int kDepthChunks = D / kDepth, kChunks = 2 * kDepthChunks + 2 * kRowChunks;
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<DkDvShared<D>*>(memory);

  const int32_t item = blockIdx.x / 2, first_slot = blockIdx.x % 2 * kHalfTile;
  const int32_t kv_head = item / p.keys.tiles, tile = item - kv_head * p.keys.tiles;  // heads of all batches
  const int32_t Hkv = p.H / p.group, b = kv_head / Hkv, h = kv_head - b * Hkv;
  const int32_t first_head = kv_head * p.group;  // of the query heads of all batches
  if (threadIdx.x == 0) {
    shared.tile = tile, shared.b = b, shared.h = h, shared.first_slot = first_slot;
    shared.q = HeadRows(p.q, b, p.queries.rows, p.H, h * p.group, D).first;
    shared.doutput = HeadRows(p.doutput, b, p.queries.rows, p.H, h * p.group, D).first;
  }
  // Of head `g` of the group.
  const auto q = [&](int32_t g) { return HeadRows(shared.q + g * D, p.H * D); };
  const auto doutput = [&](int32_t g) { return HeadRows(shared.doutput + g * D, p.H * D); };
  ListWalk walk(p.lists, int64_t{first_head} * p.lists.rows + tile, p.group);

  const Lane lane;
  const int warp = threadIdx.x / 32, first_row = warp / 2 * 16 + lane.row;
  const int first_query = warp % 2 * 32 + lane.column;
  const int first_column = warp % 2 * (D / 2) + lane.column * kVectorWidth<D / 16>;
  float dk[4][D / 16] = {}, dv[4][D / 16] = {};

  // After the table is filled, by the same threads.
  const auto load_statistics = [&](int index, int32_t g) {
    const int slot = threadIdx.x;
    if (slot >= kTileVolume) return;
    const int32_t row = shared.tables[index].row[slot];
    const int64_t at = int64_t{first_head + g} * p.queries.rows + max(row, 0);
    copy_4(&shared.lse[index][slot], p.lse + at, row >= 0);
    copy_4(&shared.delta[index][slot], p.delta + at, row >= 0);
  };
  const auto load = [&](int chunk, int32_t g, const TileTable& table, int stage) {
    float* to = shared.stages[stage];
    if (chunk < kDepthChunks) {
      load_depth_chunk(to, q(g), table, chunk * kDepth);
    } else if (chunk < 2 * kDepthChunks) {
      load_depth_chunk(to, doutput(g), table, (chunk - kDepthChunks) * kDepth);
    } else if (chunk < 2 * kDepthChunks + kRowChunks) {
      load_row_chunk<D>(to, doutput(g), table, (chunk - 2 * kDepthChunks) * kChunkRows);
    } else {
      load_row_chunk<D>(to, q(g), table, (chunk - 2 * kDepthChunks - kRowChunks) * kChunkRows);
    }
  };
  const auto next_stage = [](int stage) { return stage == kStages - 1 ? 0 : stage + 1; };

  Step current = walk.take(), upcoming = walk.take();
  if (current.tile >= 0) {
    const TilePlace place = p.keys.place(tile);
    shared.tables[0].fill(p.queries, current.tile);
    load_statistics(0, current.head);
    load_residents<D, kHalfTile>(shared.k, HeadRows(p.k, b, p.keys.rows, Hkv, h, D), place, first_slot);
    load_residents<D, kHalfTile>(shared.v, HeadRows(p.v, b, p.keys.rows, Hkv, h, D), place, first_slot);
  }
  __syncthreads();
  if (current.tile >= 0) {
    load(0, current.head, shared.tables[0], 0);
    ptx::cp_async_commit();
    load(1, current.head, shared.tables[0], 1);
    ptx::cp_async_commit();
  }
  int stage = 0;
  for (int parity = 0; current.tile >= 0; parity ^= 1) {
    const Step ahead = walk.take();  // used a tile later: the loop does not wait for the index
    // Waits for a chunk, and for everyone to be done with the one before, whose stage is filled again.
    const auto enter = [&](int chunk) {
      ptx::cp_async_wait<1>();
      __syncthreads();
      if (chunk == 0 && upcoming.tile >= 0) {
        shared.tables[parity ^ 1].fill(p.queries, upcoming.tile);
        load_statistics(parity ^ 1, upcoming.head);
      }
      const int refilled = next_stage(next_stage(stage));
      if (chunk + 2 < kChunks) {
        load(chunk + 2, current.head, shared.tables[parity], refilled);
      } else if (upcoming.tile >= 0) {
        load(chunk + 2 - kChunks, upcoming.head, shared.tables[parity ^ 1], refilled);
      }
      ptx::cp_async_commit();
    };
    float* my_block = shared.block + first_row * kBlockStride;

    float s[4][4] = {}, dp[4][4] = {};
#pragma unroll 1
    for (int chunk = 0; chunk < kDepthChunks; ++chunk) {
      enter(chunk);
      multiply_depth<4, kResidentStride<D>>(s, shared.k + first_row * kResidentStride<D> + chunk * kDepth,
                                            shared.stages[stage] + first_query * kDepthStride);
      stage = next_stage(stage);
    }
#pragma unroll 1
    for (int chunk = 0; chunk < kDepthChunks; ++chunk) {
      enter(kDepthChunks + chunk);
      multiply_depth<4, kResidentStride<D>>(dp, shared.v + first_row * kResidentStride<D> + chunk * kDepth,
                                            shared.stages[stage] + first_query * kDepthStride);
      stage = next_stage(stage);
    }
    // Of a query that does not exist, or where lse is -inf, P is 0 whatever the rest says. dS stays in `dp` until P
    // has been read.
    const uint32_t valid = shared.tables[parity].valid[warp % 2] >> lane.column;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float lse = shared.lse[parity][first_query + 8 * j], delta = shared.delta[parity][first_query + 8 * j];
      const bool alive = (valid >> 8 * j & 1) && lse != -INFINITY;
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float probability = alive ? expf(fmaf(s[r][j], p.scale, -lse)) : 0.0f;
        my_block[4 * r * kBlockStride + first_query + 8 * j] = probability;
        dp[r][j] = alive ? probability * (dp[r][j] - delta) : 0.0f;
      }
    }
#pragma unroll 1
    for (int chunk = 0; chunk < kRowChunks; ++chunk) {
      enter(2 * kDepthChunks + chunk);
      multiply_rows<D / 16, kBlockStride, D>(dv, my_block + chunk * kChunkRows, shared.stages[stage] + first_column);
      stage = next_stage(stage);
    }
    __syncthreads();  // P has been read
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int r = 0; r < 4; ++r) my_block[4 * r * kBlockStride + first_query + 8 * j] = dp[r][j];
    }
#pragma unroll 1
    for (int chunk = 0; chunk < kRowChunks; ++chunk) {
      enter(2 * kDepthChunks + kRowChunks + chunk);
      multiply_rows<D / 16, kBlockStride, D>(dk, my_block + chunk * kChunkRows, shared.stages[stage] + first_column);
      stage = next_stage(stage);
    }
    current = upcoming, upcoming = ahead;
  }
  const int slot = shared.first_slot + first_row;
  const int32_t heads = p.H / p.group;
  write_gradient<D>(p.dx, p.pooled, p.scale, p.keys, shared.tile, slot, shared.b, heads, shared.h, first_column, dk);
  write_gradient<D>(p.more_dx, p.more_pooled, 1.0f, p.keys, shared.tile, slot, shared.b, heads, shared.h, first_column,
                    dv);
}

template <int D>
void launch_for(const BackwardArgs& args, int64_t blocks, const Launch& launch) {
  constexpr int kShared = sizeof(DkDvShared<D>);
  static_assert(kShared <= 75 * 1024 - 256, "three blocks must fit into an SM of 228 KB, one into any");
  allow_shared_memory(fine_dk_dv_f32<D>, kShared, "fine_dk_dv_f32");
  launch_kernel(fine_dk_dv_f32<D>, "fine_dk_dv_f32", launch, static_cast<unsigned>(blocks), kThreads, kShared, args);
}

}  // namespace

void launch_dk_dv(const BackwardArgs& args, int64_t B, int64_t D, const Launch& launch) {
  const int64_t blocks = B * (args.H / args.group) * args.keys.tiles * 2;
  if (blocks == 0) return;
  VSA_CHECK(blocks <= INT32_MAX, "too many key tiles for a launch");
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
