#include "cuda/fine_forward_16.cuh"

namespace vsa::cuda {

void launch_fine_forward_fp16(const FineForward& f, const Launch& launch) {
  launch_fine_forward_16<__half>(f, launch);
}

}  // namespace vsa::cuda
