#pragma once

#include <napi.h>

namespace vsa::binding {

void export_attention(Napi::Env env, Napi::Object exports);
void export_device(Napi::Env env, Napi::Object exports);
void export_elementwise(Napi::Env env, Napi::Object exports);
void export_info(Napi::Env env, Napi::Object exports);
void export_training(Napi::Env env, Napi::Object exports);

}  // namespace vsa::binding
