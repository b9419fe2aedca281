#include "cuda/kernel_attributes.h"

#include <functional>
#include <mutex>
#include <unordered_map>

#include "cuda/check.h"

namespace vsa::cuda {
namespace {

struct Key {
  const void* kernel;
  int device;
  cudaFuncAttribute attribute;
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    return std::hash<const void*>()(key.kernel) * 31 + static_cast<size_t>(key.device) * 8 +
           static_cast<size_t>(key.attribute);
  }
};

}  // namespace

void raise_attribute(const void* kernel, cudaFuncAttribute attribute, int value, const char* name) {
  static std::mutex mutex;
  static auto& values = *new std::unordered_map<Key, int, KeyHash>;  // outlives every thread
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard lock(mutex);
  const Key key{kernel, device, attribute};
  if (const auto known = values.find(key); known != values.end() && known->second >= value) return;
  check(cudaFuncSetAttribute(kernel, attribute, value), name);
  values[key] = value;
}

}  // namespace vsa::cuda
