#pragma once

#include "core/tile_lists.h"
#include "cuda/launch.h"

namespace vsa::cuda {

// Looks through lists that may hold anything: offsets must begin at 0, never fall and end at lists.count; the entries
// of a row must ascend and lie in [0, columns). `*problem` becomes 1 where they don't (it was 0 before), and
// safe_offsets [heads * rows + 1] a copy of the offsets, or all 0 where there is a problem: kernels that go by
// safe_offsets stay within bounds. Full lists need no check: nothing is launched.
void launch_lists_check(const TileLists& lists, int64_t heads, int32_t* problem, int32_t* safe_offsets,
                        const Launch& on);

}  // namespace vsa::cuda
