#include "binding/handle.h"

#include <cstring>
#include <exception>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "binding/env.h"
#include "binding/throw.h"
#include "core/error.h"
#include "cpu/stream.h"
#include "ops/device.h"

namespace vsa::binding {
namespace {

void let_go(Napi::Env env, Handle& handle, bool collected) {
  if (handle.storage == nullptr) return;
  Environment::of(env).drop_tensor(env, handle.storage->drop_tensor(), handle.storage->bytes(), collected);
  handle.storage.reset();
}

Handle& handle_of(Napi::Value value) {
  void* data = nullptr;
  const bool external = napi_get_value_external(value.Env(), value, &data) == napi_ok && data != nullptr;
  auto* const handle = static_cast<Handle*>(data);
  if (!external || handle->magic != Handle::kMagic) throw Error("ERR_INTERNAL", "a memory handle was expected");
  return *handle;
}

Napi::Value new_handle(Napi::Env env, std::shared_ptr<Storage> storage) {
  return Napi::External<Handle>::New(env, new Handle{.storage = std::move(storage)},
                                     [](Napi::Env owner, Handle* handle) {
                                       let_go(owner, *handle, true);
                                       delete handle;
                                     });
}

// A span of a storage, from numbers that JavaScript gave.
struct Span {
  Span(Napi::Value handle, Napi::Value offset_, int64_t bytes_)
      : storage(unwrap(handle)), offset(offset_.As<Napi::Number>().Int64Value()), bytes(bytes_) {
    VSA_CHECK(offset >= 0 && bytes >= 0 && offset <= storage->bytes() - bytes, "a span must lie inside its memory");
  }

  unsigned char* data() const { return static_cast<unsigned char*>(storage->data()) + offset; }  // of the device

  std::shared_ptr<Storage> storage;
  int64_t offset, bytes;
};

void refuse_in_capture(Device& device, const char* what) {
  if (!device.capturing()) return;
  throw Error("ERR_CAPTURE", std::string(what) + ": got a call inside of graph(), wanted one before or after it");
}

Device& recordable(const Storage& storage, const char* what) {
  Device& device = Device::at(storage.device());
  refuse_in_capture(device, what);
  return device;
}

// The device of a memory that may be read now.
Device& readable(const Storage& storage) {
  Device& device = recordable(storage, "reading values");
  if (!storage.awaits_replay()) return device;
  throw Error("ERR_CAPTURE", "reading values: got a tensor of a graph that has not run yet, wanted replay() first");
}

// Waits for a span's values and takes them.
void read_now(const Span& span, Device::Take take) {
  // Shared: the thread that sets it may still be in there when this one goes on.
  const auto finished = std::make_shared<std::promise<std::exception_ptr>>();
  readable(*span.storage)
      .read(span.storage, span.offset, span.bytes, std::move(take),
            [finished](std::exception_ptr failure) { finished->set_value(std::move(failure)); });
  if (const std::exception_ptr failure = finished->get_future().get()) std::rethrow_exception(failure);
}

Napi::Value undefined(const Napi::CallbackInfo& info) {
  return info.Env().Undefined();
}

int device_index(Napi::Value value) {
  return value.As<Napi::Number>().Int32Value();
}

// alloc(bytes, device, released) -> handle
Napi::Value alloc(const Napi::CallbackInfo& info) {
  Device& device = Device::at(device_index(info[1]));
  return wrap(info.Env(), device.allocate(info[0].As<Napi::Number>().Int64Value()), info[2]);
}

// handle() -> one without memory: the operation that fills it makes that (Args::out)
Napi::Value empty(const Napi::CallbackInfo& info) {
  return new_handle(info.Env(), nullptr);
}

// retain(handle, released) -> another handle of the same memory
Napi::Value retain(const Napi::CallbackInfo& info) {
  return wrap(info.Env(), unwrap(info[0]), info[1]);
}

// release(handle): idempotent
Napi::Value release(const Napi::CallbackInfo& info) {
  let_go(info.Env(), handle_of(info[0]), false);
  return info.Env().Undefined();
}

// write(handle, offset, bytes, typed array, fresh): see Device::write. Of any kind: one of bytes has no room for more
// than 4 GiB in Node 20, one of floats has.
Napi::Value write(const Napi::CallbackInfo& info) {
  const Span span(info[0], info[1], info[2].As<Napi::Number>().Int64Value());
  const auto source = info[3].As<Napi::TypedArray>();
  VSA_CHECK(static_cast<int64_t>(source.ByteLength()) == span.bytes, "the source must be as long as the span");
  void* data = nullptr;
  napi_get_typedarray_info(info.Env(), source, nullptr, nullptr, &data, nullptr, nullptr);
  Device& device = recordable(*span.storage, "writes from the host");
  device.write(span.storage, span.offset, data, span.bytes, info[4].ToBoolean());
  return undefined(info);
}

// read(handle, offset, ArrayBuffer) -> Promise of that buffer, filled. JavaScript makes it: there a buffer that cannot
// be had is an exception, here it would end the process.
Napi::Value read(const Napi::CallbackInfo& info) {
  auto buffer = info[2].As<Napi::ArrayBuffer>();
  const Span span(info[0], info[1], static_cast<int64_t>(buffer.ByteLength()));
  Device& device = readable(*span.storage);
  return Environment::of(info.Env()).promise(buffer, buffer.Data(), [&](Environment::Completion completion) {
    device.read(span.storage, span.offset, span.bytes, std::move(completion.take), std::move(completion.done));
  });
}

// readSync(handle, offset, ArrayBuffer) -> that buffer, filled; waits for the queue
Napi::Value read_sync(const Napi::CallbackInfo& info) {
  auto buffer = info[2].As<Napi::ArrayBuffer>();
  const Span span(info[0], info[1], static_cast<int64_t>(buffer.ByteLength()));
  auto* const target = static_cast<unsigned char*>(buffer.Data());
  read_now(span, [target](const void* part, int64_t at, int64_t n) {
    std::memcpy(target + at, part, static_cast<size_t>(n));
  });
  return buffer;
}

// transfer(from, to, bytes): copies all of a memory to one on another device, of which one is the CPU
Napi::Value transfer(const Napi::CallbackInfo& info) {
  const int64_t bytes = info[2].As<Napi::Number>().Int64Value();
  const Span from(info[0], Napi::Number::New(info.Env(), 0), bytes),
      to(info[1], Napi::Number::New(info.Env(), 0), bytes);
  Device& source = readable(*from.storage);
  Device& target = recordable(*to.storage, "transfers between devices");
  VSA_CHECK((from.storage->device() == kCpu) != (to.storage->device() == kCpu), "one side of a transfer is the CPU");
  if (from.storage->device() == kCpu) {
    // The host's memory is read at once, so what fills it must have run.
    source.synchronize();
    if (const std::exception_ptr failure = from.storage->failure()) std::rethrow_exception(failure);
    target.write(to.storage, 0, from.data(), bytes, true);
    return undefined(info);
  }
  // The CPU's queue waits for the copy, this thread does not.
  const auto arrival = std::make_shared<std::promise<std::exception_ptr>>();
  source.read(
      from.storage, 0, bytes,
      [to](const void* part, int64_t at, int64_t n) { std::memcpy(to.data() + at, part, static_cast<size_t>(n)); },
      [arrival](std::exception_ptr failure) { arrival->set_value(std::move(failure)); });
  cpu::enqueue([to, arrival] {
    if (std::exception_ptr failure = arrival->get_future().get()) to.storage->fail(std::move(failure));
  });
  return undefined(info);
}

// synchronize(device) -> Promise<void>
Napi::Value synchronize(const Napi::CallbackInfo& info) {
  Device& device = Device::at(device_index(info[0]));
  refuse_in_capture(device, "waiting for the device");
  return Environment::of(info.Env()).promise(info.Env().Undefined(), nullptr, [&](Environment::Completion completion) {
    device.when_idle(std::move(completion.done));
  });
}

// memory() -> { numTensors, numBytes }
Napi::Value memory(const Napi::CallbackInfo& info) {
  const Environment& environment = Environment::of(info.Env());
  auto result = Napi::Object::New(info.Env());
  result.Set("numTensors", static_cast<double>(environment.tensors()));
  result.Set("numBytes", static_cast<double>(environment.bytes()));
  return result;
}

// debugMemory(on) -> guard zones damaged so far, all that was queued on the CPU done
Napi::Value debug_memory(const Napi::CallbackInfo& info) {
  Device::at(kCpu).synchronize();
  set_debug_memory(info[0].ToBoolean());
  return Napi::Number::New(info.Env(), static_cast<double>(damaged_guards()));
}

}  // namespace

Napi::Value wrap(Napi::Env env, std::shared_ptr<Storage> storage, Napi::Value released) {
  Handle* const again = released.IsUndefined() ? nullptr : &handle_of(released);
  VSA_CHECK(again == nullptr || again->storage == nullptr, "a handle that is used again was released");
  Environment::of(env).add_tensor(env, storage->add_tensor(), storage->bytes());
  if (again != nullptr) {
    again->storage = std::move(storage);
    return released;
  }
  return new_handle(env, std::move(storage));
}

bool is_empty(Napi::Value value) {
  return handle_of(value).storage == nullptr;
}

const std::shared_ptr<Storage>& unwrap(Napi::Value value) {
  const Handle& handle = handle_of(value);
  if (handle.storage == nullptr) throw Error("ERR_DISPOSED", "the memory of a disposed tensor was used");
  return handle.storage;
}

void export_handles(Napi::Env env, Napi::Object exports) {
  exports.Set("alloc", function<alloc>(env));
  exports.Set("handle", function<empty>(env));
  exports.Set("retain", function<retain>(env));
  exports.Set("release", function<release>(env));
  exports.Set("write", function<write>(env));
  exports.Set("read", function<read>(env));
  exports.Set("readSync", function<read_sync>(env));
  exports.Set("transfer", function<transfer>(env));
  exports.Set("synchronize", function<synchronize>(env));
  exports.Set("memory", function<memory>(env));
  exports.Set("debugMemory", function<debug_memory>(env));
}

}  // namespace vsa::binding
