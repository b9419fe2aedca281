#pragma once

#include "cuda/launch.h"
#include "cuda/row_parts.cuh"

namespace vsa::cuda {

// The second stage of sums over the rows of each group: partial [groups, parts, width] to output [groups, width], in
// an order that is fixed. No parts: 0.
void launch_group_sums(const float* partial, const RowParts& parts, int64_t width, float* output, const Launch&);

}  // namespace vsa::cuda
