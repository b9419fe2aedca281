#include "cpu/kernels.h"

#if defined(__x86_64__)

#define VSA_ISA avx512
#define VSA_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define VSA_LANES 16
#define VSA_ROWS 8
#include "cpu/kernels_body.h"

namespace vsa::cpu {
const Kernels* avx512_kernels() {
  return &avx512::table;
}
}  // namespace vsa::cpu

#else

namespace vsa::cpu {
const Kernels* avx512_kernels() {
  return nullptr;
}
}  // namespace vsa::cpu

#endif
