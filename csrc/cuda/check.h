#pragma once

#include <cuda_runtime_api.h>

#include "core/error.h"

namespace vsa::cuda {

// A CUDA call that failed. Whether the context survived it is for cuda/device.cpp to find out.
struct CudaError : Error {
  CudaError(cudaError_t error_, const char* call_);
  cudaError_t error;
  const char* call;  // or the kernel; a literal
};

// Throws CudaError and clears the error, if it can be cleared.
void check(cudaError_t error, const char* what);

// After a kernel launch: throws if the launch was refused. Its execution goes on.
inline void check_launch(const char* kernel) {
  check(cudaGetLastError(), kernel);
}

}  // namespace vsa::cuda
