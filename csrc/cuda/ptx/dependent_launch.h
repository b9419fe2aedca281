#pragma once

namespace vsa::cuda::ptx {

// Programmatic dependent launch: blocks of the next kernel, if it was launched so, may start once all blocks of this
// one have come here or ended...
__device__ __forceinline__ void dependent_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// ... and wait here for the end of this one and for what it has written.
__device__ __forceinline__ void dependent_launch_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// First of all in a kernel that launch_in_chain launches (cuda/chain.h).
__device__ __forceinline__ void join_chain() {
  dependent_launch();
  dependent_launch_wait();
}

}  // namespace vsa::cuda::ptx
