#pragma once

#include "cuda/fine_backward_common.cuh"

namespace vsa::cuda::fine_backward {

template <int D>
struct DqStage {
  SharedTile<D> k, v;
};

template <int D>
struct DqShared {
  SharedTile<D> q, doutput;
  EntryRing ring;
  ListWalk walk;
  float lse_log2[kTileVolume], delta[kTileVolume];
  int32_t q_offsets[kTileVolume], kv_offsets[kTileVolume];
  DqStage<D> stages[1];  // Args::stages of them

  static int64_t bytes(int stages) { return sizeof(DqShared) + (stages - 1) * sizeof(DqStage<D>); }
};

// dQ of one query tile: over its list, S = Q K^T, P = exp2(S scale_log2 - lse log2(e)), dP = dO V^T,
// dS = P (dP - delta), dQ += dS K. A warp has 32 query rows and 32 of the 64 keys of each tile; the two halves of dQ
// are added at the end.
template <typename T, int D>
__global__ void __launch_bounds__(kThreads, blocks_per_sm(D)) fine_backward_dq(const __grid_constant__ Args p) {
  extern __shared__ __align__(16) char memory[];
  DqShared<D>& shared = *reinterpret_cast<DqShared<D>*>(memory);
  const int32_t head_item = blockIdx.x / p.q_layout.tiles, tile = blockIdx.x % p.q_layout.tiles;
  const int32_t b = head_item / p.H, h = head_item % p.H, kv_head = h / p.group;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / 2 * 32, half = warp % 2, key = half * 32;
  constexpr int kAhead = D == 128 ? 2 : 0;  // D = 64 spilled with 2; otherwise all within the noise

  fill_row_offsets(p.q_layout, shared.q_offsets);
  fill_row_offsets(p.kv_layout, shared.kv_offsets);
  const int64_t list_row = static_cast<int64_t>(head_item) * p.q_layout.tiles + tile;
  const auto make_walk = [&] {
    return ListWalk(p.offsets, p.indices, list_row, p.q_layout.tiles, p.kv_layout.tiles, 1, b, kv_head);
  };
  if (threadIdx.x == 0) shared.walk = make_walk();  // read again when the ring wants more: not worth registers
  const int32_t length = make_walk().length;
  if (threadIdx.x < 2 * EntryRing::kHalf) {
    shared.ring.put(make_walk(), p.kv_layout, p.Hkv, D, threadIdx.x);
  }
  const int slot = threadIdx.x % kTileVolume;
  if (threadIdx.x < kTileVolume) {
    shared.lse_log2[slot] = ptx::to_log2(p.lse_of_slots[list_row * kTileVolume + slot]);
  } else {
    shared.delta[slot] = p.delta_of_slots[list_row * kTileVolume + slot];
  }
  static_assert(kThreads == 2 * kTileVolume, "every thread brings one value");
  __syncthreads();

  // Q and dO join the first group of copies. Where nothing follows there must be none: nobody would wait for them.
  if (length > 0) {
    copy_tiles<T, D>(Entry(p.q_layout, b, p.H, h, tile, D), shared.q_offsets, p.H, p.q, p.doutput, shared.q,
                     shared.doutput);
  }
  const auto load = [&](int32_t position) {
    DqStage<D>& stage = shared.stages[p.stages == 2 ? position % 2 : 0];
    copy_tiles<T, D>(shared.ring.entry(position), shared.kv_offsets, p.Hkv, p.k, p.v, stage.k, stage.v);
    ptx::cp_async_commit();
  };

  float sums[2][D / 8][4] = {};  // dQ
  const uint32_t q_rows = rows_first<D>(shared.q, row), doutput_rows = rows_first<D>(shared.doutput, row);
  if (p.stages == 2 && length > 0) load(0);
  for (int32_t position = 0; position < length; ++position) {
    if (p.stages == 1) {
      __syncthreads();
      load(position);
    }
    ptx::cp_async_wait<0>();
    __syncthreads();  // this stage is here, and nobody uses the other one any more
    if (p.stages == 2 && position + 1 < length) load(position + 1);
    if (EntryRing::wants_more(position) && threadIdx.x < EntryRing::kHalf) {
      shared.ring.put(shared.walk, p.kv_layout, p.Hkv, D, position + EntryRing::kHalf + threadIdx.x);
    }
    const DqStage<D>& stage = shared.stages[p.stages == 2 ? position % 2 : 0];

    float s[2][4][4], dp[2][4][4];
    multiply_rows<T, D, kAhead, 2, 4>(s, q_rows, columns_first<D>(stage.k, key));
    multiply_rows<T, D, kAhead, 2, 4>(dp, doutput_rows, columns_first<D>(stage.v, key));
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const int first = row + m * 16 + lane / 4;
      const float lse[2] = {shared.lse_log2[first], shared.lse_log2[first + 8]};
      const float delta[2] = {shared.delta[first], shared.delta[first + 8]};
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float probability = ptx::exp2(s[m][n][i] * p.scale_log2 - lse[i / 2]);
          dp[m][n][i] = probability * (dp[m][n][i] - delta[i / 2]);
        }
      }
    }
    const uint64_t valid = shared.ring.valid[position % (2 * EntryRing::kHalf)];
    if (valid != ~uint64_t{0}) {  // the keys of padding were read as 0, but their P may be anything, inf included
      const uint32_t columns = static_cast<uint32_t>(valid >> key) >> (lane % 4 * 2);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) dp[m][n][i] = columns >> (n * 8 + i % 2) & 1 ? dp[m][n][i] : 0.0f;
        }
      }
    }
    uint32_t a[2][2][4];
#pragma unroll
    for (int step = 0; step < 2; ++step) {
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* ds = dp[m][step * 2 + i / 2] + i % 2 * 2;
          a[step][m][i] = ptx::pack<T>(ds[0], ds[1]);
        }
      }
    }
    accumulate<T, D, kAhead, 2, 2>(sums, a, rows_first<D>(stage.k, key));
  }

  // Each warp gives half of the columns to its neighbour and keeps the other half.
  constexpr int kHalf = D / 16;
  __syncthreads();
  float4* exchange = reinterpret_cast<float4*>(&shared.stages[0]);
  static_assert(sizeof(DqStage<D>) >= 4 * 2 * kHalf * 32 * sizeof(float4), "half of dQ in fp32 must fit a stage");
  float kept[2][kHalf][4];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < kHalf; ++n) {
      float given[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        kept[m][n][i] = half == 0 ? sums[m][n][i] : sums[m][n + kHalf][i];
        given[i] = half == 0 ? sums[m][n + kHalf][i] : sums[m][n][i];
      }
      exchange[((warp * 2 + m) * kHalf + n) * 32 + lane] = make_float4(given[0], given[1], given[2], given[3]);
    }
  }
  __syncthreads();
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < kHalf; ++n) {
      const float4 other = exchange[(((warp ^ 1) * 2 + m) * kHalf + n) * 32 + lane];
      kept[m][n][0] += other.x, kept[m][n][1] += other.y, kept[m][n][2] += other.z, kept[m][n][3] += other.w;
    }
  }
  const Entry queries(p.q_layout, b, p.H, h, tile, D);
  const float* pooled = p.dq_pooled;
  if (pooled != nullptr) pooled += ((static_cast<int64_t>(b) * p.q_layout.tiles + tile) * p.H + h) * D;
  finish_tile<T, D, 2, kHalf>(kept, p.scale, pooled, __popcll(queries.valid), shared.q, row, half * (D / 2));
  __syncthreads();
  store_tile<T, D>(queries, shared.q_offsets, p.q_layout.tiled, p.H, shared.q, p.dq);
}

}  // namespace vsa::cuda::fine_backward
