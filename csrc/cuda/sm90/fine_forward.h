#pragma once

#include "cuda/launch.h"
#include "ops/fine.h"

namespace vsa::cuda::sm90 {

// Why the kernels below cannot take the problem, or null.
const char* refuses(const FineForward&, const Launch&);

// Fine attention on Hopper's own instructions: bfloat16 and float16, D = 64 and 128.
void launch_fine_forward(const FineForward&, const Launch&);

}  // namespace vsa::cuda::sm90
