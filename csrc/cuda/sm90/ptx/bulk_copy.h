#pragma once

#include <cstdint>
#include <cuda/ptx>

namespace vsa::cuda::ptx {

// Contiguous bytes to shared memory by the copy engine: a multiple of 16, both addresses aligned to 16. They count
// towards the barrier's phase.
__device__ __forceinline__ void bulk_load(void* shared, const void* from, uint32_t bytes, uint64_t* barrier) {
  ::cuda::ptx::cp_async_bulk(::cuda::ptx::space_cluster, ::cuda::ptx::space_global, shared, from, bytes, barrier);
}

}  // namespace vsa::cuda::ptx
