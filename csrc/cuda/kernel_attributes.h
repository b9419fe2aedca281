#pragma once

#include <cuda_runtime_api.h>

namespace vsa::cuda {

// Gives a kernel an attribute of at least `value` on the current device. CUDA is asked only where the kernel has less
// so far: the call costs about as much as a launch. `name` is told where it fails.
void raise_attribute(const void* kernel, cudaFuncAttribute attribute, int value, const char* name);

// Lets blocks of a kernel have so much dynamic shared memory.
template <typename... Params>
void allow_shared_memory(void (*kernel)(Params...), int bytes, const char* name) {
  raise_attribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes, name);
}

// Leaves as much of an SM's memory to the shared memory of a kernel's blocks as can be.
template <typename... Params>
void prefer_shared_memory(void (*kernel)(Params...), const char* name) {
  raise_attribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributePreferredSharedMemoryCarveout,
                  cudaSharedmemCarveoutMaxShared, name);
}

}  // namespace vsa::cuda
