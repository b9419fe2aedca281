#include "cpu/kernels.h"

#if defined(__x86_64__)

#define VSA_ISA avx2
#define VSA_TARGET __attribute__((target("avx2,fma")))
#define VSA_LANES 8
#define VSA_ROWS 6
#include "cpu/kernels_body.h"

namespace vsa::cpu {
const Kernels* avx2_kernels() {
  return &avx2::table;
}
}  // namespace vsa::cpu

#else

namespace vsa::cpu {
const Kernels* avx2_kernels() {
  return nullptr;
}
}  // namespace vsa::cpu

#endif
