#pragma once

#include <napi.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "binding/grid.h"
#include "binding/handle.h"
#include "binding/throw.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/storage.h"
#include "core/tile_grid.h"
#include "core/tile_lists.h"
#include "ops/device.h"

namespace vsa::binding {

// The arguments of an operation, by the names of the params struct's fields. They come by position, in this order:
// reading them from an object by name would take longer than launching the operation.
using Fields = std::vector<const char*>;

// Exports an operation. Its function tells the fields to lib/binding.ts, which passes those of an object; `a.b` is a
// field of a field.
template <Napi::Value (*Body)(const Napi::CallbackInfo&)>
void operation(Napi::Env env, Napi::Object exports, const char* name, std::initializer_list<const char*> names) {
  static const Fields fields(names);
  Napi::Function exported = function<Body>(env, const_cast<Fields*>(&fields));
  auto told = Napi::Array::New(env, fields.size());
  for (uint32_t i = 0; i < fields.size(); ++i) told.Set(i, fields[i]);
  exported.Set("fields", told);
  exports.Set(name, exported);
}

// Reads one operation's arguments, checks that every memory is as large as the operation will touch and all of one
// device, keeps it alive, and puts the operation on the device's queue. TypeScript has validated everything; this
// guards memory only.
class Args {
public:
  explicit Args(const Napi::CallbackInfo& info) : info_(info), fields_(*static_cast<const Fields*>(info.Data())) {
    inputs_.reserve(8), outputs_.reserve(4);
  }

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
  const TileGrid& grid(const char* name = "grid") const { return grid_of(get(name)); }

  // The numbers of elements of several memories.
  std::vector<int64_t> counts(const char* name) const;

  // Memory that the operation reads, or writes, of at least this many bytes. For a handle that is empty the second
  // makes it, of so many bytes, on the device of the memory before it: a call from JavaScript less for every output.
  const void* in(const char* name, int64_t bytes) { return touch(name, bytes, inputs_); }
  void* out(const char* name, int64_t bytes) {
    const Napi::Value handle = get(name);
    if (is_empty(handle)) make(handle, name, bytes);
    return touch(handle, name, bytes, outputs_);
  }
  // The same, or null where JavaScript gave none.
  const void* in_or_null(const char* name, int64_t bytes) {
    const Napi::Value handle = get(name);
    return given(handle) ? touch(handle, name, bytes, inputs_) : nullptr;
  }
  void* out_or_null(const char* name, int64_t bytes) {
    const Napi::Value handle = get(name);
    if (!given(handle)) return nullptr;
    if (is_empty(handle)) make(handle, name, bytes);
    return touch(handle, name, bytes, outputs_);
  }
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
  // The fields name.offsets, name.indices and name.count, or full lists if absent; `count` indices.
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
    return info_.Env().Undefined();
  }

private:
  Napi::Value get(const char* name) const;
  static bool given(Napi::Value value) {
    const napi_valuetype type = value.Type();
    return type != napi_undefined && type != napi_null;
  }
  void make(Napi::Value handle, const char* name, int64_t bytes);
  void* touch(const char* name, int64_t bytes, Held& held) { return touch(get(name), name, bytes, held); }
  void* touch(Napi::Value handle, const char* name, int64_t bytes, Held& held);
  void* touch_of(const char* name, uint32_t index, int64_t bytes, Held& held);
  void hold(std::shared_ptr<Storage> storage, const char* name, Held& held);

  const Napi::CallbackInfo& info_;
  const Fields& fields_;
  mutable size_t next_ = 0;  // the field after the one read last: most are read in their order
  Held inputs_, outputs_;
  int device_ = kCpu;  // of the memory touched first
};

}  // namespace vsa::binding
