#include "cuda/map.cuh"

// Both activations are x * sigmoid(z): SiLU with z = x, GELU-tanh with z = 2 sqrt(2 / pi) (x + 0.044715 x^3), for
// (1 + tanh(u)) / 2 = sigmoid(2 u). As on the CPU (cpu/activation_body.h).
namespace vsa::cuda {
namespace {

constexpr double kGeluLinear = 1.5957691216057308;  // 2 sqrt(2 / pi)
constexpr double kGeluCubic = 0.044715 * kGeluLinear;

struct Sigmoid {
  float value, derivative;
};

// Beyond this both sigmoids are 0 or 1 in fp32, and their arguments must stay finite. NaN for NaN.
__device__ __forceinline__ float clamped(float x) {
  const float low = x < -110.0f ? -110.0f : x;
  return low > 110.0f ? 110.0f : low;
}

// sigmoid(z + rest), where rest is what z is off by: exp of a rounded z would be off by |z| roundings. Of 16-bit
// results those roundings are no part, so `exact` is for fp32.
template <bool exact>
__device__ __forceinline__ Sigmoid sigmoid(float z, float rest) {
  float e = expf(-fabsf(z));  // does not overflow
  if (exact) e -= e * (z < 0 ? -rest : rest);
  const float positive = exact ? 1.0f / (1.0f + e) : __fdividef(1.0f, 1.0f + e), negative = e * positive;
  return {z < 0 ? negative : positive, positive * negative};
}

template <Activation kind, bool exact>
__device__ __forceinline__ Sigmoid sigmoid_of(float x) {
  if constexpr (kind == Activation::silu) return sigmoid<exact>(x, 0);
  if constexpr (exact) {
    const double wide = x, z = wide * (wide * wide * kGeluCubic + kGeluLinear);
    const float rounded = static_cast<float>(z);
    return sigmoid<exact>(rounded, static_cast<float>(z - rounded));
  }
  return sigmoid<exact>(x * (x * x * static_cast<float>(kGeluCubic) + static_cast<float>(kGeluLinear)), 0);
}

template <Activation kind, bool exact>
struct Forward {
  __device__ void begin() {}
  __device__ float operator()(float x) const { return x * sigmoid_of<kind, exact>(clamped(x)).value; }
};

// s + x s (1 - s) dz/dx, s = sigmoid(z).
template <Activation kind, bool exact>
struct Backward {
  __device__ void begin() {}
  __device__ float operator()(float x, float doutput) const {
    const float inside = clamped(x);
    const Sigmoid s = sigmoid_of<kind, exact>(inside);
    const float slope = inside * inside * static_cast<float>(3 * kGeluCubic) + static_cast<float>(kGeluLinear);
    const float by = kind == Activation::gelu_tanh ? inside * slope : inside;
    return (by * s.derivative + s.value) * doutput;
  }
};

}  // namespace

void launch(const ActivationForward& p, const Launch& on) {
  const auto go = [&](auto kind) {
    map<1>(p.dtype, p.count, {p.x}, p.output, on, "activation_forward",
           [&](auto element) { return Forward<kind(), sizeof(element) == 4>(); });
  };
  if (p.kind == Activation::silu) return go(std::integral_constant<Activation, Activation::silu>());
  go(std::integral_constant<Activation, Activation::gelu_tanh>());
}

void launch(const ActivationBackward& p, const Launch& on) {
  const auto go = [&](auto kind) {
    map<2>(p.dtype, p.count, {p.x, p.doutput}, p.dx, on, "activation_backward",
           [&](auto element) { return Backward<kind(), sizeof(element) == 4>(); });
  };
  if (p.kind == Activation::silu) return go(std::integral_constant<Activation, Activation::silu>());
  go(std::integral_constant<Activation, Activation::gelu_tanh>());
}

}  // namespace vsa::cuda
