// The activations of kernels.h, included by kernels_body.h for each instruction set. No include guard by intention.
//
// Both are x * sigmoid(z): SiLU with z = x, GELU-tanh with z = 2 sqrt(2 / pi) (x + 0.044715 x^3), for
// (1 + tanh(u)) / 2 = sigmoid(2 u).

namespace vsa::cpu::VSA_ISA {
namespace {

constexpr double kGeluLinear = 1.5957691216057308;  // 2 sqrt(2 / pi)
constexpr double kGeluCubic = 0.044715 * kGeluLinear;
constexpr int64_t kArguments = 256;  // at a time

// z as the sum of two floats, by way of fp64: the exp of a single one would be off by |z| roundings.
struct Arguments {
  float z[kArguments];
  float rest[kArguments];
};

// Beyond 100 both sigmoids are 0 or 1, and their arguments must stay finite. NaN for NaN.
VSA_INLINE Vec clamp(Vec x) {
  const Vec low = splat(-100.0f), high = splat(100.0f);
  const Vec inside = x < low ? low : x;
  return inside > high ? high : inside;
}

VSA_TARGET void gelu_arguments(int64_t count, const float* x, Arguments& arguments) {
  float* const z = arguments.z;
  float* const rest = arguments.rest;
  for (int64_t i = 0; i < count; i += kLanes) store(z + i, clamp(load(x + i)));
  // Compilers widen to fp64 well in a plain loop, and badly in vectors of their extensions.
  for (int64_t i = 0; i < count; ++i) {
    const double wide = static_cast<double>(z[i]);
    const double exact = wide * (wide * wide * kGeluCubic + kGeluLinear);
    z[i] = static_cast<float>(exact);
    rest[i] = static_cast<float>(exact - static_cast<double>(z[i]));
  }
}

struct Sigmoid {
  Vec value;
  Vec derivative;  // value * (1 - value)
};

VSA_INLINE Sigmoid sigmoid(Vec z, Vec rest) {
  // exp(-|z|) does not overflow.
  const UintVec sign = (UintVec)z & 0x80000000u;
  const Vec e = exp((Vec)((UintVec)z | 0x80000000u));
  const Vec exact = e - e * (Vec)((UintVec)rest ^ sign);
  const Vec positive = splat(1.0f) / (exact + splat(1.0f)), negative = exact * positive;
  return {z < Vec{} ? negative : positive, positive * negative};
}

// The function, or times doutput its derivative s + x s (1 - s) dz/dx, s = sigmoid(z); count is a multiple of kLanes.
template <Activation kind, bool backward>
VSA_INLINE void activate(int64_t count, const float* x, const float* doutput, float* output) {
  Arguments arguments;
  for (int64_t begin = 0; begin < count; begin += kArguments) {
    const int64_t block = count - begin < kArguments ? count - begin : kArguments;
    if (kind == Activation::gelu_tanh) gelu_arguments(block, x + begin, arguments);
    for (int64_t i = 0; i < block; i += kLanes) {
      const Vec v = load(x + begin + i), inside = clamp(v);
      const bool gelu = kind == Activation::gelu_tanh;
      const Sigmoid s = gelu ? sigmoid(load(arguments.z + i), load(arguments.rest + i)) : sigmoid(inside, Vec{});
      if constexpr (backward) {
        const Vec slope =
            inside * inside * splat(static_cast<float>(3 * kGeluCubic)) + splat(static_cast<float>(kGeluLinear));
        const Vec derivative = (gelu ? inside * slope : inside) * s.derivative + s.value;
        store(output + begin + i, derivative * load(doutput + begin + i));
      } else {
        store(output + begin + i, v * s.value);
      }
    }
  }
}

// The last few elements come padded with zeros to a vector: an element's bits do not depend on its place.
template <Activation kind, bool backward>
VSA_INLINE void activate_all(int64_t count, const float* x, const float* doutput, float* output) {
  const int64_t whole = count / kLanes * kLanes;
  activate<kind, backward>(whole, x, doutput, output);
  if (whole == count) return;
  const size_t bytes = static_cast<size_t>(count - whole) * sizeof(float);
  float last_x[kLanes] = {}, last_doutput[kLanes] = {}, last[kLanes];
  std::memcpy(last_x, x + whole, bytes);
  if (backward) std::memcpy(last_doutput, doutput + whole, bytes);
  activate<kind, backward>(kLanes, last_x, last_doutput, last);
  std::memcpy(output + whole, last, bytes);
}

VSA_TARGET void activation_forward(Activation kind, int64_t count, const float* x, float* output) {
  if (kind == Activation::silu) {
    activate_all<Activation::silu, false>(count, x, nullptr, output);
  } else {
    activate_all<Activation::gelu_tanh, false>(count, x, nullptr, output);
  }
}

VSA_TARGET void activation_backward(Activation kind, int64_t count, const float* x, const float* doutput, float* dx) {
  if (kind == Activation::silu) {
    activate_all<Activation::silu, true>(count, x, doutput, dx);
  } else {
    activate_all<Activation::gelu_tanh, true>(count, x, doutput, dx);
  }
}

}  // namespace
}  // namespace vsa::cpu::VSA_ISA
