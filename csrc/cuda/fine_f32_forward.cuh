#pragma once

#include "cuda/launch.h"
#include "ops/fine.h"

namespace vsa::cuda::f32 {

// Blocks that share the list of one query tile, each with a part of it, so that a short problem fills the GPU. The
// best number for this problem, or 1.
int forward_parts(const FineForward&, const Launch&);

void launch_forward(const FineForward&, const Launch&, int parts);

}  // namespace vsa::cuda::f32
