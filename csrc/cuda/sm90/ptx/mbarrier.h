#pragma once

#include <cstdint>
#include <cuda/ptx>

// Barriers in shared memory with phases. The instructions are cuda::ptx's; this fixes their scope and adds the wait.
namespace vsa::cuda::ptx {

__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  ::cuda::ptx::mbarrier_init(barrier, arrivals);
}

__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier, uint32_t count = 1) {
  ::cuda::ptx::mbarrier_arrive(::cuda::ptx::sem_release, ::cuda::ptx::scope_cta, ::cuda::ptx::space_shared, barrier,
                               count);
}

// One arrival, and so many bytes of copies that must also come before the phase ends.
__device__ __forceinline__ void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  ::cuda::ptx::mbarrier_arrive_expect_tx(::cuda::ptx::sem_release, ::cuda::ptx::scope_cta, ::cuda::ptx::space_shared,
                                         barrier, bytes);
}

// Waits for the end of the phase of this parity (0: the first, third...). Only right for the current phase and the one
// before it: the parity of an earlier one looks the same as that of the current.
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  while (!::cuda::ptx::mbarrier_try_wait_parity(barrier, parity)) {
  }
}

}  // namespace vsa::cuda::ptx
