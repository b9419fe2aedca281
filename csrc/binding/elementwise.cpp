#include "binding/args.h"
#include "binding/ops.h"

namespace vsa::binding {
namespace {

Napi::Value fill(const Napi::CallbackInfo& info) {
  Args a(info);
  Fill p{.dtype = a.dtype(), .count = a.integer("count"), .value = a.number("value"), .output = nullptr};
  p.output = a.out("output", p.count * size_of(p.dtype));
  return a.launch(p);
}

Napi::Value cast(const Napi::CallbackInfo& info) {
  Args a(info);
  Cast p{.from = a.dtype("from"), .to = a.dtype("to"), .count = a.integer("count"), .x = nullptr, .output = nullptr};
  p.x = a.in("x", p.count * size_of(p.from));
  p.output = a.out("output", p.count * size_of(p.to));
  return a.launch(p);
}

Napi::Value random_bits(const Napi::CallbackInfo& info) {
  Args a(info);
  RandomBits p{.seed = a.seed("seed"), .count = a.integer("count"), .output = nullptr};
  p.output = static_cast<int32_t*>(a.out("output", p.count * 4));
  return a.launch(p);
}

Napi::Value random_normal(const Napi::CallbackInfo& info) {
  Args a(info);
  RandomNormal p{.dtype = a.float_dtype(),
                 .seed = a.seed("seed"),
                 .count = a.integer("count"),
                 .mean = a.number("mean"),
                 .std = a.number("std"),
                 .output = nullptr};
  p.output = a.out("output", p.count * size_of(p.dtype));
  return a.launch(p);
}

}  // namespace

void export_elementwise(Napi::Env env, Napi::Object exports) {
  operation<fill>(env, exports, "fill", {"dtype", "count", "value", "output"});
  operation<cast>(env, exports, "cast", {"from", "to", "count", "x", "output"});
  operation<random_bits>(env, exports, "randomBits", {"seed", "count", "output"});
  operation<random_normal>(env, exports, "randomNormal", {"dtype", "seed", "count", "mean", "std", "output"});
}

}  // namespace vsa::binding
