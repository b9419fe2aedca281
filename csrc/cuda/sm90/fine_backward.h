#pragma once

#include "cuda/launch.h"
#include "ops/fine.h"

namespace vsa::cuda::sm90 {

// Why these kernels cannot take the problem, or null.
const char* refuses(const FineBackward&, const Launch&);

// dQ, dK, dV in two deterministic passes: wgmma, copies by the copy engine, a block an SM. For what is not refused.
void launch_fine_backward(const FineBackward&, const Launch&);

}  // namespace vsa::cuda::sm90
