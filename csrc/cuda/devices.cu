// Which GPUs there are and whether this build runs on them. The one CUDA file that must work anywhere: cudart is
// linked statically, so on a machine without a driver every call below returns an error value and nothing crashes.

#include <cuda_runtime_api.h>

#include "cuda/devices.h"

namespace vsa::cuda {
namespace {

// Compiled for the architectures of every other kernel: where this one has code, they have.
__global__ void probe() {}

// 13020 -> "13.2"
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The oldest driver series that serves a CUDA release, from NVIDIA's compatibility table; minor releases share it.
const char* oldest_driver_series(int runtime_version) {
  switch (runtime_version / 1000) {
    case 12:
      return "525";
    case 13:
      return "580";
    default:
      return nullptr;
  }
}

std::string versions_text(const Status& status) {
  const std::string driver = status.driver_version == 0
                                 ? "no NVIDIA driver"
                                 : "the NVIDIA driver serves CUDA " + version_text(status.driver_version);
  return driver + ", this build has the CUDA " + version_text(status.runtime_version) + " runtime";
}

// One sentence for an error of cudaGetDeviceCount, naming both versions.
std::string no_device_text(const Status& status, cudaError_t error) {
  std::string text = versions_text(status);
  const bool old_driver = status.driver_version / 1000 < status.runtime_version / 1000;
  if (const char* series = oldest_driver_series(status.runtime_version); old_driver && series != nullptr) {
    return text + ", which needs a driver of the " + series + " series or newer";
  }
  return text + ", but there is no usable GPU: " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")";
}

// Opens the device: there is no other way to learn whether the driver accepts this build's code.
cudaError_t open_and_probe(int index) {
  cudaError_t error = cudaSetDevice(index);
  if (error == cudaSuccess) {
    cudaFuncAttributes attributes;
    error = cudaFuncGetAttributes(&attributes, probe);
  }
  cudaGetLastError();  // a failed probe must not become the next caller's error
  return error;
}

bool means_no_code(cudaError_t error) {
  return error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
         error == cudaErrorUnsupportedPtxVersion || error == cudaErrorJitCompilerNotFound;
}

}  // namespace

Status status() {
  Status status{};
  cudaRuntimeGetVersion(&status.runtime_version);
  if (cudaDriverGetVersion(&status.driver_version) != cudaSuccess) status.driver_version = 0;
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (counted != cudaSuccess || count == 0) {
    status.problem = no_device_text(status, counted == cudaSuccess ? cudaErrorNoDevice : counted);
    return status;
  }

  int current = 0;
  const bool restore = cudaGetDevice(&current) == cudaSuccess;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties;
    cudaError_t error = cudaGetDeviceProperties(&properties, index);
    const bool known = error == cudaSuccess;
    if (known) error = open_and_probe(index);
    DeviceInfo info{index, known ? properties.name : "unknown", 0, 0, 0, error == cudaSuccess};
    if (known) {
      info.major = properties.major;
      info.minor = properties.minor;
      info.total_memory = static_cast<int64_t>(properties.totalGlobalMem);
    }
    if (error != cudaSuccess && !means_no_code(error)) {
      status.problem += (status.problem.empty() ? "" : "; ") + ("GPU " + std::to_string(index)) + " (" + info.name +
                        ") cannot be opened: " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + "; " +
                        versions_text(status) + ")";
    }
    status.devices.push_back(std::move(info));
  }
  if (restore) cudaSetDevice(current);
  cudaGetLastError();
  return status;
}

}  // namespace vsa::cuda
