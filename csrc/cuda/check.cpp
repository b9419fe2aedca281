#include "cuda/check.h"

#include <string>

namespace vsa::cuda {

CudaError::CudaError(cudaError_t error_, const char* call_)
    : Error("ERR_DEVICE",
            std::string(call_) + ": " + cudaGetErrorString(error_) + " (" + cudaGetErrorName(error_) + ")"),
      error(error_),
      call(call_) {}

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw CudaError(error, what);
}

}  // namespace vsa::cuda
