#include "cuda/check.h"
#include "cuda/fast_division.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

// A thread turns the same channels of a few heads of a token by the same cosines and sines. Bound by memory.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 4;  // of a thread: their loads are under way together

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

// Items are vectors of channels of groups of heads of tokens, the channels next to each other.
template <typename T, int V, int A>
__global__ void __launch_bounds__(kThreads)
    rotary_kernel(const T* x, const float* table, T* output, uint32_t items, FastDivision vectors, FastDivision groups,
                  FastDivision length, int32_t H, int32_t D, float sign) {
  const uint32_t item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= items) return;
  const uint32_t rest = vectors(item), token = groups(rest);
  const auto channel = static_cast<int32_t>(item - rest * vectors.divisor) * V;
  const auto begin = static_cast<int32_t>(rest - token * groups.divisor) * kHeads;
  const uint32_t place = token - length(token) * length.divisor;
  const int64_t first = (int64_t{token} * H + begin) * D + channel;
  Vector<float, V> in[kHeads];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (begin + h < H) in[h] = load_by<T, V, A>(x + first + int64_t{h} * D);
  }
  const float2* const turns = reinterpret_cast<const float2*>(table + int64_t{place} * D + channel);
  float2 turn[V / 2];
#pragma unroll
  for (int i = 0; i < V / 2; ++i) turn[i] = turns[i];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (begin + h >= H) break;
    Vector<float, V> out;
#pragma unroll
    for (int i = 0; i < V / 2; ++i) {
      const float real = in[h].element[2 * i], imaginary = in[h].element[2 * i + 1];
      const float cosine = turn[i].x, sine = sign * turn[i].y;
      out.element[2 * i] = real * cosine - imaginary * sine;
      out.element[2 * i + 1] = real * sine + imaginary * cosine;
    }
    store_by<T, V, A>(output + first + int64_t{h} * D, out);
  }
}

}  // namespace

void launch(const Rotary& p, const Launch& on) {
  const int64_t tokens = p.B * p.L;
  if (tokens * p.H * p.D == 0) return;
  const int64_t groups = (p.H + kHeads - 1) / kHeads;
  const bool wide = aligned_to_16({p.x, p.output}) && p.D % (16 / size_of(p.dtype)) == 0;
  for_elements(p.dtype, wide, [&](auto element, auto access) {
    using T = decltype(element);
    constexpr int A = access(), V = A == 1 ? 2 : A;  // a pair at least
    const int64_t items = tokens * groups * (p.D / V);
    VSA_CHECK(items <= INT32_MAX && p.L <= INT32_MAX, "too large a problem for one launch");
    const auto by = [](int64_t divisor) { return FastDivision(static_cast<uint32_t>(divisor)); };
    rotary_kernel<T, V, A><<<blocks_of(items, kThreads), kThreads, 0, on.stream()>>>(
        static_cast<const T*>(p.x), p.table, static_cast<T*>(p.output), static_cast<uint32_t>(items), by(p.D / V),
        by(groups), by(p.L), static_cast<int32_t>(p.H), static_cast<int32_t>(p.D), p.inverse ? -1.0f : 1.0f);
    check_launch("rotary_kernel");
  });
}

}  // namespace vsa::cuda
