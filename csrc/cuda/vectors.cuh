#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "core/dtype.h"
#include "core/error.h"

// Elements as memory is best asked for them, 16 bytes at a time, and as arithmetic wants them, as floats.
namespace vsa::cuda {

// V elements of a row: 16 bytes, or a single element where widths or addresses do not allow more.
template <typename T, int V>
struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) Vector {
  T element[V];
};

// The same as it waits in registers, so that two 16-bit elements share one.
template <size_t bytes>
struct BitsOf;
template <>
struct BitsOf<16> {
  using Type = uint4;
};
template <>
struct BitsOf<4> {
  using Type = uint32_t;
};
template <>
struct BitsOf<2> {
  using Type = uint16_t;
};
template <typename T, int V>
using Bits = typename BitsOf<V * sizeof(T)>::Type;

template <typename To, typename From>
__device__ __forceinline__ To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "the bits are kept");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

template <typename T, int V>
__device__ __forceinline__ Vector<float, V> to_float(const Bits<T, V>& bits) {
  const auto x = bit_cast<Vector<T, V>>(bits);
  Vector<float, V> y;
#pragma unroll
  for (int c = 0; c < V; ++c) y.element[c] = static_cast<float>(x.element[c]);
  return y;
}

template <typename T, int V>
__device__ __forceinline__ Bits<T, V> rounded(const Vector<float, V>& x) {
  Vector<T, V> y;
#pragma unroll
  for (int c = 0; c < V; ++c) y.element[c] = static_cast<T>(x.element[c]);
  return bit_cast<Bits<T, V>>(y);
}

// Where T elements lie at an address that a whole vector may be read from.
template <typename T, int V>
__device__ __forceinline__ Vector<float, V> load(const T* from) {
  return to_float<T, V>(*reinterpret_cast<const Bits<T, V>*>(from));
}

template <typename T, int V>
__device__ __forceinline__ void store(T* to, const Vector<float, V>& x) {
  *reinterpret_cast<Bits<T, V>*>(to) = rounded<T, V>(x);
}

// Of parameters, which are fp32 whatever the vectors beside them are of: up to two accesses.
template <int V>
__device__ __forceinline__ Vector<float, V> load_floats(const float* from) {
  return *reinterpret_cast<const Vector<float, V>*>(from);
}

template <int V>
__device__ __forceinline__ void store_floats(float* to, const Vector<float, V>& x) {
  *reinterpret_cast<Vector<float, V>*>(to) = x;
}

// Whether addresses allow accesses of 16 bytes; null does.
inline bool aligned_to_16(std::initializer_list<const void*> pointers) {
  uintptr_t bits = 0;
  for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
  return bits % 16 == 0;
}

// Calls go(a T, elements of a vector): 16 bytes of them where `wide`, else one.
template <typename Go>
void for_elements(DType dtype, bool wide, const Go& go) {
  const auto of = [&](auto element) {
    if (wide) {
      go(element, std::integral_constant<int, static_cast<int>(16 / sizeof(element))>());
    } else {
      go(element, std::integral_constant<int, 1>());
    }
  };
  switch (dtype) {
    case DType::float32:
      return of(float());
    case DType::bfloat16:
      return of(__nv_bfloat16());
    case DType::float16:
      return of(__half());
    default:
      VSA_CHECK(false, "elements must be float32, bfloat16 or float16");
  }
}

inline unsigned blocks_of(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  VSA_CHECK(blocks <= INT32_MAX, "too large a problem for one launch");
  return static_cast<unsigned>(std::max<int64_t>(blocks, 1));
}

}  // namespace vsa::cuda
