#include <string>

#include "binding/ops.h"
#include "binding/throw.h"
#include "core/error.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#ifdef VSA_WITH_CUDA
#include "cuda/devices.h"
#endif

namespace vsa::binding {
namespace {

// build() -> what this addon was built from and for
Napi::Value build(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto result = Napi::Object::New(env);
  result.Set("version", VSA_VERSION);
  result.Set("commit", VSA_COMMIT);
  result.Set("compiler", VSA_COMPILER);
  result.Set("instructionSet", cpu::kernels().instruction_set);
#ifdef VSA_WITH_CUDA
  result.Set("cuda", VSA_CUDA_VERSION);
  result.Set("cudaArchitectures", VSA_CUDA_ARCHITECTURES);
#else
  result.Set("cuda", env.Null());
  result.Set("cudaArchitectures", env.Null());
#endif
  return result;
}

// cudaStatus() -> { problem, driverVersion, runtimeVersion, devices: [...] }
Napi::Value cuda_status(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto result = Napi::Object::New(env);
  auto devices = Napi::Array::New(env);
#ifdef VSA_WITH_CUDA
  const cuda::Status status = cuda::status();
  result.Set("problem", status.problem);
  result.Set("driverVersion", status.driver_version);
  result.Set("runtimeVersion", status.runtime_version);
  for (const cuda::DeviceInfo& one : status.devices) {
    auto device = Napi::Object::New(env);
    device.Set("index", one.index);
    device.Set("name", one.name);
    device.Set("computeCapability", std::to_string(one.major) + "." + std::to_string(one.minor));
    device.Set("totalMemory", static_cast<double>(one.total_memory));
    device.Set("hasCode", one.has_code);
    devices.Set(devices.Length(), device);
  }
#else
  result.Set("problem", "this addon was built without CUDA (no nvcc was found, or VSA_CUDA=OFF)");
  result.Set("driverVersion", 0);
  result.Set("runtimeVersion", 0);
#endif
  result.Set("devices", devices);
  return result;
}

Napi::Value get_threads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), cpu::threads());
}

Napi::Value set_threads(const Napi::CallbackInfo& info) {
  const int64_t count = info[0].As<Napi::Number>().Int64Value();
  VSA_CHECK(count >= 1 && count <= 1024, "threads must lie in [1, 1024]");
  cpu::set_threads(static_cast<int>(count));
  return info.Env().Undefined();
}

}  // namespace

void export_info(Napi::Env env, Napi::Object exports) {
  exports.Set("build", function<build>(env));
  exports.Set("cudaStatus", function<cuda_status>(env));
  exports.Set("threads", function<get_threads>(env));
  exports.Set("setThreads", function<set_threads>(env));
}

}  // namespace vsa::binding
