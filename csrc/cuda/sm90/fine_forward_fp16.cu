#include "cuda/sm90/fine_forward_launch.cuh"

namespace vsa::cuda::sm90 {

void launch_fine_forward_fp16(const FineForward& f, const Launch& on) {
  f.order == Order::grid ? launch_fine_forward_typed<__half, true>(f, on)
                         : launch_fine_forward_typed<__half, false>(f, on);
}

}  // namespace vsa::cuda::sm90
