#pragma once

#include <cuda_runtime_api.h>

namespace vsa::cuda {

// For tests of what follows a fault: a kernel that writes where no memory is.
void launch_fault(cudaStream_t stream);

}  // namespace vsa::cuda
