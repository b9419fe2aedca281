#pragma once

#include "cuda/fine_backward_args.cuh"

namespace vsa::cuda::fine_backward {

inline constexpr int kRowsThreads = 256;  // of the pre-pass

// In which order pass 1 takes its key tiles, where lists differ in length: an item's place is head * W - 2 * length, W
// being the time that a head takes. So heads follow one another, which keeps the working set in L2, but long lists
// start early, the last head's well before its turn. (Simulated on lists of 0 to 234 tiles, 62 on average, 12 heads:
// the last block ends 0.3 % after the mean; in order of memory 5.9 %; the longest of each head first 4.0 %.) A counting
// sort by one block. Items of one bin come in any order: that moves no bit of the results.
__device__ __forceinline__ void order_items(const Args& p) {
  constexpr int kBins = 1024, kPerThread = kBins / kRowsThreads;
  __shared__ int32_t bins[kBins], totals[kRowsThreads];
  const int32_t heads = p.B * p.Hkv, items = heads * p.kv_layout.tiles;
  const int64_t list_rows = static_cast<int64_t>(p.B) * p.H * p.kv_layout.tiles;
  const float head_time = static_cast<float>(p.t_offsets[list_rows] - p.t_offsets[0]) / heads / p.resident_blocks;
  const float longest = 2.0f * p.group * p.q_layout.tiles, bins_a_unit = kBins / (heads * head_time + longest + 1.0f);
  const auto bin_of = [&](int32_t item) {
    const int32_t head = item / p.kv_layout.tiles, tile = item - head * p.kv_layout.tiles;
    int32_t length = 0;
    for (int32_t g = 0; g < p.group; ++g) {
      const int64_t row = (static_cast<int64_t>(head) * p.group + g) * p.kv_layout.tiles + tile;
      length += p.t_offsets[row + 1] - p.t_offsets[row];
    }
    const float place = head * head_time - 2.0f * length + longest;
    return max(0, min(kBins - 1, static_cast<int32_t>(place * bins_a_unit)));
  };

  for (int i = threadIdx.x; i < kBins; i += kRowsThreads) bins[i] = 0;
  __syncthreads();
  for (int32_t item = threadIdx.x; item < items; item += kRowsThreads) atomicAdd(&bins[bin_of(item)], 1);
  __syncthreads();
  int32_t own = 0;
  for (int i = 0; i < kPerThread; ++i) own += bins[threadIdx.x * kPerThread + i];
  totals[threadIdx.x] = own;
  __syncthreads();
  int32_t before = 0;
  for (int i = 0; i < threadIdx.x; ++i) before += totals[i];
  for (int i = 0; i < kPerThread; ++i) {
    int32_t& bin = bins[threadIdx.x * kPerThread + i];
    const int32_t count = bin;
    bin = before, before += count;
  }
  __syncthreads();
  for (int32_t item = threadIdx.x; item < items; item += kRowsThreads)
    p.order[atomicAdd(&bins[bin_of(item)], 1)] = item;
}

}  // namespace vsa::cuda::fine_backward
