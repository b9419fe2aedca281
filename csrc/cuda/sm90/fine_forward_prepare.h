#pragma once

#include "cuda/launch.h"
#include "cuda/sm90/fine_forward_args.cuh"
#include "ops/fine.h"

namespace vsa::cuda::sm90 {

// How query tiles are grouped: two neighbours or three, four with full lists; pairs in parts where they are too few for
// the GPU.
struct Grouping {
  int members;
  int parts;
};
Grouping grouping_of(const FineForward&, int sm_count);

// Puts on the stream what the kernels need first (the merged lists of groups, clean copies of partial value tiles) and
// returns their arguments.
FineForwardArgs prepare_fine_forward(const FineForward&, const Grouping&, const Launch&);

}  // namespace vsa::cuda::sm90
