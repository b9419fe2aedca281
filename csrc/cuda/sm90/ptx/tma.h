#pragma once

#include <cuda.h>

#include <cstdint>
#include <cuda/ptx>

namespace vsa::cuda::ptx {

// Copies a box of a tensor to shared memory; its bytes count towards the barrier's phase. What lies outside the tensor
// arrives as zeros and counts as well.
template <int kRank>
__device__ __forceinline__ void tma_load(void* shared, const CUtensorMap* map, const int32_t (&at)[kRank],
                                         uint64_t* barrier) {
  ::cuda::ptx::cp_async_bulk_tensor(::cuda::ptx::space_cluster, ::cuda::ptx::space_global, shared, map, at, barrier);
}

}  // namespace vsa::cuda::ptx
