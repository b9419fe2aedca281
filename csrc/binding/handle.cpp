#include "binding/handle.h"

#include <cstring>
#include <exception>
#include <utility>

#include "binding/env.h"
#include "binding/throw.h"
#include "core/error.h"
#include "cpu/stream.h"

namespace vsa::binding {
namespace {

constexpr napi_type_tag kHandleTag = {0x9f6d1c0b7a524e35, 0xb1b3a5d8c2e64f17};

void let_go(Napi::Env env, Handle& handle) {
  if (handle.storage == nullptr) return;
  Environment& environment = Environment::of(env);
  --environment.tensors;
  if (handle.storage->drop_tensor()) {
    environment.bytes -= handle.storage->bytes();
    Napi::MemoryManagement::AdjustExternalMemory(env, -handle.storage->bytes());
  }
  handle.storage.reset();
}

Handle& handle_of(Napi::Value value) {
  if (!value.IsExternal()) throw Error("ERR_INTERNAL", "a memory handle was expected");
  auto external = value.As<Napi::External<Handle>>();
  if (!external.CheckTypeTag(&kHandleTag)) throw Error("ERR_INTERNAL", "a memory handle of this addon was expected");
  return *external.Data();
}

// A span of a storage, from numbers that JavaScript gave.
struct Span {
  Span(Napi::Value handle, Napi::Value offset_, int64_t bytes_)
      : storage(unwrap(handle)), offset(offset_.As<Napi::Number>().Int64Value()), bytes(bytes_) {
    VSA_CHECK(offset >= 0 && bytes >= 0 && offset <= storage->bytes() - bytes, "a span must lie inside its memory");
  }

  unsigned char* data() const { return static_cast<unsigned char*>(storage->data()) + offset; }

  std::shared_ptr<Storage> storage;
  int64_t offset, bytes;
};

// memcpy, but for no bytes the addresses may be null.
void copy(void* target, const void* source, int64_t bytes) {
  if (bytes > 0) std::memcpy(target, source, static_cast<size_t>(bytes));
}

std::shared_ptr<Storage> allocate(int64_t bytes) {
  try {
    return Storage::allocate(bytes);
  } catch (const OutOfMemory&) {
    // Disposed memory lives on until the tasks that use it have run: let them, then try once more.
    cpu::synchronize();
    return Storage::allocate(bytes);
  }
}

// alloc(bytes) -> handle
Napi::Value alloc(const Napi::CallbackInfo& info) {
  return wrap(info.Env(), allocate(info[0].As<Napi::Number>().Int64Value()));
}

// retain(handle) -> another handle of the same memory
Napi::Value retain(const Napi::CallbackInfo& info) {
  return wrap(info.Env(), unwrap(info[0]));
}

// release(handle): idempotent
Napi::Value release(const Napi::CallbackInfo& info) {
  let_go(info.Env(), handle_of(info[0]));
  return info.Env().Undefined();
}

// write(handle, offset, bytes, Uint8Array, fresh): the bytes are copied before it returns; written in queue order, or
// at once where nothing is queued on this memory yet.
Napi::Value write(const Napi::CallbackInfo& info) {
  const Span span(info[0], info[1], info[2].As<Napi::Number>().Int64Value());
  const auto source = info[3].As<Napi::Uint8Array>();
  VSA_CHECK(static_cast<int64_t>(source.ByteLength()) == span.bytes, "the source must be as long as the span");
  const bool fresh = info[4].ToBoolean();
  if (fresh) {
    copy(span.data(), source.Data(), span.bytes);
    return info.Env().Undefined();
  }
  const std::shared_ptr<Storage> staging = allocate(span.bytes);
  copy(staging->data(), source.Data(), span.bytes);
  cpu::enqueue([span, staging] { copy(span.data(), staging->data(), span.bytes); });
  return info.Env().Undefined();
}

std::exception_ptr copy_out(const Span& span, void* target) {
  std::exception_ptr failure = span.storage->failure();
  if (failure == nullptr) copy(target, span.data(), span.bytes);
  return failure;
}

// read(handle, offset, ArrayBuffer) -> Promise of that buffer, filled. JavaScript makes it: there a buffer that cannot
// be had is an exception, here it would end the process.
Napi::Value read(const Napi::CallbackInfo& info) {
  auto buffer = info[2].As<Napi::ArrayBuffer>();
  const Span span(info[0], info[1], static_cast<int64_t>(buffer.ByteLength()));
  void* const target = buffer.Data();
  return Environment::of(info.Env()).when_done(buffer, [span, target] { return copy_out(span, target); });
}

// readSync(handle, offset, ArrayBuffer) -> that buffer, filled; waits for the queue
Napi::Value read_sync(const Napi::CallbackInfo& info) {
  auto buffer = info[2].As<Napi::ArrayBuffer>();
  const Span span(info[0], info[1], static_cast<int64_t>(buffer.ByteLength()));
  cpu::synchronize();
  if (const std::exception_ptr failure = copy_out(span, buffer.Data())) std::rethrow_exception(failure);
  return buffer;
}

// synchronize() -> Promise<void>
Napi::Value synchronize(const Napi::CallbackInfo& info) {
  return Environment::of(info.Env()).when_done(info.Env().Undefined(), [] { return std::exception_ptr(); });
}

// memory() -> { numTensors, numBytes }
Napi::Value memory(const Napi::CallbackInfo& info) {
  const Environment& environment = Environment::of(info.Env());
  auto result = Napi::Object::New(info.Env());
  result.Set("numTensors", static_cast<double>(environment.tensors));
  result.Set("numBytes", static_cast<double>(environment.bytes));
  return result;
}

// debugMemory(on) -> guard zones damaged so far, all queued work done
Napi::Value debug_memory(const Napi::CallbackInfo& info) {
  cpu::synchronize();
  set_debug_memory(info[0].ToBoolean());
  return Napi::Number::New(info.Env(), static_cast<double>(damaged_guards()));
}

}  // namespace

Napi::Value wrap(Napi::Env env, std::shared_ptr<Storage> storage) {
  Environment& environment = Environment::of(env);
  ++environment.tensors;
  if (storage->add_tensor()) {
    environment.bytes += storage->bytes();
    Napi::MemoryManagement::AdjustExternalMemory(env, storage->bytes());
  }
  auto external = Napi::External<Handle>::New(env, new Handle{std::move(storage)}, [](Napi::Env owner, Handle* handle) {
    let_go(owner, *handle);
    delete handle;
  });
  external.TypeTag(&kHandleTag);
  return external;
}

const std::shared_ptr<Storage>& unwrap(Napi::Value value) {
  const Handle& handle = handle_of(value);
  if (handle.storage == nullptr) throw Error("ERR_DISPOSED", "the memory of a disposed tensor was used");
  return handle.storage;
}

void export_handles(Napi::Env env, Napi::Object exports) {
  exports.Set("alloc", function<alloc>(env));
  exports.Set("retain", function<retain>(env));
  exports.Set("release", function<release>(env));
  exports.Set("write", function<write>(env));
  exports.Set("read", function<read>(env));
  exports.Set("readSync", function<read_sync>(env));
  exports.Set("synchronize", function<synchronize>(env));
  exports.Set("memory", function<memory>(env));
  exports.Set("debugMemory", function<debug_memory>(env));
}

}  // namespace vsa::binding
