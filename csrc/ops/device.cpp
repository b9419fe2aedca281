#include "ops/device.h"

#include <future>
#include <memory>
#include <string>

#include "core/error.h"
#include "cpu/device.h"
#ifdef VSA_WITH_CUDA
#include "cuda/device.h"
#endif

namespace vsa {

Device& Device::at(int index) {
  if (index == kCpu) return cpu::device();
#ifdef VSA_WITH_CUDA
  return cuda::device(index);
#else
  throw Error("ERR_DEVICE", "device cuda:" + std::to_string(index) + ": this addon was built without CUDA");
#endif
}

void Device::end_thread() noexcept {
#ifdef VSA_WITH_CUDA
  cuda::CudaDevice::end_thread();
#endif
}

void Device::synchronize() {
  // Shared: the thread that sets it may still be in there when this one goes on.
  const auto idle = std::make_shared<std::promise<std::exception_ptr>>();
  when_idle([idle](std::exception_ptr failure) { idle->set_value(std::move(failure)); });
  if (const std::exception_ptr failure = idle->get_future().get()) std::rethrow_exception(failure);
}

}  // namespace vsa
