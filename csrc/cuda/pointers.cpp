#include "cuda/pointers.h"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "cuda/check.h"

namespace vsa::cuda {

std::optional<int64_t> room_at(const void* address, int device) {
  cudaPointerAttributes attributes{};
  const cudaError_t error = cudaPointerGetAttributes(&attributes, address);
  cudaGetLastError();
  if (error != cudaSuccess || attributes.type != cudaMemoryTypeDevice || attributes.device != device) return {};
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check(cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &entry, 12000, cudaEnableDefault, &found),
        "cudaGetDriverEntryPointByVersion");
  if (found != cudaDriverEntryPointSuccess) return {};
  CUdeviceptr base = 0;
  size_t size = 0;
  const auto at = reinterpret_cast<CUdeviceptr>(address);
  if (reinterpret_cast<PFN_cuMemGetAddressRange_v3020>(entry)(&base, &size, at) != CUDA_SUCCESS) return {};
  return static_cast<int64_t>(base + size - at);
}

}  // namespace vsa::cuda
