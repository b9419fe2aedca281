#pragma once

#include "cuda/launch.h"
#include "ops/fine.h"

namespace vsa::cuda {

// The kernels behind launch(FineForward) and launch(FineBackward), by dtype: tensor cores for bfloat16 and float16, for
// float32 sums to fp32 accuracy. Hkv divides H, D is 64, 96 or 128.
void launch_fine_forward_16(const FineForward&, const Launch&);
void launch_fine_forward_bf16(const FineForward&, const Launch&);
void launch_fine_forward_fp16(const FineForward&, const Launch&);
void launch_fine_forward_f32(const FineForward&, const Launch&);
void launch_fine_backward_16(const FineBackward&, const Launch&);
void launch_fine_backward_f32(const FineBackward&, const Launch&);

}  // namespace vsa::cuda
