#pragma once

#include <napi.h>

#include "core/error.h"

namespace vsa::binding {

// A JavaScript error with the code and the fields of a C++ one; lib/binding.ts makes the typed class of it.
inline Napi::Error to_javascript(Napi::Env env, const Error& error) {
  Napi::Error result = Napi::Error::New(env, error.what());
  result.Set("code", error.code);
  if (const auto* memory = dynamic_cast<const OutOfMemory*>(&error)) {
    result.Set("wantedBytes", static_cast<double>(memory->wanted));
    result.Set("freeBytes", static_cast<double>(memory->free));
    result.Set("totalBytes", static_cast<double>(memory->total));
  }
  return result;
}

// A JavaScript function that calls Body and turns our errors into JavaScript ones.
template <Napi::Value (*Body)(const Napi::CallbackInfo&)>
Napi::Function function(Napi::Env env) {
  return Napi::Function::New(env, [](const Napi::CallbackInfo& info) -> Napi::Value {
    try {
      return Body(info);
    } catch (const Error& error) {
      throw to_javascript(info.Env(), error);
    }
  });
}

}  // namespace vsa::binding
