#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

// A thread turns the same channels of all heads of a token, so that cosines and sines are read once. Bound by memory.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 4;  // their loads are under way together

// V channels from an address that accesses of A elements are allowed at.
template <typename T, int V, int A>
__device__ __forceinline__ Vector<float, V> load_by(const T* from) {
  Vector<float, V> x;
#pragma unroll
  for (int i = 0; i < V; i += A) {
    const Vector<float, A> part = load<T, A>(from + i);
#pragma unroll
    for (int c = 0; c < A; ++c) x.element[i + c] = part.element[c];
  }
  return x;
}

template <typename T, int V, int A>
__device__ __forceinline__ void store_by(T* to, const Vector<float, V>& x) {
#pragma unroll
  for (int i = 0; i < V; i += A) {
    Vector<float, A> part;
#pragma unroll
    for (int c = 0; c < A; ++c) part.element[c] = x.element[i + c];
    store<T, A>(to + i, part);
  }
}

template <typename T, int V, int A>
__global__ void __launch_bounds__(kThreads) rotary_kernel(const T* x, const float* table, T* output, int64_t items,
                                                          int32_t L, int32_t H, int32_t D, float sign) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= items) return;
  const int32_t vectors = D / V;
  const int64_t token = item / vectors;
  const int32_t channel = static_cast<int32_t>(item - token * vectors) * V;
  float cosine[V / 2], sine[V / 2];
#pragma unroll
  for (int i = 0; i < V / 2; ++i) {
    const float* at = table + token % L * D + channel + 2 * i;
    cosine[i] = at[0], sine[i] = sign * at[1];
  }
  const int64_t first = token * H * D + channel;
  for (int32_t begin = 0; begin < H; begin += kHeads) {
    Vector<float, V> in[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (begin + h < H) in[h] = load_by<T, V, A>(x + first + int64_t{begin + h} * D);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (begin + h >= H) break;
      Vector<float, V> out;
#pragma unroll
      for (int i = 0; i < V / 2; ++i) {
        const float real = in[h].element[2 * i], imaginary = in[h].element[2 * i + 1];
        out.element[2 * i] = real * cosine[i] - imaginary * sine[i];
        out.element[2 * i + 1] = real * sine[i] + imaginary * cosine[i];
      }
      store_by<T, V, A>(output + first + int64_t{begin + h} * D, out);
    }
  }
}

}  // namespace

void launch(const Rotary& p, const Launch& on) {
  const int64_t tokens = p.B * p.L;
  if (tokens * p.H * p.D == 0) return;
  VSA_CHECK(p.L <= INT32_MAX && p.H <= INT32_MAX && p.D <= INT32_MAX, "too large a problem for one launch");
  const bool wide = aligned_to_16({p.x, p.output}) && p.D % (16 / size_of(p.dtype)) == 0;
  for_elements(p.dtype, wide, [&](auto element, auto access) {
    using T = decltype(element);
    constexpr int A = access(), V = A == 1 ? 2 : A;  // a pair at least
    const int64_t items = tokens * (p.D / V);
    rotary_kernel<T, V, A><<<blocks_of(items, kThreads), kThreads, 0, on.stream>>>(
        static_cast<const T*>(p.x), p.table, static_cast<T*>(p.output), items, static_cast<int32_t>(p.L),
        static_cast<int32_t>(p.H), static_cast<int32_t>(p.D), p.inverse ? -1.0f : 1.0f);
    check_launch("rotary_kernel");
  });
}

}  // namespace vsa::cuda
