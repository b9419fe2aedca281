#pragma once

#include <cstdint>

#include "cuda/sm90/fine_forward_args.cuh"

namespace vsa::cuda::sm90 {

// The numbers of the groups that a worker (a block, or a team of one) takes. Copying warps have few registers: what can
// be read again is not kept.
struct GroupNumbers {
  int32_t following;  // the number to look at next; lane 0's counts

  __device__ __forceinline__ static int32_t longs(const FineForwardArgs& p) {
    return p.schedule != nullptr ? p.schedule->longs : 0;
  }

  // The next number below `end`, or -1; the one after it is asked for, so that it comes while this one is worked on.
  __device__ __forceinline__ int32_t next(const FineForwardArgs& p, int32_t end, int32_t workers, int lane) {
    const int32_t number = __shfl_sync(~0u, following, 0);
    if (number >= end) {
      if (p.schedule != nullptr && lane == 0) leave(*p.schedule, static_cast<uint32_t>(workers));
      return -1;
    }
    if (p.schedule == nullptr) {
      following = number + workers;
    } else if (lane == 0) {
      following = workers + atomicAdd(&p.schedule->next, 1);
    }
    return number;
  }

private:
  // Nobody looks at the schedule any more when the last worker comes here.
  __device__ __forceinline__ static void leave(Schedule& schedule, uint32_t workers) {
    if (atomicInc(&schedule.done, workers - 1) == workers - 1) schedule.next = 0, schedule.longs = 0;
  }
};

}  // namespace vsa::cuda::sm90
