#pragma once

#include <napi.h>

#include <exception>
#include <new>

#include "core/error.h"

namespace vsa::binding {

// A JavaScript error with the code and the fields of a C++ one; lib/binding.ts makes the typed class of it.
inline Napi::Error to_javascript(Napi::Env env, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Napi::Error& error) {
    return error;
  } catch (const OutOfMemory& error) {
    Napi::Error result = Napi::Error::New(env, error.what());
    result.Set("code", error.code);
    result.Set("wantedBytes", static_cast<double>(error.wanted));
    result.Set("freeBytes", static_cast<double>(error.free));
    result.Set("totalBytes", static_cast<double>(error.total));
    return result;
  } catch (const std::bad_alloc&) {
    Napi::Error result = Napi::Error::New(env, "out of memory on the host");
    result.Set("code", "ERR_OUT_OF_MEMORY");
    return result;
  } catch (const std::exception& error) {
    const auto* known = dynamic_cast<const Error*>(&error);
    Napi::Error result = Napi::Error::New(env, error.what());
    result.Set("code", known != nullptr ? known->code : "ERR_INTERNAL");
    return result;
  }
}

// Runs body() and throws its failures in JavaScript. None may leave as a C++ exception, or the process aborts: not
// even where nothing can be thrown, because a worker is being terminated while it runs this. Then every call into
// JavaScript fails, and nobody is left to be told.
template <typename Body>
napi_value guarded(Napi::Env env, const Body& body) noexcept {
  try {
    return body();
  } catch (...) {
    const std::exception_ptr failure = std::current_exception();
    try {
      napi_throw(env, to_javascript(env, failure).Value());
    } catch (...) {
    }
  }
  return nullptr;
}

template <Napi::Value (*Body)(const Napi::CallbackInfo&)>
Napi::Value call_guarded(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value { return Body(info); }));
}

// A JavaScript function that calls Body, which has `data` in its info.
template <Napi::Value (*Body)(const Napi::CallbackInfo&)>
Napi::Function function(Napi::Env env, void* data = nullptr) {
  return Napi::Function::New<call_guarded<Body>>(env, static_cast<const char*>(nullptr), data);
}

}  // namespace vsa::binding
