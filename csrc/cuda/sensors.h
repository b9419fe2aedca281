#pragma once

#include <optional>

namespace vsa::cuda {

struct Sensors {
  std::optional<double> sm_mhz, watts, celsius;  // absent where NVML is, or the GPU does not say
};

// Read through NVML, which comes with the driver; opened when it is first asked for.
Sensors read_sensors(int device);

}  // namespace vsa::cuda
