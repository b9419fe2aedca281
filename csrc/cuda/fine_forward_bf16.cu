#include "cuda/fine_forward_16.cuh"

namespace vsa::cuda {

void launch_fine_forward_bf16(const FineForward& f, const Launch& launch) {
  launch_fine_forward_16<__nv_bfloat16>(f, launch);
}

}  // namespace vsa::cuda
