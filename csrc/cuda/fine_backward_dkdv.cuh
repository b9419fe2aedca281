#pragma once

#include "cuda/fine_backward_common.cuh"
#include "cuda/fine_backward_rows.cuh"
#include "cuda/ptx/named_barrier.h"

namespace vsa::cuda::fine_backward {

template <int D>
struct DkdvStage {
  SharedTile<D> q, doutput;
  float lse[kTileVolume], delta[kTileVolume];
};

template <int D>
struct DkdvShared {
  SharedTile<D> k, v;
  uint4 probabilities[2][4][2][32];  // P^T of 32 rows, as a fragments: [warp pair][step][row block][lane]
  EntryRing ring;
  ListWalk walk;
  int32_t q_offsets[kTileVolume], kv_offsets[kTileVolume];
  DkdvStage<D> stages[1];  // Args::stages of them

  static int64_t bytes(int stages) { return sizeof(DkdvShared) + (stages - 1) * sizeof(DkdvStage<D>); }
};

// dK and dV of one key tile: for every query tile that selected it, in every head of the group,
//   S^T = K Q^T, P^T = exp2(S^T scale_log2 - lse log2(e)), dV += P^T dO,
//   dP^T = V dO^T, dS^T = P^T (dP^T - delta), dK += dS^T Q.
// A warp has 32 key rows and one of two roles: value warps own dV and make P, key warps own dK, make dP and take P
// from shared memory. Each does two products over the whole query tile, so a fragment of Q or dO that is read feeds
// twice the work it would if every warp had 16 rows and did all four (208 KB of shared memory traffic a tile pair at
// D = 128, not 320). The roles differ in which tiles they multiply; the code is the same.
template <typename T, int D>
__global__ void __launch_bounds__(kThreads, blocks_per_sm(D)) fine_backward_dkdv(const __grid_constant__ Args p) {
  extern __shared__ __align__(16) char memory[];
  DkdvShared<D>& shared = *reinterpret_cast<DkdvShared<D>*>(memory);
  const auto find_item = [&](int32_t& b, int32_t& kv_head, int32_t& tile) {
    const int32_t item = p.order == nullptr ? blockIdx.x : p.order[blockIdx.x], head = item / p.kv_layout.tiles;
    b = head / p.Hkv, kv_head = head % p.Hkv, tile = item % p.kv_layout.tiles;
  };
  int32_t b, kv_head, tile;
  find_item(b, kv_head, tile);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pair = warp / 2, row = pair * 32;
  const bool is_value = warp % 2 == 0;
  constexpr int kAhead = D == 128 ? 0 : 1;  // D = 64 spills with 0; at D = 128 0 to 2 are within the noise

  fill_row_offsets(p.q_layout, shared.q_offsets);
  fill_row_offsets(p.kv_layout, shared.kv_offsets);
  const int32_t first_head = kv_head * p.group;
  const auto make_walk = [&] {
    return ListWalk(p.t_offsets, p.t_indices, (static_cast<int64_t>(b) * p.H + first_head) * p.kv_layout.tiles + tile,
                    p.kv_layout.tiles, p.q_layout.tiles, p.group, b, first_head);
  };
  if (threadIdx.x == 0) shared.walk = make_walk();  // read again when the ring wants more: not worth registers
  const int32_t length = make_walk().length;
  if (threadIdx.x < 2 * EntryRing::kHalf) {
    shared.ring.put(make_walk(), p.q_layout, p.H, D, threadIdx.x);
  }
  __syncthreads();

  // K and V join the first group of copies. Where nothing follows there must be none: nobody would wait for them.
  if (length > 0) {
    copy_tiles<T, D>(Entry(p.kv_layout, b, p.Hkv, kv_head, tile, D), shared.kv_offsets, p.Hkv, p.k, p.v, shared.k,
                     shared.v);
  }
  const auto load = [&](int32_t position) {
    DkdvStage<D>& stage = shared.stages[p.stages == 2 ? position % 2 : 0];
    const Entry queries = shared.ring.entry(position);
    copy_tiles<T, D>(queries, shared.q_offsets, p.H, p.q, p.doutput, stage.q, stage.doutput);
    if (threadIdx.x < 32) {
      const float* const from = threadIdx.x < 16 ? p.lse_of_slots : p.delta_of_slots;
      ptx::cp_async_16(ptx::shared_address(stage.lse) + threadIdx.x * 16,
                       from + static_cast<int64_t>(queries.row) * kTileVolume + threadIdx.x % 16 * 4);
    }
    ptx::cp_async_commit();
  };

  float sums[2][D / 8][4] = {};  // dV or dK
  const uint32_t own = rows_first<D>(is_value ? shared.k : shared.v, row);

  if (p.stages == 2 && length > 0) load(0);
  for (int32_t position = 0; position < length; ++position) {
    if (p.stages == 1) {
      __syncthreads();
      load(position);
    }
    ptx::cp_async_wait<0>();
    __syncthreads();  // this stage is here, and nobody uses the other one any more, nor the probabilities
    if (p.stages == 2 && position + 1 < length) load(position + 1);
    if (EntryRing::wants_more(position) && threadIdx.x < EntryRing::kHalf) {
      shared.ring.put(shared.walk, p.q_layout, p.H, D, position + EntryRing::kHalf + threadIdx.x);
    }
    const DkdvStage<D>& stage = shared.stages[p.stages == 2 ? position % 2 : 0];

    float scores[2][8][4];  // S^T or dP^T
    multiply_rows<T, D, kAhead, 2, 8>(scores, own, columns_first<D>(is_value ? stage.q : stage.doutput, 0));

    // P^T or dS^T takes the place of the scores: as variables of their own they would all live across the barrier.
    const auto put = [&](int step, int m, const uint32_t(&packed)[4]) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[m][2 * step][i] = __uint_as_float(packed[i]);
    };
    const float* of_query = (is_value ? stage.lse : stage.delta) + lane % 4 * 2;
    if (is_value) {
      const uint64_t valid = shared.ring.valid[position % (2 * EntryRing::kHalf)];
      const uint64_t queries = valid >> (lane % 4 * 2);
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        float2 lse[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float2 natural = *reinterpret_cast<const float2*>(of_query + (step * 2 + half) * 8);
          lse[half] = make_float2(ptx::to_log2(natural.x), ptx::to_log2(natural.y));
          if (valid == ~uint64_t{0}) continue;
          // Queries of padding: Q and dO are 0, and P must be.
          if ((queries >> ((step * 2 + half) * 8) & 1) == 0) lse[half].x = INFINITY;
          if ((queries >> ((step * 2 + half) * 8 + 1) & 1) == 0) lse[half].y = INFINITY;
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          uint32_t packed[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float* s = scores[m][step * 2 + i / 2] + i % 2 * 2;
            packed[i] = ptx::pack<T>(ptx::exp2(s[0] * p.scale_log2 - lse[i / 2].x),
                                     ptx::exp2(s[1] * p.scale_log2 - lse[i / 2].y));
          }
          shared.probabilities[pair][step][m][lane] = make_uint4(packed[0], packed[1], packed[2], packed[3]);
          put(step, m, packed);
        }
      }
    }
    ptx::named_barrier_sync(1 + pair, 64);  // one instruction for both warps: no divergence
    if (!is_value) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        float2 delta[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          delta[half] = *reinterpret_cast<const float2*>(of_query + (step * 2 + half) * 8);
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const uint4 four = shared.probabilities[pair][step][m][lane];
          const uint32_t probabilities[4] = {four.x, four.y, four.z, four.w};
          uint32_t packed[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float2 probability = ptx::unpack<T>(probabilities[i]);
            const float* dp = scores[m][step * 2 + i / 2] + i % 2 * 2;
            packed[i] =
                ptx::pack<T>(probability.x * (dp[0] - delta[i / 2].x), probability.y * (dp[1] - delta[i / 2].y));
          }
          put(step, m, packed);
        }
      }
    }
    uint32_t a[4][2][4];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int i = 0; i < 8; ++i) a[step][i / 4][i % 4] = __float_as_uint(scores[i / 4][2 * step][i % 4]);
    }
    accumulate<T, D, kAhead, 2, 4>(sums, a, rows_first<D>(is_value ? stage.doutput : stage.q, 0));
  }

  __syncthreads();              // K and V make room for dK and dV
  find_item(b, kv_head, tile);  // once more: not worth registers either
  const Entry keys(p.kv_layout, b, p.Hkv, kv_head, tile, D);
  const float* pooled = is_value ? p.dv_pooled : p.dk_pooled;
  if (pooled != nullptr) {
    pooled += ((static_cast<int64_t>(b) * p.kv_layout.tiles + tile) * p.Hkv + kv_head) * D;
  }
  finish_tile<T, D, 2, D / 8>(sums, is_value ? 1.0f : p.scale, pooled, __popcll(keys.valid),
                              is_value ? shared.v : shared.k, row, 0);
  __syncthreads();
  store_tile<T, D>(keys, shared.kv_offsets, p.kv_layout.tiled, p.Hkv, shared.k, p.dk);
  store_tile<T, D>(keys, shared.kv_offsets, p.kv_layout.tiled, p.Hkv, shared.v, p.dv);
}

}  // namespace vsa::cuda::fine_backward
