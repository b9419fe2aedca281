#pragma once

#include <napi.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "binding/handle.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/storage.h"
#include "core/tile_grid.h"
#include "core/tile_lists.h"
#include "ops/device.h"

namespace vsa::binding {

// Reads one operation's arguments from the object that JavaScript gave, by the names of the params struct's fields,
// checks that every memory is as large as the operation will touch and all of one device, keeps it alive, and puts the
// operation on the device's queue. TypeScript has validated everything; this guards memory only.
class Args {
public:
  explicit Args(Napi::Object object) : object_(object) {}
  explicit Args(const Napi::CallbackInfo& info) : Args(info[0].As<Napi::Object>()) {}

  int64_t integer(const char* name) const {
    const int64_t value = get(name).As<Napi::Number>().Int64Value();
    // Products of four such factors and a size must not overflow.
    VSA_CHECK(value >= 0 && value <= (int64_t{1} << 53), "an integer argument must lie in [0, 2^53]");
    return value;
  }
  double number(const char* name) const { return get(name).As<Napi::Number>().DoubleValue(); }
  bool boolean(const char* name) const { return get(name).ToBoolean(); }
  uint64_t seed(const char* name) const {
    bool lossless = false;
    return get(name).As<Napi::BigInt>().Uint64Value(&lossless);
  }
  DType dtype(const char* name = "dtype") const {
    const int64_t value = integer(name);
    VSA_CHECK(value <= static_cast<int64_t>(DType::int32), "unknown dtype");
    return static_cast<DType>(value);
  }
  DType float_dtype() const {
    const DType value = dtype();
    VSA_CHECK(value != DType::int32, "the operation takes floating-point tensors");
    return value;
  }
  Order order(const char* name = "order") const {
    const int64_t value = integer(name);
    VSA_CHECK(value <= 1, "unknown order");
    return static_cast<Order>(value);
  }
  // [T, Y, X, ct, cy, cx, prefix]
  TileGrid grid(const char* name = "grid") const;

  // Memory that the operation reads, or writes, of at least this many bytes.
  const void* in(const char* name, int64_t bytes) { return touch(name, bytes, inputs_); }
  void* out(const char* name, int64_t bytes) { return touch(name, bytes, outputs_); }
  // The same, or null where JavaScript gave none.
  const void* in_or_null(const char* name, int64_t bytes) { return has(name) ? in(name, bytes) : nullptr; }
  void* out_or_null(const char* name, int64_t bytes) { return has(name) ? out(name, bytes) : nullptr; }
  const float* in_f32(const char* name, int64_t count) { return static_cast<const float*>(in(name, count * 4)); }
  float* out_f32(const char* name, int64_t count) { return static_cast<float*>(out(name, count * 4)); }
  // Arrays of memories: how many, and each.
  uint32_t length(const char* name) const;
  const void* in_of(const char* name, uint32_t index, int64_t bytes) { return touch_of(name, index, bytes, inputs_); }
  void* out_of(const char* name, uint32_t index, int64_t bytes) { return touch_of(name, index, bytes, outputs_); }
  // Read and written in place.
  void* in_out_of(const char* name, uint32_t index, int64_t bytes) {
    in_of(name, index, bytes);
    return out_of(name, index, bytes);
  }
  // { offsets, indices, count }, or full lists if absent; `count` indices.
  TileLists lists(const char* name, int64_t heads, int64_t rows, int64_t columns);

  // Puts the operation on the queue of the device that its memory is on. A failure there is told to whoever reads an
  // output.
  Napi::Value launch(const Operation& operation) {
    Device& device = Device::at(device_);
    for (const auto& input : inputs_) {
      if (!input->awaits_replay() || device.capturing()) continue;
      throw Error("ERR_CAPTURE", std::string(name_of(operation)) +
                                     ": got a tensor of a graph that has not run yet, wanted replay() first");
    }
    device.launch({operation, std::move(inputs_), std::move(outputs_)});
    return object_.Env().Undefined();
  }

private:
  Napi::Value get(const char* name) const { return object_.Get(name); }
  bool has(const char* name) const {
    const Napi::Value value = get(name);
    return !value.IsUndefined() && !value.IsNull();
  }
  void* touch(const char* name, int64_t bytes, Held& held) { return touch(get(name), name, bytes, held); }
  void* touch(Napi::Value handle, const char* name, int64_t bytes, Held& held);
  void* touch_of(const char* name, uint32_t index, int64_t bytes, Held& held);
  void hold(std::shared_ptr<Storage> storage, const char* name, Held& held);

  Napi::Object object_;
  Held inputs_, outputs_;
  int device_ = kCpu;  // of the memory touched first
};

}  // namespace vsa::binding
