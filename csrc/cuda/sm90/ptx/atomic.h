#pragma once

#include <cstdint>

namespace vsa::cuda::ptx {

// By hand, because the compiler makes of atomicAdd an aggregation over the warp, at the price of registers.
__device__ __forceinline__ int32_t fetch_add(int32_t* counter, int32_t value) {
  int32_t before;
  asm volatile("atom.relaxed.gpu.global.add.s32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(value) : "memory");
  return before;
}

}  // namespace vsa::cuda::ptx
