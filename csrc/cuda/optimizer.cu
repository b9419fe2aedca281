#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/tensors.cuh"

// In float64 from the fp32 state to the fp32 state, as on the CPU: every number is rounded once a step. Bound by memory
// where a GPU has fp64 units to speak of; elsewhere it is a small part of a step all the same.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 256;

// What all elements share.
struct Step {
  double beta1, beta2, eps, weight_decay;
  const float* rates;
  const float* gradient_scale;
  double scale, keep, rate, first_correction, second_correction;

  __device__ __forceinline__ void begin() {
    rate = rates[0], first_correction = 1.0 / rates[1], second_correction = 1.0 / rates[2];
    scale = gradient_scale == nullptr ? 1.0 : *gradient_scale;
    keep = 1 - rate * weight_decay;
  }

  __device__ __forceinline__ void operator()(float& value, float gradient, float& first, float& second) const {
    const double g = gradient * scale;
    const double mean = beta1 * first + (1 - beta1) * g;
    const double square = beta2 * second + (1 - beta2) * g * g;
    const double direction = mean * first_correction / (sqrt(square * second_correction) + eps);
    first = static_cast<float>(mean);
    second = static_cast<float>(square);
    value = static_cast<float>(keep * value - rate * direction);
  }
};

template <int V>
__device__ __forceinline__ void adam_w_chunk(const Step& step, const Tensors<4>& tensors, const Place& place) {
  float* const value = tensors.memory[0][place.tensor];
  const float* const gradient = tensors.memory[1][place.tensor];
  float* const first = tensors.memory[2][place.tensor];
  float* const second = tensors.memory[3][place.tensor];
  const int64_t whole = place.begin + (place.end - place.begin) / V * V;
  for (int64_t at = place.begin + threadIdx.x * V; at < whole; at += kThreads * V) {
    Vector<float, V> x = load_floats<V>(value + at), m = load_floats<V>(first + at), v = load_floats<V>(second + at);
    const Vector<float, V> g = load_floats<V>(gradient + at);
#pragma unroll
    for (int c = 0; c < V; ++c) step(x.element[c], g.element[c], m.element[c], v.element[c]);
    store_floats<V>(value + at, x);
    store_floats<V>(first + at, m);
    store_floats<V>(second + at, v);
  }
  const int64_t rest = whole + threadIdx.x;
  if (rest < place.end) step(value[rest], gradient[rest], first[rest], second[rest]);
}

__global__ void __launch_bounds__(kThreads) adam_w_kernel(Step step, Tensors<4> tensors) {
  const Place place = tensors.locate(blockIdx.x);
  step.begin();
  if (place.wide) {
    adam_w_chunk<4>(step, tensors, place);
  } else {
    adam_w_chunk<1>(step, tensors, place);
  }
}

template <int V>
__device__ __forceinline__ void average_chunk(double share, const Tensors<2>& tensors, const Place& place) {
  constexpr int kAhead = 4;
  float* const average = tensors.memory[0][place.tensor];
  const float* const value = tensors.memory[1][place.tensor];
  const auto moved = [share](float before, float towards) {
    const double wide = before;
    return static_cast<float>(wide + share * (static_cast<double>(towards) - wide));
  };
  const int64_t whole = place.begin + (place.end - place.begin) / V * V;
  for (int64_t at = place.begin + threadIdx.x * V; at < whole; at += kThreads * V * kAhead) {
    Vector<float, V> x[kAhead], y[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t here = at + i * kThreads * V;
      if (here < whole) x[i] = load_floats<V>(average + here), y[i] = load_floats<V>(value + here);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t here = at + i * kThreads * V;
      if (here >= whole) continue;
#pragma unroll
      for (int c = 0; c < V; ++c) x[i].element[c] = moved(x[i].element[c], y[i].element[c]);
      store_floats<V>(average + here, x[i]);
    }
  }
  const int64_t rest = whole + threadIdx.x;
  if (rest < place.end) average[rest] = moved(average[rest], value[rest]);
}

__global__ void __launch_bounds__(kThreads) moving_average_kernel(double share, Tensors<2> tensors) {
  const Place place = tensors.locate(blockIdx.x);
  if (place.wide) {
    average_chunk<4>(share, tensors, place);
  } else {
    average_chunk<1>(share, tensors, place);
  }
}

}  // namespace

void launch(const AdamW& p, const Launch& on) {
  std::vector<int64_t> counts;
  for (const Parameter& parameter : p.parameters) counts.push_back(parameter.count);
  Step step{};
  step.beta1 = p.beta1, step.beta2 = p.beta2, step.eps = p.eps, step.weight_decay = p.weight_decay;
  step.rates = p.rates, step.gradient_scale = p.gradient_scale;
  for_tensors<4>(
      counts,
      [&](size_t i, auto& to) {
        const Parameter& parameter = p.parameters[i];
        to[0] = parameter.value, to[1] = const_cast<float*>(parameter.gradient);
        to[2] = parameter.first, to[3] = parameter.second;
      },
      [&](const Tensors<4>& tensors, int64_t) {
        adam_w_kernel<<<blocks_of(tensors.chunks(), 1), kThreads, 0, on.stream()>>>(step, tensors);
        check_launch("adam_w_kernel");
      });
}

void launch(const MovingAverage& p, const Launch& on) {
  for_tensors<2>(
      p.counts, [&](size_t i, auto& to) { to[0] = p.averages[i], to[1] = const_cast<float*>(p.values[i]); },
      [&](const Tensors<2>& tensors, int64_t) {
        moving_average_kernel<<<blocks_of(tensors.chunks(), 1), kThreads, 0, on.stream()>>>(1 - p.decay, tensors);
        check_launch("moving_average_kernel");
      });
}

}  // namespace vsa::cuda
