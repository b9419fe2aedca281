#include "cuda/sensors.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

namespace vsa::cuda {
namespace {

// The few functions and constants of NVML's stable C interface that are used, so that its header need not be there.
using Handle = struct NvmlDevice*;
constexpr int kSuccess = 0, kSmClock = 1, kTemperatureGpu = 0;

struct Nvml {
  int (*init)() = nullptr;
  int (*by_bus)(const char*, Handle*) = nullptr;
  int (*clock)(Handle, int, unsigned*) = nullptr;
  int (*power)(Handle, unsigned*) = nullptr;
  int (*temperature)(Handle, int, unsigned*) = nullptr;
  bool ready = false;

  Nvml() {
    void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    ready = find(init, "nvmlInit_v2") && find(by_bus, "nvmlDeviceGetHandleByPciBusId_v2") &&
            find(clock, "nvmlDeviceGetClockInfo") && find(power, "nvmlDeviceGetPowerUsage") &&
            find(temperature, "nvmlDeviceGetTemperature") && init() == kSuccess;
  }
};

}  // namespace

Sensors read_sensors(int device) {
  static const Nvml nvml;
  Sensors sensors;
  char bus[64] = {};
  // CUDA and NVML may count devices differently; the bus is the same.
  if (!nvml.ready || cudaDeviceGetPCIBusId(bus, sizeof(bus), device) != cudaSuccess) return sensors;
  Handle handle = nullptr;
  if (nvml.by_bus(bus, &handle) != kSuccess) return sensors;
  unsigned value = 0;
  if (nvml.clock(handle, kSmClock, &value) == kSuccess) sensors.sm_mhz = value;
  if (nvml.power(handle, &value) == kSuccess) sensors.watts = value / 1000.0;
  if (nvml.temperature(handle, kTemperatureGpu, &value) == kSuccess) sensors.celsius = value;
  return sensors;
}

}  // namespace vsa::cuda
