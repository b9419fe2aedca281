#pragma once

#include <cfloat>
#include <cstdint>

#include "cuda/ptx/math.h"
#include "cuda/ptx/named_barrier.h"
#include "cuda/sm90/fine_forward_args.cuh"

namespace vsa::cuda::sm90 {

// Of a query tile whose list is cut into parts: keeps this part's sums; the warpgroup that finds all parts done joins
// them, in their order whoever it is, so that bits do not depend on it. True for that one. `totals` are those of rows.
template <int N>
__device__ __forceinline__ bool join_parts(const FineForwardArgs& p, int32_t query_tile, int32_t part, float (&o)[N],
                                           float (&reference)[2], float (&total)[2], int thread, int barrier,
                                           int32_t* shared_before) {
  constexpr int kNumbers = N + 4;
  float* all = p.partial + static_cast<int64_t>(query_tile) * p.parts * kNumbers * 128 + thread;
  float* mine = all + static_cast<int64_t>(part) * kNumbers * 128;
#pragma unroll
  for (int i = 0; i < N; ++i) __stcg(mine + i * 128, o[i]);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    __stcg(mine + (N + r) * 128, reference[r]);
    __stcg(mine + (N + 2 + r) * 128, total[r]);
  }
  __threadfence();
  ptx::named_barrier_sync(barrier, 128);
  if (thread == 0) *shared_before = atomicAdd(&p.arrived[query_tile], 1);
  ptx::named_barrier_sync(barrier, 128);
  const bool is_last = *shared_before == p.parts - 1;
  ptx::named_barrier_sync(barrier, 128);  // before the next item's count comes there
  if (!is_last) return false;
  __threadfence();

  float highest[2] = {-FLT_MAX, -FLT_MAX};
  for (int32_t i = 0; i < p.parts; ++i) {
#pragma unroll
    for (int r = 0; r < 2; ++r) highest[r] = fmaxf(highest[r], __ldcg(all + (i * kNumbers + N + r) * 128));
  }
#pragma unroll
  for (int i = 0; i < N; ++i) o[i] = 0;
  total[0] = total[1] = 0;
  for (int32_t i = 0; i < p.parts; ++i) {
    const float* from = all + i * kNumbers * 128;
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      factor[r] = ptx::exp2(__ldcg(from + (N + r) * 128) - highest[r]);
      total[r] = fmaf(__ldcg(from + (N + 2 + r) * 128), factor[r], total[r]);
    }
#pragma unroll
    for (int n = 0; n < N; ++n) o[n] = fmaf(__ldcg(from + n * 128), factor[n / 2 % 2], o[n]);
  }
  reference[0] = highest[0], reference[1] = highest[1];
  return true;
}

}  // namespace vsa::cuda::sm90
