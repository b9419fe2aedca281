#include "cuda/driver.h"

#include <cuda_runtime_api.h>

#include <string>

#include "cuda/check.h"

namespace vsa::cuda {

void* driver_function(const char* name, unsigned version) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check(cudaGetDriverEntryPointByVersion(name, &function, version, cudaEnableDefault, &found),
        "cudaGetDriverEntryPointByVersion");
  if (found != cudaDriverEntryPointSuccess) throw Error("ERR_DEVICE", std::string("the driver has no ") + name);
  return function;
}

}  // namespace vsa::cuda
