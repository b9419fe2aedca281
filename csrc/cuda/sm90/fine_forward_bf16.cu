#include "cuda/sm90/fine_forward_launch.cuh"

namespace vsa::cuda::sm90 {

void launch_fine_forward_bf16(const FineForward& f, const Launch& on) {
  f.order == Order::grid ? launch_fine_forward_typed<__nv_bfloat16, true>(f, on)
                         : launch_fine_forward_typed<__nv_bfloat16, false>(f, on);
}

}  // namespace vsa::cuda::sm90
