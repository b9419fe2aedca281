#include <napi.h>

#include "binding/env.h"
#include "binding/grid.h"
#include "binding/handle.h"
#include "binding/ops.h"
#include "binding/throw.h"

namespace {

// Counts the changes of the interface between lib/native.ts and this addon; both must have the same.
constexpr int kInterface = 10;

Napi::Object init(Napi::Env env, Napi::Object exports) {
  vsa::binding::guarded(env, [&]() -> napi_value {
    env.SetInstanceData(new vsa::binding::Environment(env));
    exports.Set("interface", kInterface);
    vsa::binding::export_handles(env, exports);
    vsa::binding::export_grids(env, exports);
    vsa::binding::export_device(env, exports);
    vsa::binding::export_elementwise(env, exports);
    vsa::binding::export_attention(env, exports);
    vsa::binding::export_training(env, exports);
    vsa::binding::export_info(env, exports);
    return nullptr;
  });
  return exports;
}

}  // namespace

NODE_API_MODULE(vsa, init)
