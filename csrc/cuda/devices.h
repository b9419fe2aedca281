#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vsa::cuda {

struct DeviceInfo {
  int index;
  std::string name;
  int major, minor;      // compute capability
  int64_t total_memory;  // bytes
  bool has_code;         // this build holds machine code or PTX that the device runs
};

struct Status {
  int driver_version;   // as CUDA counts it (13000 for 13.0); 0 without a driver
  int runtime_version;  // that this build was linked with
  std::string problem;  // why there is no device, or why one could not be opened; empty if all is well
  std::vector<DeviceInfo> devices;
};

// Safe on a machine without GPU or driver: a failure is a sentence in the result, and no CUDA error stays behind.
// Opens every visible GPU once (whether the driver takes this build's code can't be learned otherwise): that costs a
// fraction of a second a GPU, so keep the result. The current device of the calling thread is as it was.
Status status();

}  // namespace vsa::cuda
