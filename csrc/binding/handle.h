#pragma once

#include <napi.h>

#include <memory>

#include "core/storage.h"

namespace vsa::binding {

// What a tensor in JavaScript holds: one share of a storage. Several handles may share one (reshape, saved state).
// The share is given back by release(), or, as a last resort, when the collector finalises the handle.
struct Handle {
  // Told apart from other things that JavaScript may hold by its first word: a type tag would take longer to check than
  // all else that is done with a handle.
  static constexpr uint64_t kMagic = 0x9f6d1c0b7a524e35;
  const uint64_t magic = kMagic;
  std::shared_ptr<Storage> storage;  // null once released, and before an operation has made it
};

// A handle for a storage; counts it in memory() and in V8's external memory. `released`: one to use again, since making
// handles and having the collector finalise them costs more than most operations; undefined for a new one.
Napi::Value wrap(Napi::Env env, std::shared_ptr<Storage> storage, Napi::Value released);
// Whether a handle has no storage: it was released, or is one of empty().
bool is_empty(Napi::Value value);
// The storage of a handle; throws if the value is no handle, or an empty one.
const std::shared_ptr<Storage>& unwrap(Napi::Value value);

void export_handles(Napi::Env env, Napi::Object exports);

}  // namespace vsa::binding
