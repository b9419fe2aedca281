#include "binding/args.h"

#include <cstring>
#include <string>

namespace vsa::binding {

Napi::Value Args::get(const char* name) const {
  for (size_t tried = 0; tried < fields_.size(); ++tried, ++next_) {
    if (next_ >= fields_.size()) next_ = 0;
    const char* const field = fields_[next_];
    if (field == name || std::strcmp(field, name) == 0) return info_[next_++];
  }
  throw Error("ERR_INTERNAL",
              std::string(name) + ": got no such argument of the operation, wanted it among its fields");
}

TileLists Args::lists(const char* name, int64_t heads, int64_t rows, int64_t columns) {
  const std::string prefix = std::string(name) + ".";
  const Napi::Value offsets = get((prefix + "offsets").c_str());
  if (!given(offsets)) return {nullptr, nullptr, rows, columns, 0};
  const Napi::Value indices = get((prefix + "indices").c_str());
  const int64_t count = integer((prefix + "count").c_str());
  return {static_cast<const int32_t*>(touch(offsets, name, (heads * rows + 1) * 4, inputs_)),
          static_cast<const int32_t*>(touch(indices, name, count * 4, inputs_)), rows, columns, count};
}

std::vector<int64_t> Args::counts(const char* name) const {
  const auto array = get(name).As<Napi::Array>();
  std::vector<int64_t> counts(length(name));
  for (uint32_t i = 0; i < counts.size(); ++i) {
    counts[i] = array.Get(i).As<Napi::Number>().Int64Value();
    VSA_CHECK(counts[i] >= 0 && counts[i] <= (int64_t{1} << 53), "a count must lie in [0, 2^53]");
  }
  return counts;
}

uint32_t Args::length(const char* name) const {
  const auto array = get(name).As<Napi::Array>();
  VSA_CHECK(array.IsArray(), "several memories come as an array");
  return array.Length();
}

void* Args::touch_of(const char* name, uint32_t index, int64_t bytes, Held& held) {
  return touch(get(name).As<Napi::Array>().Get(index), name, bytes, held);
}

void Args::make(Napi::Value handle, const char* name, int64_t bytes) {
  if (inputs_.empty() && outputs_.empty()) {
    throw Error("ERR_INTERNAL", std::string(name) + ": got a handle without memory, wanted some memory before it");
  }
  wrap(info_.Env(), Device::at(device_).allocate(bytes), handle);
}

void* Args::touch(Napi::Value handle, const char* name, int64_t bytes, Held& held) {
  const std::shared_ptr<Storage>& storage = unwrap(handle);
  if (storage->bytes() < bytes) {
    throw Error("ERR_INTERNAL", std::string(name) + ": got memory of " + std::to_string(storage->bytes()) +
                                    " bytes, wanted " + std::to_string(bytes));
  }
  hold(storage, name, held);
  return storage->data();
}

void Args::hold(std::shared_ptr<Storage> storage, const char* name, Held& held) {
  const bool first = inputs_.empty() && outputs_.empty();
  if (!first && storage->device() != device_) {
    throw Error("ERR_INTERNAL", std::string(name) + ": got memory of another device than the operation's");
  }
  device_ = storage->device();
  held.push_back(std::move(storage));
}

}  // namespace vsa::binding
