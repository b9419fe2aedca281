#define VSA_ISA generic
#define VSA_TARGET
#define VSA_LANES 4
#define VSA_ROWS 4
#include "cpu/kernels_body.h"

namespace vsa::cpu {
const Kernels* generic_kernels() {
  return &generic::table;
}
}  // namespace vsa::cpu
