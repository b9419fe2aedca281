// The operations of training, as in binding/attention.cpp.
#include "binding/args.h"
#include "binding/ops.h"

namespace vsa::binding {
namespace {

Napi::Value matrix_product(const Napi::CallbackInfo& info) {
  Args a(info);
  MatrixProduct p{};
  p.dtype = a.float_dtype(), p.output_dtype = a.dtype("outputDtype");
  VSA_CHECK(p.output_dtype == p.dtype || p.output_dtype == DType::float32, "a product is of its inputs' dtype or fp32");
  p.M = a.integer("M"), p.N = a.integer("N"), p.K = a.integer("K");
  p.transpose_a = a.boolean("transposeA"), p.transpose_b = a.boolean("transposeB");
  p.a = a.in("a", p.M * p.K * size_of(p.dtype)), p.b = a.in("b", p.K * p.N * size_of(p.dtype));
  p.bias = static_cast<const float*>(a.in_or_null("bias", p.N * 4));
  p.output = a.out("output", p.M * p.N * size_of(p.output_dtype));
  return a.launch(p);
}

Napi::Value column_sum(const Napi::CallbackInfo& info) {
  Args a(info);
  ColumnSum p{};
  p.dtype = a.float_dtype(), p.rows = a.integer("rows"), p.columns = a.integer("columns");
  p.x = a.in("x", p.rows * p.columns * size_of(p.dtype)), p.output = a.out_f32("output", p.columns);
  return a.launch(p);
}

// rows, width and groups of an operation on rows in groups.
template <typename Params>
void read_rows(Args& a, Params& p) {
  p.dtype = a.float_dtype();
  p.rows = a.integer("rows"), p.width = a.integer("width"), p.groups = a.integer("groups");
  VSA_CHECK(p.groups >= 1 && p.rows % p.groups == 0, "rows must be a multiple of groups");
}

Napi::Value norm_forward(const Napi::CallbackInfo& info) {
  Args a(info);
  NormForward p{};
  read_rows(a, p);
  p.rms = a.boolean("rms"), p.one_plus = a.boolean("onePlus"), p.eps = static_cast<float>(a.number("eps"));
  const int64_t bytes = p.rows * p.width * size_of(p.dtype);
  p.x = a.in("x", bytes), p.output = a.out("output", bytes);
  p.gain = static_cast<const float*>(a.in_or_null("gain", p.groups * p.width * 4));
  p.shift = static_cast<const float*>(a.in_or_null("shift", p.groups * p.width * 4));
  p.mean = static_cast<float*>(a.out_or_null("mean", p.rows * 4)), p.rstd = a.out_f32("rstd", p.rows);
  VSA_CHECK(p.rms == (p.mean == nullptr), "the mean is written unless the norm is RMS");
  VSA_CHECK(!p.rms || p.shift == nullptr, "an RMS norm has no shift");
  return a.launch(p);
}

Napi::Value norm_backward(const Napi::CallbackInfo& info) {
  Args a(info);
  NormBackward p{};
  read_rows(a, p);
  p.rms = a.boolean("rms"), p.one_plus = a.boolean("onePlus");
  const int64_t bytes = p.rows * p.width * size_of(p.dtype);
  p.x = a.in("x", bytes), p.doutput = a.in("doutput", bytes), p.dx = a.out("dx", bytes);
  p.gain = static_cast<const float*>(a.in_or_null("gain", p.groups * p.width * 4));
  p.mean = static_cast<const float*>(a.in_or_null("mean", p.rows * 4)), p.rstd = a.in_f32("rstd", p.rows);
  VSA_CHECK(p.rms == (p.mean == nullptr), "the mean is read unless the norm is RMS");
  p.dgain = static_cast<float*>(a.out_or_null("dgain", p.groups * p.width * 4));
  p.dshift = static_cast<float*>(a.out_or_null("dshift", p.groups * p.width * 4));
  return a.launch(p);
}

Napi::Value rotary(const Napi::CallbackInfo& info) {
  Args a(info);
  Rotary p{};
  p.dtype = a.float_dtype(), p.inverse = a.boolean("inverse");
  p.B = a.integer("B"), p.L = a.integer("L"), p.H = a.integer("H"), p.D = a.integer("D");
  VSA_CHECK(p.D % 2 == 0, "channels are rotated in pairs");
  const int64_t bytes = p.B * p.L * p.H * p.D * size_of(p.dtype);
  p.x = a.in("x", bytes), p.table = a.in_f32("table", p.L * p.D), p.output = a.out("output", bytes);
  return a.launch(p);
}

Activation activation_kind(const Args& a) {
  const int64_t kind = a.integer("kind");
  VSA_CHECK(kind <= static_cast<int64_t>(Activation::gelu_tanh), "unknown activation");
  return static_cast<Activation>(kind);
}

Napi::Value activation_forward(const Napi::CallbackInfo& info) {
  Args a(info);
  ActivationForward p{};
  p.dtype = a.float_dtype(), p.kind = activation_kind(a), p.count = a.integer("count");
  p.x = a.in("x", p.count * size_of(p.dtype)), p.output = a.out("output", p.count * size_of(p.dtype));
  return a.launch(p);
}

Napi::Value activation_backward(const Napi::CallbackInfo& info) {
  Args a(info);
  ActivationBackward p{};
  p.dtype = a.float_dtype(), p.kind = activation_kind(a), p.count = a.integer("count");
  const int64_t bytes = p.count * size_of(p.dtype);
  p.x = a.in("x", bytes), p.doutput = a.in("doutput", bytes), p.dx = a.out("dx", bytes);
  return a.launch(p);
}

Napi::Value add(const Napi::CallbackInfo& info) {
  Args a(info);
  Add p{};
  p.dtype = a.float_dtype(), p.count = a.integer("count"), p.b_count = a.integer("bCount");
  p.alpha = static_cast<float>(a.number("alpha")), p.beta = static_cast<float>(a.number("beta"));
  p.a = a.in("a", p.count * size_of(p.dtype)), p.b = a.in_or_null("b", p.b_count * size_of(p.dtype));
  VSA_CHECK(p.b == nullptr || p.b_count > 0 || p.count == 0, "b must have elements to repeat");
  p.output = a.out("output", p.count * size_of(p.dtype));
  return a.launch(p);
}

Napi::Value multiply(const Napi::CallbackInfo& info) {
  Args a(info);
  Multiply p{};
  p.dtype = a.float_dtype(), p.count = a.integer("count");
  const int64_t bytes = p.count * size_of(p.dtype);
  p.a = a.in("a", bytes), p.b = a.in("b", bytes), p.output = a.out("output", bytes);
  return a.launch(p);
}

Napi::Value gated_residual_forward(const Napi::CallbackInfo& info) {
  Args a(info);
  GatedResidualForward p{};
  read_rows(a, p);
  const int64_t bytes = p.rows * p.width * size_of(p.dtype);
  p.x = a.in("x", bytes), p.branch = a.in("branch", bytes), p.gate = a.in_f32("gate", p.groups * p.width);
  p.output = a.out("output", bytes);
  return a.launch(p);
}

Napi::Value gated_residual_backward(const Napi::CallbackInfo& info) {
  Args a(info);
  GatedResidualBackward p{};
  read_rows(a, p);
  const int64_t bytes = p.rows * p.width * size_of(p.dtype);
  p.branch = a.in("branch", bytes), p.gate = a.in_f32("gate", p.groups * p.width);
  p.doutput = a.in("doutput", bytes), p.dbranch = a.out("dbranch", bytes);
  p.dgate = a.out_f32("dgate", p.groups * p.width);
  return a.launch(p);
}

Napi::Value sum(const Napi::CallbackInfo& info) {
  Args a(info);
  Sum p{};
  p.dtype = a.float_dtype(), p.count = a.integer("count"), p.scale = a.number("scale");
  p.x = a.in("x", p.count * size_of(p.dtype)), p.output = a.out_f32("output", 1);
  return a.launch(p);
}

Napi::Value spread(const Napi::CallbackInfo& info) {
  Args a(info);
  Spread p{};
  p.dtype = a.float_dtype(), p.count = a.integer("count"), p.scale = a.number("scale");
  p.x = a.in_f32("x", 1), p.output = a.out("output", p.count * size_of(p.dtype));
  return a.launch(p);
}

Napi::Value squared_error_forward(const Napi::CallbackInfo& info) {
  Args a(info);
  SquaredErrorForward p{};
  p.dtype = a.float_dtype(), p.count = a.integer("count");
  const int64_t bytes = p.count * size_of(p.dtype);
  p.prediction = a.in("prediction", bytes), p.target = a.in("target", bytes), p.output = a.out_f32("output", 1);
  return a.launch(p);
}

Napi::Value squared_error_backward(const Napi::CallbackInfo& info) {
  Args a(info);
  SquaredErrorBackward p{};
  p.dtype = a.float_dtype(), p.count = a.integer("count");
  const int64_t bytes = p.count * size_of(p.dtype);
  p.prediction = a.in("prediction", bytes), p.target = a.in("target", bytes), p.doutput = a.in_f32("doutput", 1);
  p.dprediction = a.out("dprediction", bytes);
  return a.launch(p);
}

Napi::Value copy_rows(const Napi::CallbackInfo& info) {
  Args a(info);
  CopyRows p{};
  p.rows = a.integer("rows"), p.bytes = a.integer("bytes");
  p.x_stride = a.integer("xStride"), p.output_stride = a.integer("outputStride");
  p.x_offset = a.integer("xOffset"), p.output_offset = a.integer("outputOffset");
  const bool empty = p.rows == 0 || p.bytes == 0;
  p.x = a.in("x", empty ? 0 : p.x_offset + (p.rows - 1) * p.x_stride + p.bytes);
  p.output = a.out("output", empty ? 0 : p.output_offset + (p.rows - 1) * p.output_stride + p.bytes);
  return a.launch(p);
}

void check_lengths(const Args& a, const std::vector<int64_t>& counts, std::initializer_list<const char*> names) {
  for (const char* name : names) VSA_CHECK(a.length(name) == counts.size(), "as many memories as counts");
}

Napi::Value adam_w(const Napi::CallbackInfo& info) {
  Args a(info);
  const std::vector<int64_t> counts = a.counts("counts");
  check_lengths(a, counts, {"values", "gradients", "firsts", "seconds"});
  AdamW p{};
  for (uint32_t i = 0; i < counts.size(); ++i) {
    p.parameters.push_back({counts[i], static_cast<float*>(a.in_out_of("values", i, counts[i] * 4)),
                            static_cast<const float*>(a.in_of("gradients", i, counts[i] * 4)),
                            static_cast<float*>(a.in_out_of("firsts", i, counts[i] * 4)),
                            static_cast<float*>(a.in_out_of("seconds", i, counts[i] * 4))});
  }
  p.beta1 = a.number("beta1"), p.beta2 = a.number("beta2");
  p.eps = a.number("eps"), p.weight_decay = a.number("weightDecay");
  p.rates = a.in_f32("rates", 3);
  p.gradient_scale = static_cast<const float*>(a.in_or_null("gradientScale", 4));
  return a.launch(p);
}

Napi::Value gradient_norm(const Napi::CallbackInfo& info) {
  Args a(info);
  GradientNorm p{};
  p.counts = a.counts("counts");
  check_lengths(a, p.counts, {"gradients"});
  for (uint32_t i = 0; i < p.counts.size(); ++i) {
    p.x.push_back(static_cast<const float*>(a.in_of("gradients", i, p.counts[i] * 4)));
  }
  p.max_norm = a.number("maxNorm");
  p.output = a.out_f32("output", 2);
  return a.launch(p);
}

Napi::Value moving_average(const Napi::CallbackInfo& info) {
  Args a(info);
  MovingAverage p{};
  p.counts = a.counts("counts");
  check_lengths(a, p.counts, {"averages", "values"});
  for (uint32_t i = 0; i < p.counts.size(); ++i) {
    p.averages.push_back(static_cast<float*>(a.in_out_of("averages", i, p.counts[i] * 4)));
    p.values.push_back(static_cast<const float*>(a.in_of("values", i, p.counts[i] * 4)));
  }
  p.decay = a.number("decay");
  return a.launch(p);
}

}  // namespace

void export_training(Napi::Env env, Napi::Object exports) {
  operation<matrix_product>(
      env, exports, "matrixProduct",
      {"dtype", "outputDtype", "M", "N", "K", "transposeA", "transposeB", "a", "b", "bias", "output"});
  operation<column_sum>(env, exports, "columnSum", {"dtype", "rows", "columns", "x", "output"});
  operation<norm_forward>(
      env, exports, "normForward",
      {"dtype", "rows", "width", "groups", "rms", "onePlus", "eps", "x", "output", "gain", "shift", "mean", "rstd"});
  operation<norm_backward>(env, exports, "normBackward",
                           {"dtype", "rows", "width", "groups", "rms", "onePlus", "x", "doutput", "dx", "gain", "mean",
                            "rstd", "dgain", "dshift"});
  operation<rotary>(env, exports, "rotary", {"dtype", "inverse", "B", "L", "H", "D", "x", "table", "output"});
  operation<activation_forward>(env, exports, "activationForward", {"dtype", "kind", "count", "x", "output"});
  operation<activation_backward>(env, exports, "activationBackward", {"dtype", "kind", "count", "x", "doutput", "dx"});
  operation<add>(env, exports, "add", {"dtype", "count", "bCount", "alpha", "beta", "a", "b", "output"});
  operation<multiply>(env, exports, "multiply", {"dtype", "count", "a", "b", "output"});
  operation<gated_residual_forward>(env, exports, "gatedResidualForward",
                                    {"dtype", "rows", "width", "groups", "x", "branch", "gate", "output"});
  operation<gated_residual_backward>(
      env, exports, "gatedResidualBackward",
      {"dtype", "rows", "width", "groups", "branch", "gate", "doutput", "dbranch", "dgate"});
  operation<sum>(env, exports, "sum", {"dtype", "count", "scale", "x", "output"});
  operation<spread>(env, exports, "spread", {"dtype", "count", "scale", "x", "output"});
  operation<squared_error_forward>(env, exports, "squaredErrorForward",
                                   {"dtype", "count", "prediction", "target", "output"});
  operation<squared_error_backward>(env, exports, "squaredErrorBackward",
                                    {"dtype", "count", "prediction", "target", "doutput", "dprediction"});
  operation<copy_rows>(env, exports, "copyRows",
                       {"rows", "bytes", "xStride", "outputStride", "xOffset", "outputOffset", "x", "output"});
  operation<adam_w>(env, exports, "adamW",
                    {"counts", "values", "gradients", "firsts", "seconds", "beta1", "beta2", "eps", "weightDecay",
                     "rates", "gradientScale"});
  operation<gradient_norm>(env, exports, "gradientNorm", {"counts", "gradients", "maxNorm", "output"});
  operation<moving_average>(env, exports, "movingAverage", {"counts", "averages", "values", "decay"});
}

}  // namespace vsa::binding
