#pragma once

#include <cstdint>

namespace vsa::cuda::ptx {

// Registers of each thread of this warpgroup from here on; all four warps must execute it. A multiple of 8.
template <uint32_t kRegisters>
__device__ __forceinline__ void registers_increase() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <uint32_t kRegisters>
__device__ __forceinline__ void registers_decrease() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace vsa::cuda::ptx
