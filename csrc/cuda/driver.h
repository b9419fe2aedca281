#pragma once

namespace vsa::cuda {

// A function of the driver as it was in a version of CUDA (12000 for 12.0). By entry point, so that the addon loads
// where there is no driver to link with. Throws ERR_DEVICE if the driver has none.
void* driver_function(const char* name, unsigned version);

template <typename Function>
Function driver_function(const char* name, unsigned version) {
  return reinterpret_cast<Function>(driver_function(name, version));
}

}  // namespace vsa::cuda
