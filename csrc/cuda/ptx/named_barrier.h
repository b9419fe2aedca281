#pragma once

#include <cstdint>

namespace vsa::cuda::ptx {

// A barrier for some of a block's warps, `threads` in all; number 0 is that of __syncthreads.
__device__ __forceinline__ void named_barrier_sync(int number, int threads) {
  asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

}  // namespace vsa::cuda::ptx
