#pragma once

namespace vsa::cuda::ptx {

// One side of a named barrier (cuda/ptx/named_barrier.h): this warp's threads are counted, and it goes on.
__device__ __forceinline__ void named_barrier_arrive(int number, int threads) {
  asm volatile("barrier.cta.arrive.aligned %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

}  // namespace vsa::cuda::ptx
