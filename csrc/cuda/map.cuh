#pragma once

#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

// For operations whose element i of the output needs element i of the inputs alone. Bound by memory.
namespace vsa::cuda {

inline constexpr int kMapThreads = 256;
inline constexpr int kMapPacks = 4;  // vectors of a thread: their loads are under way together

template <typename T, int inputs>
struct MapInputs {
  const T* at[inputs > 0 ? inputs : 1];
};

// output[i] = f(x0[i], x1[i], ...). f.begin() runs once a thread, for what lies on the device and all elements share.
// The output may be an input.
template <typename T, int V, int inputs, typename F>
__global__ void __launch_bounds__(kMapThreads) map_kernel(F f, MapInputs<T, inputs> x, T* output, int64_t count) {
  f.begin();
  const int64_t vectors = count / V, first = int64_t{blockIdx.x} * (kMapThreads * kMapPacks) + threadIdx.x;
  Bits<T, V> in[kMapPacks][inputs > 0 ? inputs : 1];
#pragma unroll
  for (int i = 0; i < kMapPacks; ++i) {
    const int64_t at = first + i * kMapThreads;
#pragma unroll
    for (int n = 0; n < inputs; ++n) {
      if (at < vectors) in[i][n] = reinterpret_cast<const Bits<T, V>*>(x.at[n])[at];
    }
  }
#pragma unroll
  for (int i = 0; i < kMapPacks; ++i) {
    const int64_t at = first + i * kMapThreads;
    if (at >= vectors) continue;
    Vector<float, V> element[inputs > 0 ? inputs : 1], result;
#pragma unroll
    for (int n = 0; n < inputs; ++n) element[n] = to_float<T, V>(in[i][n]);
#pragma unroll
    for (int c = 0; c < V; ++c) {
      if constexpr (inputs == 0) result.element[c] = f();
      if constexpr (inputs == 1) result.element[c] = f(element[0].element[c]);
      if constexpr (inputs == 2) result.element[c] = f(element[0].element[c], element[1].element[c]);
    }
    store<T, V>(output + at * V, result);
  }
  // Less than a vector is left.
  const int64_t rest = vectors * V + threadIdx.x;
  if (blockIdx.x != 0 || rest >= count) return;
  const auto one = [&](int n) { return static_cast<float>(x.at[n][rest]); };
  if constexpr (inputs == 0) output[rest] = static_cast<T>(f());
  if constexpr (inputs == 1) output[rest] = static_cast<T>(f(one(0)));
  if constexpr (inputs == 2) output[rest] = static_cast<T>(f(one(0), one(1)));
}

// f_of(a T): the functor for elements of that type.
template <int inputs, typename FOf>
void map(DType dtype, int64_t count, const void* const (&x)[inputs > 0 ? inputs : 1], void* output, const Launch& on,
         const char* name, const FOf& f_of) {
  if (count == 0) return;
  bool wide = aligned_to_16({output});
  for (int n = 0; n < inputs; ++n) wide = wide && aligned_to_16({x[n]});
  for_elements(dtype, wide, [&](auto element, auto vector) {
    using T = decltype(element);
    constexpr int V = vector();
    MapInputs<T, inputs> in{};
    for (int n = 0; n < inputs; ++n) in.at[n] = static_cast<const T*>(x[n]);
    const unsigned blocks = blocks_of(count / V, kMapThreads * kMapPacks);
    map_kernel<T, V, inputs>
        <<<blocks, kMapThreads, 0, on.stream()>>>(f_of(element), in, static_cast<T*>(output), count);
    check_launch(name);
  });
}

}  // namespace vsa::cuda
