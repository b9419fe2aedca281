#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace vsa::cuda {

// Division of numbers below 2^31 by one that the host knows, 1 to 2^31: a product and a shift, where the GPU would take
// some 30 instructions (Granlund and Montgomery, Division by invariant integers using multiplication, 1994).
struct FastDivision {
  uint32_t divisor, multiplier, shift;

  FastDivision() = default;
  explicit FastDivision(uint32_t by) : divisor(by), shift(0) {
    while ((uint64_t{1} << shift) < by) ++shift;
    multiplier = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - by)) / by + 1);
  }
#if defined(__CUDACC__)
  __device__ __forceinline__ uint32_t operator()(uint32_t x) const {
    return static_cast<uint32_t>((static_cast<uint64_t>(__umulhi(x, multiplier)) + x) >> shift);
  }
#endif
};

}  // namespace vsa::cuda
