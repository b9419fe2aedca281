#include "cuda/pointers.h"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "cuda/driver.h"

namespace vsa::cuda {

std::optional<int64_t> room_at(const void* address, int device) {
  cudaPointerAttributes attributes{};
  const cudaError_t error = cudaPointerGetAttributes(&attributes, address);
  cudaGetLastError();
  if (error != cudaSuccess || attributes.type != cudaMemoryTypeDevice || attributes.device != device) return {};
  static const auto range_of = driver_function<PFN_cuMemGetAddressRange_v3020>("cuMemGetAddressRange", 12000);
  CUdeviceptr base = 0;
  size_t size = 0;
  const auto at = reinterpret_cast<CUdeviceptr>(address);
  if (range_of(&base, &size, at) != CUDA_SUCCESS) return {};
  return static_cast<int64_t>(base + size - at);
}

}  // namespace vsa::cuda
