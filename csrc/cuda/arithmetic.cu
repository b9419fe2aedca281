#include "cuda/fast_division.h"
#include "cuda/map.cuh"

// Add, Multiply and the gradients of sums and losses, element by element.
namespace vsa::cuda {
namespace {

struct Scaled {
  float alpha;
  __device__ void begin() {}
  __device__ float operator()(float a) const { return alpha * a; }
};

struct Combined {
  float alpha, beta;
  __device__ void begin() {}
  __device__ float operator()(float a, float b) const { return alpha * a + beta * b; }
};

struct Product {
  __device__ void begin() {}
  __device__ float operator()(float a, float b) const { return a * b; }
};

struct Constant {
  double scale;
  const float* x;
  float value;
  __device__ void begin() { value = static_cast<float>(scale * *x); }
  __device__ float operator()() const { return value; }
};

struct ErrorGradient {
  double factor;
  const float* doutput;
  __device__ void begin() { factor *= *doutput; }
  __device__ float operator()(float prediction, float target) const {
    return static_cast<float>((static_cast<double>(prediction) - static_cast<double>(target)) * factor);
  }
};

// Of a b that repeats: a thread has one vector of a, and finds that of b.
template <typename T, int V>
__global__ void __launch_bounds__(kMapThreads)
    add_repeated_kernel(Combined f, const T* a, const T* b, T* output, uint32_t vectors, FastDivision period) {
  const uint32_t at = blockIdx.x * kMapThreads + threadIdx.x;
  if (at >= vectors) return;
  const uint32_t b_at = at - period(at) * period.divisor;
  const Vector<float, V> x = load<T, V>(a + int64_t{at} * V), y = load<T, V>(b + int64_t{b_at} * V);
  Vector<float, V> sum;
#pragma unroll
  for (int c = 0; c < V; ++c) sum.element[c] = f(x.element[c], y.element[c]);
  store<T, V>(output + int64_t{at} * V, sum);
}

void add_repeated(const Add& p, const Launch& on) {
  const int64_t width = 16 / size_of(p.dtype);
  const bool wide = aligned_to_16({p.a, p.b, p.output}) && p.count % width == 0 && p.b_count % width == 0;
  for_elements(p.dtype, wide, [&](auto element, auto vector) {
    using T = decltype(element);
    constexpr int V = vector();
    const int64_t vectors = p.count / V;
    VSA_CHECK(vectors <= INT32_MAX, "too large a problem for one launch");
    add_repeated_kernel<T, V><<<blocks_of(vectors, kMapThreads), kMapThreads, 0, on.stream()>>>(
        Combined{p.alpha, p.beta}, static_cast<const T*>(p.a), static_cast<const T*>(p.b), static_cast<T*>(p.output),
        static_cast<uint32_t>(vectors), FastDivision(static_cast<uint32_t>(p.b_count / V)));
    check_launch("add_repeated_kernel");
  });
}

}  // namespace

void launch(const Add& p, const Launch& on) {
  if (p.count == 0) return;
  if (p.b == nullptr) {
    map<1>(p.dtype, p.count, {p.a}, p.output, on, "scale", [&](auto) { return Scaled{p.alpha}; });
  } else if (p.b_count < p.count) {
    add_repeated(p, on);
  } else {
    map<2>(p.dtype, p.count, {p.a, p.b}, p.output, on, "add", [&](auto) { return Combined{p.alpha, p.beta}; });
  }
}

void launch(const Multiply& p, const Launch& on) {
  map<2>(p.dtype, p.count, {p.a, p.b}, p.output, on, "multiply", [](auto) { return Product(); });
}

void launch(const Spread& p, const Launch& on) {
  map<0>(p.dtype, p.count, {nullptr}, p.output, on, "spread", [&](auto) { return Constant{p.scale, p.x, 0}; });
}

void launch(const SquaredErrorBackward& p, const Launch& on) {
  map<2>(p.dtype, p.count, {p.prediction, p.target}, p.dprediction, on, "squared_error_backward", [&](auto) {
    return ErrorGradient{2.0 / static_cast<double>(p.count), p.doutput};
  });
}

}  // namespace vsa::cuda
