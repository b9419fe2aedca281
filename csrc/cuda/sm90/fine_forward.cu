#include "cuda/sm90/fine_forward.h"

namespace vsa::cuda::sm90 {

void launch_fine_forward_bf16(const FineForward&, const Launch&);
void launch_fine_forward_fp16(const FineForward&, const Launch&);

void launch_fine_forward(const FineForward& f, const Launch& on) {
  if (f.B * f.H * f.q_grid.total_tiles() == 0) return;
  f.dtype == DType::bfloat16 ? launch_fine_forward_bf16(f, on) : launch_fine_forward_fp16(f, on);
}

}  // namespace vsa::cuda::sm90
